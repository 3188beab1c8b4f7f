"""What a user may do. One protocol; for now administrators and the cluster's own components may do all.

Called by the core for each request. Rules per role come with RBAC behind the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, qualified

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
NODES = "system:nodes"
_COMPONENTS = frozenset(
    {
        "system:apiserver",
        "system:kube-controller-manager",
        "system:kube-proxy",
        "system:kube-scheduler",
    }
)
_PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version"})


@dataclass(frozen=True, slots=True)
class Attributes:
    """Who wants to do what."""

    user: UserInfo
    info: RequestInfo


@dataclass(frozen=True, slots=True)
class Decision:
    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    async def authorize(self, attributes: Attributes) -> Decision: ...


class ComponentAuthorizer:
    """Everything for `system:masters`; the same but impersonation for nodes and components; discovery, health and
    version for whoever is authenticated; nothing else."""

    async def authorize(self, attributes: Attributes) -> Decision:
        user, info = attributes.user, attributes.info
        if MASTERS in user.groups:
            return Decision(True)
        is_node = NODES in user.groups and user.name.startswith("system:node:")
        if (is_node or user.name in _COMPONENTS) and info.verb != "impersonate":
            return Decision(True)
        if not info.is_resource and info.verb == "get" and AUTHENTICATED in user.groups:
            path = info.path.rstrip("/")
            first = f"/{path.split('/')[1]}" if "/" in path else path
            if first in _PUBLIC or first in ("/api", "/apis", "/openapi"):
                return Decision(True)
        return Decision(False)


def forbidden(attributes: Attributes, decision: Decision) -> Forbidden:
    """The 403 in upstream's words."""
    user, info = attributes.user, attributes.info
    why = f": {decision.reason}" if decision.reason else ""
    if not info.is_resource:
        return Forbidden(f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"{why}')
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    title = qualified(info.resource, info.group) + (f' "{info.name}"' if info.name else "")
    scope = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    return Forbidden(
        f'{title} is forbidden: User "{user.name}" cannot {info.verb} resource "{resource}" '
        f'in API group "{info.group}" {scope}{why}',
        name=info.name,
        group=info.group,
        kind=info.resource,
    )
