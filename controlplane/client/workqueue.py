"""The queue between change handlers and reconcilers: keyed, without duplicates, with back-off per key.

A key is never worked on by two workers at once; a key added while it is worked on comes again afterwards. So
every change is followed by at least one reconcile that starts after it. Belongs to one loop; `add` may be
called from any handler that runs in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K", bound=Hashable)

NAMED_QUEUES: WeakSet[WorkQueue[Any]] = WeakSet()
"""The queues of this process that have a name, for /metrics."""


class WorkQueue(Generic[K]):
    """Waiting times of failing keys start at `first_delay` seconds and double up to `max_delay`.

    `adds` counts keys that were added and waited for, `retries` those that came again after a failure.
    """

    def __init__(self, first_delay: float = 0.01, max_delay: float = 60.0, name: str = "") -> None:
        self.name = name
        self.adds = 0
        self.retries = 0
        if name:
            NAMED_QUEUES.add(self)
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that wait or are being worked on, without the delayed ones."""
        return len(self._wanted | self._processing)

    @property
    def depth(self) -> int:
        """Keys nobody works on yet, without the delayed ones."""
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have `key` worked on soon."""
        if key in self._wanted:
            return
        self.adds += 1
        self._wanted.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have `key` worked on in `seconds`; of several delays of a key the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + seconds:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """Have `key` worked on again after its back-off, which this failure doubles; returns the seconds."""
        self.retries += 1
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._first_delay * 2.0 ** min(failures, 30), self._max_delay)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """`key` went well: its back-off starts small again."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often `key` failed in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key; call `done` when it has been worked on."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:
                    # Woken and cancelled at once: somebody else has to take the key.
                    self._wake()
                raise
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker has finished with `key`, well or not."""
        self._processing.discard(key)
        if key in self._wanted:
            self._push(key)

    def close(self) -> None:
        """Drop all delayed keys."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
