"""The protocols of admission plug-ins: they see every write after defaulting.

Mutating ones (`admit`) run before validation and may edit the request's object in place; validating ones (`validate`)
run after it and may only refuse. The registry calls each list in order. Both raise a StatusError to refuse and
must not write to the store, unless what they write is their own bookkeeping (a quota's usage).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, Object, qualified
from controlplane.resources.kind import Kind


class Operation(StrEnum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(frozen=True, slots=True)
class Remarks:
    """What admission says beside yes or no: warnings for the client, annotations for the audit log."""

    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


Lookup = Callable[[str, str, str, str], Awaitable[Object | None]]
"""(group, plural, namespace, name) -> the stored object, read-only, or None."""


Listing = Callable[[str, str, str], Awaitable[Sequence[Object]]]
"""(group, plural, namespace) -> the objects there as cached, read-only; an empty namespace means all of them."""


async def _nothing_there(group: str, plural: str, namespace: str) -> Sequence[Object]:
    return ()


@dataclass(slots=True)
class Reinvocation:
    """Whether the mutating plug-ins run once more, because a webhook changed what the others saw.

    `again` is set by who wants that, `round` counts from 0; `notes` are a plug-in's own, kept between rounds.
    """

    again: bool = False
    round: int = 0
    notes: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way.

    `obj` is the new state (None for DELETE), `old` the stored one (None for CREATE), read-only. `lookup` reads
    other objects at their newest state. `options` are the verb's options as an object (CreateOptions, UpdateOptions,
    PatchOptions, DeleteOptions) for those who pass them on. `listing` gives all objects of a kind.
    `body_kind` is group, version and kind of `obj` where it is not the resource's own (Scale, Binding, PodExecOptions).
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
    remarks: Remarks = field(default_factory=Remarks)
    options: Object = field(default_factory=dict)
    listing: Listing = _nothing_there
    body_kind: tuple[str, str, str] | None = None
    reinvocation: Reinvocation = field(default_factory=lambda: Reinvocation())

    def concerns(self, group: str, plural: str, *operations: Operation) -> bool:
        """Whether it is one of these operations on objects of that kind themselves, not on a subresource."""
        kind = self.kind
        return self.operation in operations and (kind.group, kind.plural, self.subresource) == (
            group,
            plural,
            "",
        )

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


class ValidatingPlugin(Protocol):
    async def validate(self, request: AdmissionRequest) -> None:
        """Raise a StatusError (mostly Forbidden) or return. `request.obj` is read-only by now."""
