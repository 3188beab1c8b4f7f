"""The plug-in ValidatingAdmissionPolicy."""

from controlplane.apiserver.admission.policies.plugin import ValidatingAdmissionPolicy

__all__ = ["ValidatingAdmissionPolicy"]
