"""Whether a cache has seen the controller's own writes yet, so that it never does the same thing twice.

A controller that creates objects with generated names must not act on a cache that lags behind its own
creations. Upstream counts the expected events; here the server's revisions tell: once the informer has passed
the revision of a write, the write is in the cache (or the object is gone again). That also holds when events
were missed and listed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta.objects import is_being_deleted, resource_version

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Pending:
    revision: int = 0
    epoch: int = 0
    deleted: dict[tuple[str, str], str] = field(default_factory=dict)


class Expectations(Generic[K]):
    """Remembers writes per reconciled key; `informer` is the cache that must catch up with them."""

    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._pending: dict[K, _Pending] = {}

    def wrote(self, key: K, stored: Object) -> None:
        """`stored` came back from a create, update or patch done for `key`."""
        pending = self._of(key)
        pending.revision = max(pending.revision, resource_version(stored))

    def deleted(self, key: K, obj: Object) -> None:
        """A delete of `obj` was accepted (its answer may carry no revision)."""
        metadata = obj["metadata"]
        self._of(key).deleted[metadata.get("namespace", ""), metadata["name"]] = metadata["uid"]

    def satisfied(self, key: K) -> bool:
        """Whether the cache holds everything done for `key` so far."""
        pending = self._pending.get(key)
        if pending is None:
            return True
        if self._informer.epoch == pending.epoch:
            if self._informer.revision < pending.revision:
                return False
            if any(self._alive(place, uid) for place, uid in pending.deleted.items()):
                return False
        del self._pending[key]
        return True

    def forget(self, key: K) -> None:
        """`key` is gone."""
        self._pending.pop(key, None)

    def _alive(self, place: tuple[str, str], uid: str) -> bool:
        obj = self._informer.get(*place)
        return obj is not None and obj["metadata"]["uid"] == uid and not is_being_deleted(obj)

    def _of(self, key: K) -> _Pending:
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(epoch=self._informer.epoch)
        return pending
