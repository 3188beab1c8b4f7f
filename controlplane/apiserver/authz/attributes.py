"""The question (`Attributes`), the answer (`Decision`), and the protocol between them.

Called by everything that authorizes. Knows no authorizer, no store and no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, Object, qualified
from controlplane.resources.fieldpath import quoted

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
NODES = "system:nodes"


class Verdict(StrEnum):
    """`NO_OPINION` leaves it to the next authorizer; from the last one it means no."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is told to the client. `error` is a fault of the authorizer itself (a webhook that is away): it lets
    nobody in, but the answer says that nobody knows. `source` is the mode that decided, and `allow` may name the
    objects in `facts` (binding, role and rule), for explanations."""

    verdict: Verdict
    reason: str = ""
    error: str = ""
    source: str = ""
    facts: Object = field(default_factory=dict)

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW


NO_OPINION = Decision(Verdict.NO_OPINION)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of a selector. `operator` is `In`, `NotIn`, `Exists` or `DoesNotExist`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attributes:
    """Who wants to do what. `fields` and `labels` are the requirements of the request's selectors, as far as they
    could be read: they narrow a list, so an authorizer may count on all of them."""

    user: UserInfo
    info: RequestInfo
    fields: tuple[Requirement, ...] = ()
    labels: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesAnswer:
    """What a user may do in one namespace, as rules in the form of the API. `incomplete` when not all is told."""

    resource: Sequence[Object] = ()
    non_resource: Sequence[Object] = ()
    incomplete: bool = False
    errors: tuple[str, ...] = ()


class Authorizer(Protocol):
    async def authorize(self, attributes: Attributes) -> Decision: ...


class RulesSource(Protocol):
    """An authorizer that can list what a user may do."""

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer: ...


def aggregate(errors: Sequence[str]) -> str:
    """Several errors in one line, as apimachinery's `Aggregate` prints them."""
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"


def refusal(attributes: Attributes) -> str:
    """`User "x" cannot ...`."""
    user, info = attributes.user, attributes.info
    if not info.is_resource:
        return f"User {quoted(user.name)} cannot {info.verb} path {quoted(info.path)}"
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    scope = f"in the namespace {quoted(info.namespace)}" if info.namespace else "at the cluster scope"
    return (
        f"User {quoted(user.name)} cannot {info.verb} resource {quoted(resource)} "
        f"in API group {quoted(info.group)} {scope}"
    )


def forbidden(attributes: Attributes, decision: Decision) -> Forbidden:
    """The 403 in upstream's words."""
    info = attributes.info
    why = f": {decision.reason}" if decision.reason else ""
    text = refusal(attributes).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + why
    if not info.is_resource:
        return Forbidden(f"forbidden: {text}")
    title = qualified(info.resource, info.group) + (f" {quoted(info.name)}" if info.name else "")
    return Forbidden(f"{title} is forbidden: {text}", name=info.name, group=info.group, kind=info.resource)
