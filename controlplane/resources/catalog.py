"""Every served kind, in the order of discovery, with look-ups by plural and by kind.

The one list a new kind is added to. Imported by the API server, the client and everything that names a kind
by its constant (`catalog.POD`). Must not hold rules about kinds: they belong to the kind's own module.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.resources.admissionregistration.policies import (
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
)
from controlplane.resources.admissionregistration.webhooks import (
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_WEBHOOK_CONFIGURATION,
)
from controlplane.resources.apiregistration import API_SERVICE
from controlplane.resources.apps.controller_revision import CONTROLLER_REVISION
from controlplane.resources.apps.daemon_set import DAEMON_SET
from controlplane.resources.apps.deployment import DEPLOYMENT
from controlplane.resources.apps.replica_set import REPLICA_SET
from controlplane.resources.apps.stateful_set import STATEFUL_SET
from controlplane.resources.authentication import SELF_SUBJECT_REVIEW, TOKEN_REVIEW
from controlplane.resources.authorization import (
    LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
    SUBJECT_ACCESS_REVIEW,
)
from controlplane.resources.autoscaling.kinds import HORIZONTAL_POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER_V1
from controlplane.resources.batch.cron_job import CRON_JOB
from controlplane.resources.batch.job import JOB
from controlplane.resources.certificates import CERTIFICATE_SIGNING_REQUEST
from controlplane.resources.coordination import LEASE
from controlplane.resources.core.component_status import COMPONENT_STATUS
from controlplane.resources.core.config import CONFIG_MAP, SECRET
from controlplane.resources.core.endpoints import ENDPOINTS
from controlplane.resources.core.event import EVENT
from controlplane.resources.core.limit_range import LIMIT_RANGE
from controlplane.resources.core.namespace import NAMESPACE
from controlplane.resources.core.node import NODE
from controlplane.resources.core.persistent_volume import PERSISTENT_VOLUME
from controlplane.resources.core.persistent_volume_claim import PERSISTENT_VOLUME_CLAIM
from controlplane.resources.core.pod import POD
from controlplane.resources.core.pod_template import POD_TEMPLATE
from controlplane.resources.core.quota import RESOURCE_QUOTA
from controlplane.resources.core.replication_controller import REPLICATION_CONTROLLER
from controlplane.resources.core.service import SERVICE
from controlplane.resources.core.service_account import SERVICE_ACCOUNT
from controlplane.resources.custom.definition import CUSTOM_RESOURCE_DEFINITION
from controlplane.resources.discovery import ENDPOINT_SLICE
from controlplane.resources.events import EVENTS_EVENT
from controlplane.resources.flowcontrol.flow_schema import FLOW_SCHEMA
from controlplane.resources.flowcontrol.priority_level import PRIORITY_LEVEL
from controlplane.resources.kind import Kind
from controlplane.resources.metrics import NODE_METRICS, POD_METRICS
from controlplane.resources.networking.ingress import INGRESS
from controlplane.resources.networking.ingress_class import INGRESS_CLASS
from controlplane.resources.networking.network_policy import NETWORK_POLICY
from controlplane.resources.networking.service_cidr import IP_ADDRESS, SERVICE_CIDR
from controlplane.resources.policy import POD_DISRUPTION_BUDGET
from controlplane.resources.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from controlplane.resources.runtime_class import RUNTIME_CLASS
from controlplane.resources.scheduling import PRIORITY_CLASS
from controlplane.resources.storage.csi import CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY
from controlplane.resources.storage.storage_class import STORAGE_CLASS
from controlplane.resources.storage.volume_attachment import VOLUME_ATTACHMENT

__all__ = [
    "API_SERVICE",
    "CERTIFICATE_SIGNING_REQUEST",
    "CLUSTER_ROLE",
    "CLUSTER_ROLE_BINDING",
    "COMPONENT_STATUS",
    "CONFIG_MAP",
    "CONTROLLER_REVISION",
    "CRON_JOB",
    "CSI_DRIVER",
    "CSI_NODE",
    "CSI_STORAGE_CAPACITY",
    "CUSTOM_RESOURCE_DEFINITION",
    "DAEMON_SET",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "EVENTS_EVENT",
    "FLOW_SCHEMA",
    "HORIZONTAL_POD_AUTOSCALER",
    "HORIZONTAL_POD_AUTOSCALER_V1",
    "INGRESS",
    "INGRESS_CLASS",
    "IP_ADDRESS",
    "JOB",
    "KINDS",
    "LEASE",
    "LIMIT_RANGE",
    "LOCAL_SUBJECT_ACCESS_REVIEW",
    "MUTATING_WEBHOOK_CONFIGURATION",
    "NAMESPACE",
    "NETWORK_POLICY",
    "NODE",
    "NODE_METRICS",
    "PERSISTENT_VOLUME",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "POD_DISRUPTION_BUDGET",
    "POD_METRICS",
    "POD_TEMPLATE",
    "PRIORITY_CLASS",
    "PRIORITY_LEVEL",
    "REPLICATION_CONTROLLER",
    "REPLICA_SET",
    "RESOURCE_QUOTA",
    "REVIEW_KINDS",
    "ROLE",
    "ROLE_BINDING",
    "RUNTIME_CLASS",
    "SECRET",
    "SELF_SUBJECT_ACCESS_REVIEW",
    "SELF_SUBJECT_REVIEW",
    "SELF_SUBJECT_RULES_REVIEW",
    "SERVED",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "SERVICE_CIDR",
    "STATEFUL_SET",
    "STORAGE_CLASS",
    "SUBJECT_ACCESS_REVIEW",
    "TOKEN_REVIEW",
    "VALIDATING_ADMISSION_POLICY",
    "VALIDATING_ADMISSION_POLICY_BINDING",
    "VALIDATING_WEBHOOK_CONFIGURATION",
    "VOLUME_ATTACHMENT",
    "by_kind",
    "by_plural",
]

KINDS: tuple[Kind, ...] = (
    COMPONENT_STATUS,
    CONFIG_MAP,
    ENDPOINTS,
    EVENT,
    LIMIT_RANGE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    PERSISTENT_VOLUME,
    POD,
    POD_TEMPLATE,
    REPLICATION_CONTROLLER,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE_ACCOUNT,
    SERVICE,
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    HORIZONTAL_POD_AUTOSCALER,
    HORIZONTAL_POD_AUTOSCALER_V1,
    CRON_JOB,
    JOB,
    LEASE,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    INGRESS,
    INGRESS_CLASS,
    SERVICE_CIDR,
    IP_ADDRESS,
    STORAGE_CLASS,
    CSI_DRIVER,
    CSI_NODE,
    CSI_STORAGE_CAPACITY,
    VOLUME_ATTACHMENT,
    PRIORITY_CLASS,
    RUNTIME_CLASS,
    FLOW_SCHEMA,
    PRIORITY_LEVEL,
    API_SERVICE,
    POD_DISRUPTION_BUDGET,
    EVENTS_EVENT,
    CUSTOM_RESOURCE_DEFINITION,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
    VALIDATING_WEBHOOK_CONFIGURATION,
    CERTIFICATE_SIGNING_REQUEST,
    NODE_METRICS,
    POD_METRICS,
)

REVIEW_KINDS: tuple[Kind, ...] = (
    TOKEN_REVIEW,
    SELF_SUBJECT_REVIEW,
    LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
    SUBJECT_ACCESS_REVIEW,
)
"""Kinds that are only created, answered at once and never stored."""

SERVED: tuple[Kind, ...] = (*KINDS, *REVIEW_KINDS)
"""All that discovery tells."""

_BY_PLURAL: Mapping[tuple[str, str, str], Kind] = {
    (kind.group, kind.version, kind.plural): kind for kind in SERVED
}
_BY_KIND: Mapping[tuple[str, str], Kind] = {(kind.api_version, kind.kind): kind for kind in SERVED}


def by_plural(group: str, version: str, plural: str) -> Kind | None:
    """The kind served as `/apis/<group>/<version>/.../<plural>` (`group` empty for core), or None."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Kind | None:
    """The kind an object's `apiVersion` and `kind` name (`apps/v1`, `Deployment`), or None."""
    return _BY_KIND.get((api_version, kind))
