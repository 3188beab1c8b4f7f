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
from controlplane.resources.apps import DEPLOYMENT, REPLICA_SET
from controlplane.resources.coordination import LEASE
from controlplane.resources.core.config import CONFIG_MAP, SECRET
from controlplane.resources.core.endpoints import ENDPOINTS
from controlplane.resources.core.event import EVENT
from controlplane.resources.core.namespace import NAMESPACE
from controlplane.resources.core.node import NODE
from controlplane.resources.core.pod import POD
from controlplane.resources.core.service import SERVICE
from controlplane.resources.core.service_account import SERVICE_ACCOUNT
from controlplane.resources.discovery import ENDPOINT_SLICE
from controlplane.resources.kind import Kind

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "KINDS",
    "LEASE",
    "MUTATING_WEBHOOK_CONFIGURATION",
    "NAMESPACE",
    "NODE",
    "POD",
    "REPLICA_SET",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "VALIDATING_ADMISSION_POLICY",
    "VALIDATING_ADMISSION_POLICY_BINDING",
    "VALIDATING_WEBHOOK_CONFIGURATION",
    "by_kind",
    "by_plural",
]

KINDS: tuple[Kind, ...] = (
    CONFIG_MAP,
    ENDPOINTS,
    EVENT,
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
    SERVICE,
    DEPLOYMENT,
    REPLICA_SET,
    LEASE,
    ENDPOINT_SLICE,
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
    VALIDATING_WEBHOOK_CONFIGURATION,
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
