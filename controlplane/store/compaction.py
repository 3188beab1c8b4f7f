"""Compacts a store's history by age and by number. The registry, which owns the store's upkeep, runs one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from controlplane.store.protocol import Store, StoreClosed, StoreError

log = logging.getLogger(__name__)


class Compactor:
    """Keeps `keep_seconds` of history, but not more than `keep_revisions`; looks every `interval` seconds."""

    def __init__(
        self,
        store: Store,
        *,
        keep_seconds: float = 300.0,
        keep_revisions: int = 50_000,
        interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._keep_seconds = keep_seconds
        self._keep_revisions = keep_revisions
        self._interval = interval
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._done = 0

    async def run(self) -> None:
        """Until the store is closed or the task is cancelled; other faults are logged and tried again."""
        while True:
            try:
                await self.step()
            except StoreClosed:
                return
            except StoreError as fault:
                log.warning("history: compaction failed, again in %g s: %s", self._interval, fault)
            await asyncio.sleep(self._interval)

    async def step(self) -> None:
        """Note the present revision and forget what is too old by now."""
        now, revision = self._clock(), await self._store.revision()
        self._seen.append((now, revision))
        target = revision - self._keep_revisions
        while self._seen and now - self._seen[0][0] >= self._keep_seconds:
            target = max(target, self._seen.popleft()[1])
        if target > self._done:
            await self._store.compact(target)
            log.debug("history: compacted to revision %d", target)
            self._done = target
