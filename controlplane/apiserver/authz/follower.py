"""Keeps something derived from a watch cache up to date, by the events the cache remembers.

Pulled before each use, so that what was answered to a writer counts at once. Called by the RBAC index and the Node
authorizer's graph. Where the cache is broken nothing is known: fewer rights, never more.
"""

from __future__ import annotations

from collections.abc import Callable

from controlplane.errors import Object
from controlplane.store.cache import WatchCache
from controlplane.store.protocol import Compacted

CacheSource = Callable[[], WatchCache]
"""Gives the cache as it is now: a broken one is replaced by another."""


class Held:
    """The cache, looked up again only when it is broken: this is on the way of every request."""

    __slots__ = ("_cache", "_source")

    def __init__(self, source: CacheSource) -> None:
        self._source = source
        self._cache: WatchCache | None = None

    def __call__(self) -> WatchCache:
        cache = self._cache
        if cache is None or cache.is_broken:
            cache = self._cache = self._source()
        return cache


class Follower:
    """`add` and `remove` are told each object that is there, and each that was; `clear` forgets all."""

    def __init__(
        self,
        source: CacheSource,
        add: Callable[[Object], None],
        remove: Callable[[Object], None],
        clear: Callable[[], None],
    ) -> None:
        self._source = Held(source)
        self._add = add
        self._remove = remove
        self._clear = clear
        self._cache: WatchCache | None = None
        self._revision = -1

    def refresh(self) -> None:
        """Take over what changed since the last call."""
        cache = self._source()
        if cache is self._cache and cache.revision == self._revision and not cache.is_broken:
            return
        revision = cache.revision
        try:
            if cache is not self._cache or cache.is_broken:
                self._rebuild(cache)
            else:
                for event in cache.events_after(self._revision):
                    if event.previous is not None:
                        self._remove(event.previous.object)
                    if event.current is not None:
                        self._add(event.current.object)
        except Compacted:
            self._rebuild(cache)
        self._cache, self._revision = cache, revision

    def _rebuild(self, cache: WatchCache) -> None:
        self._clear()
        if cache.is_broken:
            return
        for _, stored in cache.scan():
            self._add(stored.object)
