from datetime import UTC, datetime

import pytest

from controlplane.resources import catalog
from controlplane.resources.catalog import KINDS
from controlplane.resources.table import table
from controlplane.resources.versions import gather

MEASURED = "metrics.k8s.io"
"""Kinds that are made of what kubelets tell; their resources are called as those they are about."""

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_kinds():
    assert {f"{kind.api_version} {kind.kind}" for kind in KINDS} == {
        "v1 ComponentStatus",
        "v1 ConfigMap",
        "v1 Endpoints",
        "v1 Event",
        "v1 LimitRange",
        "v1 Namespace",
        "v1 Node",
        "v1 PersistentVolume",
        "v1 PersistentVolumeClaim",
        "v1 Pod",
        "v1 PodTemplate",
        "v1 ReplicationController",
        "v1 ResourceQuota",
        "v1 Secret",
        "v1 Service",
        "v1 ServiceAccount",
        "apps/v1 ControllerRevision",
        "apps/v1 DaemonSet",
        "apps/v1 Deployment",
        "apps/v1 ReplicaSet",
        "apps/v1 StatefulSet",
        "coordination.k8s.io/v1 Lease",
        "discovery.k8s.io/v1 EndpointSlice",
        "apiregistration.k8s.io/v1 APIService",
        "flowcontrol.apiserver.k8s.io/v1 FlowSchema",
        "flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration",
        "networking.k8s.io/v1 Ingress",
        "networking.k8s.io/v1 IngressClass",
        "networking.k8s.io/v1 NetworkPolicy",
        "networking.k8s.io/v1beta1 IPAddress",
        "networking.k8s.io/v1beta1 ServiceCIDR",
        "node.k8s.io/v1 RuntimeClass",
        "scheduling.k8s.io/v1 PriorityClass",
        "storage.k8s.io/v1 CSIDriver",
        "storage.k8s.io/v1 CSINode",
        "storage.k8s.io/v1 CSIStorageCapacity",
        "storage.k8s.io/v1 StorageClass",
        "storage.k8s.io/v1 VolumeAttachment",
        "autoscaling/v1 HorizontalPodAutoscaler",
        "autoscaling/v2 HorizontalPodAutoscaler",
        "batch/v1 CronJob",
        "batch/v1 Job",
        "policy/v1 PodDisruptionBudget",
        "events.k8s.io/v1 Event",
        "apiextensions.k8s.io/v1 CustomResourceDefinition",
        "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding",
        "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration",
        "certificates.k8s.io/v1 CertificateSigningRequest",
        "rbac.authorization.k8s.io/v1 ClusterRole",
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding",
        "rbac.authorization.k8s.io/v1 Role",
        "rbac.authorization.k8s.io/v1 RoleBinding",
        "metrics.k8s.io/v1beta1 NodeMetrics",
        "metrics.k8s.io/v1beta1 PodMetrics",
    }


def test_look_ups():
    assert catalog.by_plural("apps", "v1", "deployments") is catalog.DEPLOYMENT
    assert catalog.by_plural("", "v1", "pods") is catalog.POD
    assert catalog.by_plural("apps", "v1", "pods") is None
    assert catalog.by_kind("v1", "Service") is catalog.SERVICE
    assert catalog.by_kind("v2", "Service") is None


def test_no_two_kinds_share_a_place_in_the_store():
    prefixes = [kind.prefix for kind in KINDS if kind.hub is None]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)]
    assert len(set(prefixes)) == len(prefixes)


def test_no_two_kinds_share_a_name_on_the_command_line():
    own = [kind for kind in KINDS if kind.hub is None and kind.group != MEASURED]
    names = [name for kind in own for name in (kind.plural, kind.singular, *kind.short_names)]
    doubled = {name for name in names if names.count(name) > 1}
    # A kind whose singular is its plural.
    assert doubled == {"endpoints"}


def test_get_all():
    assert {kind.plural for kind in KINDS if "all" in kind.categories} == {
        "pods", "replicationcontrollers", "services", "daemonsets", "deployments", "replicasets", "statefulsets",
        "jobs", "cronjobs", "horizontalpodautoscalers",
    }  # fmt: skip


def test_which_kinds_count_generations():
    assert {kind.plural for kind in KINDS if kind.generation} == {
        "daemonsets", "deployments", "replicasets", "statefulsets", "replicationcontrollers", "podtemplates",
        "endpointslices", "networkpolicies", "ingresses", "ingressclasses",
        "csidrivers", "priorityclasses", "flowschemas", "prioritylevelconfigurations",
        "jobs", "cronjobs", "poddisruptionbudgets", "customresourcedefinitions",
        "mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    }  # fmt: skip


@pytest.mark.parametrize("kind", gather(KINDS), ids=lambda kind: f"{kind.plural} {kind.api_version}")
def test_an_empty_object_harms_nothing(kind):
    """Functions of kinds meet objects of any age and shape; faults are causes, never exceptions."""
    obj = {"metadata": {"name": "x"}}
    kind.default(obj)
    kind.prepare_create(obj)
    kind.prepare_update(obj, {"metadata": {}})
    kind.prepare_status(obj, {"metadata": {}})
    kind.validate(obj)
    kind.validate_update(obj, {"metadata": {}})
    kind.validate_status(obj, {"metadata": {}})
    assert kind.row is not None
    assert len(kind.row(obj, NOW)) == len(kind.columns)
    for getter in kind.fields.values():
        assert isinstance(getter(obj), str)
    assert list(kind.row_conditions(obj)) == []


def test_discovery_of_subresources():
    names = {f"{kind.plural}/{sub.name}" for kind in KINDS for sub in kind.subresources}
    assert names == {
        "certificatesigningrequests/approval",
        "namespaces/finalize",
        "nodes/proxy",
        "pods/attach",
        "pods/binding",
        "pods/ephemeralcontainers",
        "pods/eviction",
        "pods/exec",
        "pods/log",
        "pods/portforward",
        "pods/proxy",
        "serviceaccounts/token",
        "services/proxy",
    }
    assert {kind.plural for kind in KINDS if kind.scale} == {
        "deployments", "replicasets", "replicationcontrollers", "statefulsets",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.group != MEASURED], ids=lambda kind: kind.plural
)
def test_every_column_is_described(kind):
    """By words of its own or by the API's documentation, which must know the field."""
    definitions = table(kind, [], NOW)["columnDefinitions"]
    assert [column["name"] for column in definitions if not column["description"]] == []
