"""The pods that wait to be scheduled: ready to try, backing off, or waiting for the cluster to change.

Used by the scheduler's loop alone. A change of nodes brings waiting pods back at once (a new cluster's first
node must not wait for a back-off); other changes respect the back-off of 1 to 10 seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from controlplane.errors import Object
from controlplane.meta.objects import dig, uid

_FIRST_BACKOFF = 1.0
_LONGEST_BACKOFF = 10.0
_FLUSH_SECONDS = 300.0


@dataclass(slots=True)
class Entry:
    """A waiting pod. `attempts` failed so far; not before `not_before` (loop time) unless nodes change."""

    pod: Object
    attempts: int = 0
    not_before: float = 0.0
    active: bool = False
    number: int = 0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class SchedulingQueue:
    """Highest priority first, then first come, first served."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._numbers = itertools.count()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, pod: Object) -> None:
        """A pod that needs a node: new, or changed so that it may fit now."""
        entry = self._entries.get(uid(pod))
        if entry is None:
            entry = self._entries[uid(pod)] = Entry(pod)
        else:
            entry.pod = pod
        self._activate(entry)

    def refresh(self, pod: Object) -> None:
        """A waiting pod changed in a way that does not help; only remember its new state."""
        entry = self._entries.get(uid(pod))
        if entry is not None:
            entry.pod = pod

    def known(self, uid_: str) -> Object | None:
        """The waiting pod, or None."""
        entry = self._entries.get(uid_)
        return entry.pod if entry is not None else None

    def remove(self, uid_: str) -> None:
        entry = self._entries.pop(uid_, None)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()

    async def pop(self) -> Entry:
        """The next pod to try. It leaves the queue; `put_back` returns it."""
        while True:
            while self._heap:
                _, number, uid_ = heapq.heappop(self._heap)
                entry = self._entries.get(uid_)
                if entry is not None and entry.active and entry.number == number:
                    del self._entries[uid_]
                    entry.active = False
                    return entry
            self._filled.clear()
            await self._filled.wait()

    def put_back(self, entry: Entry, *, retry: bool) -> None:
        """An attempt failed: wait for a change, or with `retry` only for the back-off."""
        entry.attempts += 1
        loop = asyncio.get_running_loop()
        delay = min(_FIRST_BACKOFF * 2.0 ** (entry.attempts - 1), _LONGEST_BACKOFF)
        entry.not_before = loop.time() + delay
        self._entries[uid(entry.pod)] = entry
        self._set_timer(entry, delay if retry else _FLUSH_SECONDS)

    def wake(self, *, now: bool) -> None:
        """The cluster changed: let all waiting pods try again, at once or after their back-off."""
        moment = asyncio.get_running_loop().time()
        for entry in list(self._entries.values()):
            if entry.active:
                continue
            if now or entry.not_before <= moment:
                self._activate(entry)
            else:
                self._set_timer(entry, entry.not_before - moment)

    def close(self) -> None:
        """Cancel all timers."""
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()

    def _set_timer(self, entry: Entry, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = loop.call_later(delay, self._due, entry)

    def _due(self, entry: Entry) -> None:
        if self._entries.get(uid(entry.pod)) is entry:
            self._activate(entry)

    def _activate(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.active:
            return
        entry.active = True
        entry.number = next(self._numbers)
        priority = int(dig(entry.pod, "spec", "priority", default=0))
        heapq.heappush(self._heap, (-priority, entry.number, uid(entry.pod)))
        self._filled.set()
