"""The protocol between the registry and what hands out cluster-wide unique values.

An allocator works in memory, in one step without awaiting, so that two writes never get the same value; the
registry tells it afterwards whether the write was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from controlplane.errors import Object
from controlplane.resources.kind import Kind
from controlplane.store.protocol import Write


class Reservation(Protocol):
    """Values held for one write."""

    @property
    def writes(self) -> Sequence[Write]:
        """What must be stored in the same commit, so that others see the values as taken or free."""

    def commit(self) -> None:
        """The write is stored: keep the new values, free those the object no longer holds."""

    def roll_back(self) -> None:
        """The write did not happen (fault, lost race, dry run): free the new values."""


class Allocator(Protocol):
    def applies_to(self, kind: Kind) -> bool:
        """Whether objects of that kind hold values of this allocator."""

    def rebuild(self, objects: Iterable[Object]) -> Sequence[Write]:
        """Forget everything and take over what the stored objects hold.

        Returns what must be written to make them agree with each other.
        """

    def reserve(self, kind: Kind, new: Object, old: Object | None) -> Reservation:
        """Write values into `new` (in place) where it needs them. `old` is the stored state on an update.

        Raises Invalid for a requested value that is taken or out of range, InternalError when none is left.
        """

    def stored(self, kind: Kind, obj: Object) -> None:
        """An object was stored in that state, by whatever verb."""

    def removal(self, kind: Kind, obj: Object) -> Reservation:
        """What the deletion of `obj` frees once it is stored."""
