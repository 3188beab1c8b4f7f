"""Admission: what may be written, and what is filled in on the way. One plug-in per module."""

from controlplane.apiserver.admission.default_tolerations import DefaultTolerations
from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.admission.plugin import (
    AdmissionPlugin,
    AdmissionRequest,
    Operation,
    Remarks,
    ValidatingPlugin,
)
from controlplane.apiserver.admission.service_account import ServiceAccountAdmission

__all__ = [
    "AdmissionPlugin",
    "AdmissionRequest",
    "DefaultTolerations",
    "NamespaceLifecycle",
    "Operation",
    "Remarks",
    "ServiceAccountAdmission",
    "ValidatingPlugin",
]
