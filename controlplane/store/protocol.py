"""What every store offers: revisions like etcd's, compare-and-swap, watch from a revision, compaction.

Keys are `/registry/<resource>/<namespace>/<name>` (or without the namespace), ASCII; values are bytes the
store never looks into. One counter of revisions serves all keys. Called by the watch cache and the API server only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Anything a store refuses or fails at."""


class RevisionMismatch(StoreError):
    """Compare-and-swap lost: `current` is the revision the key has now (0 = absent)."""

    def __init__(self, key: str, expected: int, current: int) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {current}")
        self.key = key
        self.expected = expected
        self.current = current


class Compacted(StoreError):
    """The asked revision is gone; `oldest` is the oldest one that can still be read or watched from."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} has been compacted, oldest is {oldest}")
        self.revision = revision
        self.oldest = oldest


class StoreClosed(StoreError):
    """The store was closed while the call waited."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as it stands at `mod_revision`."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write `key`. `expect`: None = whatever is there, 0 = must be absent, N = must be at mod revision N."""

    key: str
    value: bytes
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; same meaning of `expect`; an absent key with `expect=None` is a no-op."""

    key: str
    expect: int | None = None


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write. `record` is the new state, or None for a deletion; `previous` the state before."""

    revision: int
    key: str
    record: Record | None
    previous: Record | None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a range read: `revision` is the store's revision the page was read at."""

    records: Sequence[Record]
    revision: int
    more: bool


class Watch(Protocol):
    """A running watch: an iterator over batches of changes, in order. One task may iterate it."""

    @property
    def revision(self) -> int:
        """All changes up to this revision have been handed out."""

    def request_progress(self) -> None:
        """Make the next step return soon, if need be with an empty batch, so that `revision` moves on."""

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]: ...

    async def __anext__(self) -> Sequence[Change]: ...

    def close(self) -> None:
        """End the iteration."""


class Store(Protocol):
    """All methods are safe to call from many tasks of one loop."""

    async def get(self, key: str) -> Record | None:
        """The newest state of `key`."""

    async def range(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Records whose key starts with `prefix`, in key order.

        `after`: only keys greater than this one; `limit` 0 = all; `revision` 0 = newest, else as it was then.
        Raises Compacted when that revision is gone.
        """

    async def commit(self, writes: Sequence[Write]) -> Sequence[Change]:
        """Apply all writes as one atomic revision each, in order, or none.

        Returns after the change is durable. Raises RevisionMismatch for the first write that fails its
        expectation.
        """

    def watch(self, prefix: str, after: int) -> Watch:
        """Changes below `prefix` with a revision greater than `after`, in order, in batches, without end.

        A step raises Compacted when changes that were not handed out yet are gone, StoreClosed after `close`.
        """

    async def revision(self) -> int:
        """The newest committed revision; 1 for a store that never held anything."""

    async def compact(self, revision: int) -> None:
        """Forget states older than `revision`; the newest state of every key always stays."""

    async def close(self) -> None:
        """Finish what was acknowledged, wake all waiters with StoreClosed, release files."""
