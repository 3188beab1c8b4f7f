"""The plug-ins MutatingAdmissionWebhook and ValidatingAdmissionWebhook."""

from controlplane.apiserver.admission.webhooks.mutating import MutatingAdmissionWebhook
from controlplane.apiserver.admission.webhooks.validating import ValidatingAdmissionWebhook

__all__ = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"]
