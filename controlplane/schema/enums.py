"""The words that fields of the built-in kinds may hold, for OpenAPI alone.

Kubernetes' published definitions leave them out, its servers tell them. Called by `openapi.py`;
validation has its own rules, whose messages differ from kind to kind.
"""

from __future__ import annotations

from functools import cache

from controlplane.errors import Object

_API = "io.k8s.api."
_PROTOCOLS = "SCTP TCP UDP"
_PULL = "Always IfNotPresent Never"
_MESSAGES = "FallbackToLogsOnError File"
_EFFECTS = "NoExecute NoSchedule PreferNoSchedule"
_MODES = "Block Filesystem"
_PROFILES = "Localhost RuntimeDefault Unconfined"
_PREEMPTION = "Never PreemptLowerPriority"
_RECLAIM = "Delete Recycle Retain"
_HONOR = "Honor Ignore"
_TRAFFIC = "Cluster Local"
_FAILURE = "Fail Ignore"
_MATCH = "Equivalent Exact"
_SIDE_EFFECTS = "None NoneOnDryRun Some Unknown"
_SCOPES = "* Cluster Namespaced"

_WORDS = {
    "admissionregistration.v1.MatchResources.matchPolicy": _MATCH,
    "admissionregistration.v1.MutatingWebhook.failurePolicy": _FAILURE,
    "admissionregistration.v1.MutatingWebhook.matchPolicy": _MATCH,
    "admissionregistration.v1.MutatingWebhook.reinvocationPolicy": "IfNeeded Never",
    "admissionregistration.v1.MutatingWebhook.sideEffects": _SIDE_EFFECTS,
    "admissionregistration.v1.NamedRuleWithOperations.scope": _SCOPES,
    "admissionregistration.v1.RuleWithOperations.scope": _SCOPES,
    "admissionregistration.v1.ValidatingAdmissionPolicySpec.failurePolicy": _FAILURE,
    "admissionregistration.v1.ValidatingWebhook.failurePolicy": _FAILURE,
    "admissionregistration.v1.ValidatingWebhook.matchPolicy": _MATCH,
    "admissionregistration.v1.ValidatingWebhook.sideEffects": _SIDE_EFFECTS,
    "apps.v1.DaemonSetUpdateStrategy.type": "OnDelete RollingUpdate",
    "apps.v1.DeploymentStrategy.type": "Recreate RollingUpdate",
    "apps.v1.StatefulSetSpec.podManagementPolicy": "OrderedReady Parallel",
    "apps.v1.StatefulSetUpdateStrategy.type": "OnDelete RollingUpdate",
    "batch.v1.CronJobSpec.concurrencyPolicy": "Allow Forbid Replace",
    "batch.v1.JobSpec.completionMode": "Indexed NonIndexed",
    "batch.v1.JobSpec.podReplacementPolicy": "Failed TerminatingOrFailed",
    "batch.v1.PodFailurePolicyOnExitCodesRequirement.operator": "In NotIn",
    "batch.v1.PodFailurePolicyRule.action": "Count FailIndex FailJob Ignore",
    "core.v1.AppArmorProfile.type": _PROFILES,
    "core.v1.AzureDiskVolumeSource.cachingMode": "None ReadOnly ReadWrite",
    "core.v1.AzureDiskVolumeSource.kind": "Dedicated Managed Shared",
    "core.v1.Container.imagePullPolicy": _PULL,
    "core.v1.Container.terminationMessagePolicy": _MESSAGES,
    "core.v1.ContainerPort.protocol": _PROTOCOLS,
    "core.v1.EndpointPort.protocol": _PROTOCOLS,
    "core.v1.EphemeralContainer.imagePullPolicy": _PULL,
    "core.v1.EphemeralContainer.terminationMessagePolicy": _MESSAGES,
    "core.v1.HTTPGetAction.scheme": "HTTP HTTPS",
    "core.v1.NamespaceStatus.phase": "Active Terminating",
    "core.v1.NodeSelectorRequirement.operator": "DoesNotExist Exists Gt In Lt NotIn",
    "core.v1.NodeStatus.phase": "Pending Running Terminated",
    "core.v1.PersistentVolumeClaimSpec.volumeMode": _MODES,
    "core.v1.PersistentVolumeClaimStatus.phase": "Bound Lost Pending",
    "core.v1.PersistentVolumeSpec.persistentVolumeReclaimPolicy": _RECLAIM,
    "core.v1.PersistentVolumeSpec.volumeMode": _MODES,
    "core.v1.PersistentVolumeStatus.phase": "Available Bound Failed Pending Released",
    "core.v1.PodSecurityContext.fsGroupChangePolicy": "Always OnRootMismatch",
    "core.v1.PodSecurityContext.supplementalGroupsPolicy": "Merge Strict",
    "core.v1.PodSpec.dnsPolicy": "ClusterFirst ClusterFirstWithHostNet Default None",
    "core.v1.PodSpec.preemptionPolicy": _PREEMPTION,
    "core.v1.PodSpec.restartPolicy": "Always Never OnFailure",
    "core.v1.PodStatus.phase": "Failed Pending Running Succeeded Unknown",
    "core.v1.PodStatus.qosClass": "BestEffort Burstable Guaranteed",
    "core.v1.PortStatus.protocol": _PROTOCOLS,
    "core.v1.ScopedResourceSelectorRequirement.operator": "DoesNotExist Exists In NotIn",
    "core.v1.ScopedResourceSelectorRequirement.scopeName": (
        "BestEffort CrossNamespacePodAffinity NotBestEffort NotTerminating PriorityClass Terminating"
    ),
    "core.v1.SeccompProfile.type": _PROFILES,
    "core.v1.SecurityContext.procMount": "Default Unmasked",
    "core.v1.ServicePort.protocol": _PROTOCOLS,
    "core.v1.ServiceSpec.externalTrafficPolicy": _TRAFFIC,
    "core.v1.ServiceSpec.internalTrafficPolicy": _TRAFFIC,
    "core.v1.ServiceSpec.ipFamilyPolicy": "PreferDualStack RequireDualStack SingleStack",
    "core.v1.ServiceSpec.sessionAffinity": "ClientIP None",
    "core.v1.ServiceSpec.type": "ClusterIP ExternalName LoadBalancer NodePort",
    "core.v1.Taint.effect": _EFFECTS,
    "core.v1.Toleration.effect": _EFFECTS,
    "core.v1.Toleration.operator": "Equal Exists",
    "core.v1.TopologySpreadConstraint.nodeAffinityPolicy": _HONOR,
    "core.v1.TopologySpreadConstraint.nodeTaintsPolicy": _HONOR,
    "core.v1.TopologySpreadConstraint.whenUnsatisfiable": "DoNotSchedule ScheduleAnyway",
    "core.v1.VolumeMount.mountPropagation": "Bidirectional HostToContainer None",
    "discovery.v1.EndpointSlice.addressType": "FQDN IPv4 IPv6",
    "networking.v1.HTTPIngressPath.pathType": "Exact ImplementationSpecific Prefix",
    "networking.v1.NetworkPolicyPort.protocol": _PROTOCOLS,
    "scheduling.v1.PriorityClass.preemptionPolicy": _PREEMPTION,
    "storage.v1.StorageClass.reclaimPolicy": _RECLAIM,
    "storage.v1.StorageClass.volumeBindingMode": "Immediate WaitForFirstConsumer",
}
"""By type and field, below `io.k8s.api`, in the order of the alphabet."""


@cache
def words() -> dict[str, dict[str, list[str]]]:
    """What each type's fields may hold: by full type name, then by field."""
    found: dict[str, dict[str, list[str]]] = {}
    for place, text in _WORDS.items():
        type_name, _, field = place.rpartition(".")
        found.setdefault(_API + type_name, {})[field] = text.split()
    return found


def with_words(type_name: str, schema: Object) -> Object:
    """`schema`, the definition of that type, with the words its fields may hold and a description of them."""
    known = words().get(type_name)
    if known is None:
        return schema
    properties = dict(schema["properties"])
    for field, choices in known.items():
        listed = "".join(f'\n - `"{choice}"`' for choice in choices)
        told = f"{properties[field].get('description', '')}\n\nPossible enum values:{listed}"
        properties[field] = {**properties[field], "description": told, "enum": choices}
    return {**schema, "properties": properties}
