"""The protocol between the registry and what hands out cluster-wide unique values.

An allocator works in memory, in one step without awaiting, so that two writes never get the same value; the
registry tells it afterwards whether the write was stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controlplane.errors import Object
from controlplane.resources.kind import Kind


class Reservation(Protocol):
    """Values held for one write."""

    def commit(self) -> None:
        """The write is stored: keep the new values, free those the object no longer holds."""

    def roll_back(self) -> None:
        """The write did not happen (fault, lost race, dry run): free the new values."""


class Allocator(Protocol):
    def applies_to(self, kind: Kind) -> bool:
        """Whether objects of that kind hold values of this allocator."""

    def rebuild(self, objects: Iterable[Object]) -> None:
        """Forget everything and take over what the stored objects hold."""

    def reserve(self, kind: Kind, new: Object, old: Object | None) -> Reservation:
        """Write values into `new` (in place) where it needs them. `old` is the stored state on an update.

        Raises Invalid for a requested value that is taken or out of range, InternalError when none is left.
        """

    def release(self, obj: Object) -> None:
        """`obj` was deleted: free its values."""
