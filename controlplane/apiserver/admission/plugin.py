"""The protocol of admission plug-ins: they see every write after defaulting and before validation.

The registry calls them in order. A plug-in edits the request's object in place or raises a StatusError; it
must not write to the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, Object, qualified
from controlplane.resources.kind import Kind


class Operation(StrEnum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


Lookup = Callable[[str, str, str, str], Awaitable[Object | None]]
"""(group, plural, namespace, name) -> the stored object, read-only, or None."""


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way.

    `obj` is the new state (None for DELETE), `old` the stored one (None for CREATE), read-only. `lookup` reads
    other objects at their newest state.
    """

    operation: Operation
    kind: Kind
    namespace: str
    name: str
    subresource: str
    obj: Object | None
    old: Object | None
    user: UserInfo
    dry_run: bool
    lookup: Lookup

    def forbid(self, why: str) -> Forbidden:
        """`pods "x" is forbidden: <why>`."""
        kind = self.kind
        return Forbidden(
            f'{qualified(kind.plural, kind.group)} "{self.name}" is forbidden: {why}',
            name=self.name,
            group=kind.group,
            kind=kind.plural,
        )


class AdmissionPlugin(Protocol):
    async def admit(self, request: AdmissionRequest) -> None:
        """Edit `request.obj` in place or raise a StatusError (mostly Forbidden)."""
