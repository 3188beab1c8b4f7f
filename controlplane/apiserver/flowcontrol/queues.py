"""The seats of one priority level, given fairly to the flows that want them.

A flow's requests go to the shortest of the few queues its name is dealt (shuffle sharding), so that a flood fills its
own queues and leaves others' short. Seats go to the queue whose virtual start is the least: each queue gets its turn by
what it has used, not by how much waits in it (start-time fair queueing). Loop's thread only; called by `gate`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field


class Rejected(Exception):
    """No seat for this request. `reason` is upstream's label: concurrency-limit, queue-full or time-out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LevelConfig:
    """One PriorityLevelConfiguration: `seats` of the server's total; without `queues` nothing waits.

    `exempt` levels never refuse nor wait. `hand_size` queues are dealt to each flow, `queue_length` requests fit into
    each.
    """

    name: str
    uid: str = ""
    seats: int = 1
    exempt: bool = False
    queues: int = 0
    hand_size: int = 1
    queue_length: int = 0


@dataclass(slots=True, eq=False)
class _Waiting:
    width: int
    turn: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Queue:
    waiting: deque[_Waiting] = field(default_factory=deque)
    virtual_start: float = 0.0


class PriorityLevel:
    """`executing` counts requests, `occupied` the seats they take."""

    def __init__(self, config: LevelConfig) -> None:
        self.config = config
        self.executing = 0
        self.occupied = 0
        self._queues = [_Queue() for _ in range(config.queues)]
        self._active: set[_Queue] = set()
        self._virtual_now = 0.0

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(len(queue.waiting) for queue in self._active)

    @property
    def active_queues(self) -> int:
        """Queues somebody waits in."""
        return len(self._active)

    def reconfigure(self, config: LevelConfig) -> None:
        """Take over new numbers. Requests that wait keep their places, as long as their queue is there."""
        self.config = config
        while len(self._queues) < config.queues:
            self._queues.append(_Queue())
        # Queues beyond the new number are no longer dealt; they empty by themselves.
        self._dispatch()

    async def enter(self, flow: str, width: int, patience: float) -> int:
        """Take `width` seats, or all there are, waiting up to `patience` seconds. Raises Rejected.

        Returns the number of seats taken: give them back with `leave`.
        """
        width = min(width, self.config.seats)
        if self.config.exempt or (not self._active and self.occupied + width <= self.config.seats):
            self._sit(width)
            return width
        if not self.config.queues:
            raise Rejected("concurrency-limit")
        queue = self._shortest(flow)
        if len(queue.waiting) >= self.config.queue_length:
            raise Rejected("queue-full")
        await self._wait(queue, width, patience)
        return width

    def leave(self, width: int) -> None:
        """Give back what `enter` took."""
        self.executing -= 1
        self.occupied -= width
        self._dispatch()

    def _sit(self, width: int) -> None:
        self.executing += 1
        self.occupied += width

    def _shortest(self, flow: str) -> _Queue:
        return min((self._queues[index] for index in self._hand(flow)), key=lambda queue: len(queue.waiting))

    def _hand(self, flow: str) -> Iterator[int]:
        """`hand_size` different queues, the same for the same flow."""
        number = int.from_bytes(hashlib.sha256(flow.encode()).digest()[:16])
        deck = list(range(self.config.queues))
        for _ in range(min(self.config.hand_size, self.config.queues)):
            number, card = divmod(number, len(deck))
            yield deck.pop(card)

    async def _wait(self, queue: _Queue, width: int, patience: float) -> None:
        waiting = _Waiting(width, asyncio.get_running_loop().create_future())
        if not queue.waiting:
            queue.virtual_start = max(queue.virtual_start, self._virtual_now)
        queue.waiting.append(waiting)
        self._active.add(queue)
        self._dispatch()
        try:
            async with asyncio.timeout(patience):
                await waiting.turn
        except BaseException as interruption:
            self._give_up(queue, waiting)
            if isinstance(interruption, TimeoutError):
                raise Rejected("time-out") from None
            raise

    def _give_up(self, queue: _Queue, waiting: _Waiting) -> None:
        """Leave the queue; when the turn came in the very same moment, hand the seats on."""
        if waiting.turn.done() and not waiting.turn.cancelled():
            self.leave(waiting.width)
            return
        if waiting in queue.waiting:
            queue.waiting.remove(waiting)
        if not queue.waiting:
            self._active.discard(queue)
        self._dispatch()

    def _dispatch(self) -> None:
        """Let in whoever is next while there are seats."""
        while self._active:
            queue = min(self._active, key=lambda queue: queue.virtual_start)
            waiting = queue.waiting[0]
            if self.occupied and self.occupied + waiting.width > self.config.seats:
                return
            queue.waiting.popleft()
            self._virtual_now = max(self._virtual_now, queue.virtual_start)
            queue.virtual_start += waiting.width
            if not queue.waiting:
                self._active.discard(queue)
            if not waiting.turn.done():
                self._sit(waiting.width)
                waiting.turn.set_result(None)
