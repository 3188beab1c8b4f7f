"""What `authorizer` expressions ask and are answered; set by the evaluation, read by the library's functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from controlplane.cel.functions import wrap
from controlplane.cel.types import AUTHORIZER, RESOURCE_CHECK


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """May the request's user (or `service_account`, as user name) do this? Either `path` or a resource is asked for."""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class AccessAnswer:
    allowed: bool
    reason: str = ""
    error: str = ""


Authorize = Callable[[AccessCheck], AccessAnswer]
"""Answers at once; raise ValueError to make the check fail (e.g. because the answer has to be fetched first)."""

_current: ContextVar[Authorize | None] = ContextVar("authorize", default=None)


@contextmanager
def asking(authorize: Authorize | None) -> Iterator[None]:
    """Checks inside are answered by `authorize`."""
    token = _current.set(authorize)
    try:
        yield
    finally:
        _current.reset(token)


def ask(check: AccessCheck) -> AccessAnswer:
    authorize = _current.get()
    if authorize is None:
        raise ValueError("authorizer is not available")
    return authorize(check)


def authorizer() -> dict[str, Any]:
    """The value of the variable `authorizer`."""
    return wrap(AUTHORIZER, {})


def resource_check(group: str, resource: str, subresource: str, namespace: str, name: str) -> dict[str, Any]:
    """The value of `authorizer.requestResource`."""
    fields = {"group": group, "resource": resource, "subresource": subresource}
    return wrap(RESOURCE_CHECK, {**fields, "namespace": namespace, "name": name})
