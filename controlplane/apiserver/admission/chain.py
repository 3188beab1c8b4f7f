"""The admission plug-ins by name, in upstream's order; which are on, and in which phase each takes part.

Called once, when the server is composed. The order is that of kube-apiserver v1.32 (pkg/kubeapiserver/options).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from controlplane.apiserver.admission.plugin import AdmissionPlugin, ValidatingPlugin

ORDER = (
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "PersistentVolumeClaimResize",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
)
"""All names that can be switched off or on."""
OFF_BY_DEFAULT = frozenset({"AlwaysDeny"})

Plugin = AdmissionPlugin | ValidatingPlugin


@dataclass(frozen=True, slots=True)
class Chain:
    """What the registry runs before validation (`mutating`) and after it (`validating`)."""

    mutating: tuple[AdmissionPlugin, ...]
    validating: tuple[ValidatingPlugin, ...]
    names: tuple[str, ...]


def assemble(
    plugins: Mapping[str, Plugin], *, disabled: Collection[str] = (), enabled: Collection[str] = ()
) -> Chain:
    """`plugins` by name, in order, without the disabled ones. `enabled` switches on what is off by default.

    Raises ValueError for a name that is none, or that is both disabled and enabled.
    """
    for name in (*plugins, *disabled, *enabled):
        if name not in ORDER:
            raise ValueError(f"unknown admission plug-in {name!r}")
    for name in disabled:
        if name in enabled:
            raise ValueError(f"{name} in enable-admission-plugins and disable-admission-plugins overlapped")
    off = (OFF_BY_DEFAULT | set(disabled)) - set(enabled)
    active = [(name, plugins[name]) for name in ORDER if name in plugins and name not in off]
    return Chain(
        tuple(cast(AdmissionPlugin, plugin) for _, plugin in active if hasattr(plugin, "admit")),
        tuple(cast(ValidatingPlugin, plugin) for _, plugin in active if hasattr(plugin, "validate")),
        tuple(name for name, _ in active),
    )
