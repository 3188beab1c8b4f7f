"""Admission: what may be written, and what is filled in on the way. One plug-in per module."""

from controlplane.apiserver.admission.default_classes import DefaultIngressClass, DefaultStorageClass
from controlplane.apiserver.admission.default_tolerations import DefaultTolerations
from controlplane.apiserver.admission.kind_warnings import KindWarnings
from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.admission.plugin import (
    AdmissionPlugin,
    AdmissionRequest,
    Operation,
    Remarks,
    ValidatingPlugin,
)
from controlplane.apiserver.admission.priority import Priority
from controlplane.apiserver.admission.runtime_class import RuntimeClassAdmission
from controlplane.apiserver.admission.service_account import ServiceAccountAdmission
from controlplane.apiserver.admission.storage_objects import (
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from controlplane.apiserver.admission.taints import ExtendedResourceToleration, TaintNodesByCondition

__all__ = [
    "AdmissionPlugin",
    "AdmissionRequest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerations",
    "ExtendedResourceToleration",
    "KindWarnings",
    "NamespaceLifecycle",
    "Operation",
    "PersistentVolumeClaimResize",
    "Priority",
    "Remarks",
    "RuntimeClassAdmission",
    "ServiceAccountAdmission",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingPlugin",
]
