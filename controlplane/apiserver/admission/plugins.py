"""All admission plug-ins with what they need, in their order (`chain.ORDER`). Called by the composition."""

from __future__ import annotations

from dataclasses import replace

from controlplane.apiserver.admission.always_deny import AlwaysDeny
from controlplane.apiserver.admission.certificates import (
    CertificatePermissions,
    CertificateRequester,
    CertificateSubjectRestriction,
)
from controlplane.apiserver.admission.chain import Chain, Plugin, assemble
from controlplane.apiserver.admission.default_classes import DefaultIngressClass, DefaultStorageClass
from controlplane.apiserver.admission.default_tolerations import DefaultTolerations
from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.kind_warnings import KindWarnings
from controlplane.apiserver.admission.limit_ranger import LimitRanger
from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.admission.node_restriction import NodeRestriction
from controlplane.apiserver.admission.pod_security import PodSecurity
from controlplane.apiserver.admission.policies import ValidatingAdmissionPolicy
from controlplane.apiserver.admission.priority import Priority
from controlplane.apiserver.admission.resource_quota import ResourceQuotaAdmission
from controlplane.apiserver.admission.runtime_class import RuntimeClassAdmission
from controlplane.apiserver.admission.service_account import ServiceAccountAdmission
from controlplane.apiserver.admission.storage_objects import (
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.admission.taints import TaintNodesByCondition
from controlplane.apiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from controlplane.apiserver.authz.escalation import EscalationCheck
from controlplane.apiserver.authz.modes import Authorization
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.apiserver.webhook_client import WebhookClient


def admission_chain(
    settings: ControlPlaneSettings,
    kinds: ServedKinds,
    authorization: Authorization,
    objects: StoredObjects,
    webhooks: WebhookClient,
) -> Chain:
    """All admission plug-ins and what always runs after them. Raises ValueError for bad names."""
    authorizer = authorization.chain
    seat = AuthorizerSeat(authorizer)
    plugins: dict[str, Plugin] = {
        "NamespaceLifecycle": NamespaceLifecycle(),
        "LimitRanger": LimitRanger(objects),
        "ServiceAccount": ServiceAccountAdmission(),
        "NodeRestriction": NodeRestriction(),
        "TaintNodesByCondition": TaintNodesByCondition(),
        "PodSecurity": PodSecurity(settings.pod_security.defaults, settings.pod_security.exemptions),
        "Priority": Priority(),
        "DefaultTolerationSeconds": DefaultTolerations(
            settings.not_ready_seconds, settings.unreachable_seconds
        ),
        "PersistentVolumeClaimResize": PersistentVolumeClaimResize(),
        "DefaultStorageClass": DefaultStorageClass(),
        "StorageObjectInUseProtection": StorageObjectInUseProtection(),
        "RuntimeClass": RuntimeClassAdmission(),
        "CertificateApproval": CertificatePermissions(authorizer),
        "CertificateSubjectRestriction": CertificateSubjectRestriction(),
        "DefaultIngressClass": DefaultIngressClass(),
        "MutatingAdmissionWebhook": MutatingAdmissionWebhook(webhooks, seat, kinds),
        "ValidatingAdmissionPolicy": ValidatingAdmissionPolicy(seat, kinds),
        "ValidatingAdmissionWebhook": ValidatingAdmissionWebhook(webhooks, seat, kinds),
        "ResourceQuota": ResourceQuotaAdmission(objects),
        "AlwaysDeny": AlwaysDeny(),
    }
    chain = assemble(plugins, disabled=settings.disabled_admission, enabled=settings.enabled_admission)
    always = (EscalationCheck(authorization.rbac, authorizer), CertificateRequester())
    return replace(chain, mutating=(*chain.mutating, *always), validating=(*chain.validating, KindWarnings()))
