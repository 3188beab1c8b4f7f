"""Every served kind, in the order of discovery, with look-ups by plural and by kind.

The one list a new kind is added to. Imported by the API server, the client and everything that names a kind
by its constant (`catalog.POD`). Must not hold rules about kinds: they belong to the kind's own module.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.resources.apps import DEPLOYMENT, REPLICA_SET
from controlplane.resources.authentication import SELF_SUBJECT_REVIEW, TOKEN_REVIEW
from controlplane.resources.authorization import (
    LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
    SUBJECT_ACCESS_REVIEW,
)
from controlplane.resources.certificates import CERTIFICATE_SIGNING_REQUEST
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
from controlplane.resources.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING

__all__ = [
    "CERTIFICATE_SIGNING_REQUEST",
    "CLUSTER_ROLE",
    "CLUSTER_ROLE_BINDING",
    "CONFIG_MAP",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "KINDS",
    "LEASE",
    "LOCAL_SUBJECT_ACCESS_REVIEW",
    "NAMESPACE",
    "NODE",
    "POD",
    "REPLICA_SET",
    "REVIEW_KINDS",
    "ROLE",
    "ROLE_BINDING",
    "SECRET",
    "SELF_SUBJECT_ACCESS_REVIEW",
    "SELF_SUBJECT_REVIEW",
    "SELF_SUBJECT_RULES_REVIEW",
    "SERVED",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "SUBJECT_ACCESS_REVIEW",
    "TOKEN_REVIEW",
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
    CERTIFICATE_SIGNING_REQUEST,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
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
