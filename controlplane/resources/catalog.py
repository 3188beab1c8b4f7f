"""Every served kind, in the order of discovery, with look-ups by plural and by kind.

The one list a new kind is added to. Imported by the API server, the client and everything that names a kind
by its constant (`catalog.POD`). Must not hold rules about kinds: they belong to the kind's own module.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.resources.apps import DEPLOYMENT, REPLICA_SET
from controlplane.resources.autoscaling.kinds import HORIZONTAL_POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER_V1
from controlplane.resources.batch.cron_job import CRON_JOB
from controlplane.resources.batch.job import JOB
from controlplane.resources.coordination import LEASE
from controlplane.resources.core.config import CONFIG_MAP, SECRET
from controlplane.resources.core.endpoints import ENDPOINTS
from controlplane.resources.core.event import EVENT
from controlplane.resources.core.limit_range import LIMIT_RANGE
from controlplane.resources.core.namespace import NAMESPACE
from controlplane.resources.core.node import NODE
from controlplane.resources.core.pod import POD
from controlplane.resources.core.quota import RESOURCE_QUOTA
from controlplane.resources.core.service import SERVICE
from controlplane.resources.core.service_account import SERVICE_ACCOUNT
from controlplane.resources.custom.definition import CUSTOM_RESOURCE_DEFINITION
from controlplane.resources.discovery import ENDPOINT_SLICE
from controlplane.resources.events import EVENTS_EVENT
from controlplane.resources.kind import Kind
from controlplane.resources.policy import POD_DISRUPTION_BUDGET

__all__ = [
    "CONFIG_MAP",
    "CRON_JOB",
    "CUSTOM_RESOURCE_DEFINITION",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "EVENTS_EVENT",
    "HORIZONTAL_POD_AUTOSCALER",
    "HORIZONTAL_POD_AUTOSCALER_V1",
    "JOB",
    "KINDS",
    "LEASE",
    "LIMIT_RANGE",
    "NAMESPACE",
    "NODE",
    "POD",
    "POD_DISRUPTION_BUDGET",
    "REPLICA_SET",
    "RESOURCE_QUOTA",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "by_kind",
    "by_plural",
]

KINDS: tuple[Kind, ...] = (
    CONFIG_MAP,
    ENDPOINTS,
    EVENT,
    LIMIT_RANGE,
    NAMESPACE,
    NODE,
    POD,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE_ACCOUNT,
    SERVICE,
    DEPLOYMENT,
    REPLICA_SET,
    HORIZONTAL_POD_AUTOSCALER,
    HORIZONTAL_POD_AUTOSCALER_V1,
    CRON_JOB,
    JOB,
    LEASE,
    ENDPOINT_SLICE,
    POD_DISRUPTION_BUDGET,
    EVENTS_EVENT,
    CUSTOM_RESOURCE_DEFINITION,
)

_BY_PLURAL: Mapping[tuple[str, str, str], Kind] = {
    (kind.group, kind.version, kind.plural): kind for kind in KINDS
}
_BY_KIND: Mapping[tuple[str, str], Kind] = {(kind.api_version, kind.kind): kind for kind in KINDS}


def by_plural(group: str, version: str, plural: str) -> Kind | None:
    """The kind served as `/apis/<group>/<version>/.../<plural>` (`group` empty for core), or None."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Kind | None:
    """The kind an object's `apiVersion` and `kind` name (`apps/v1`, `Deployment`), or None."""
    return _BY_KIND.get((api_version, kind))
