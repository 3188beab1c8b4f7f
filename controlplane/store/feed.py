"""Hands committed changes to the watches of one store. The memory and SQLite stores own one each.

A watch that falls behind loses its queue and reads the store's history instead, so that a slow reader costs
no memory and never delays a commit. Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from controlplane.store.protocol import Change, StoreClosed

QUEUE_LIMIT = 10_000
"""Changes a watch may hold before it turns to the history."""

History = Callable[[str, int, int], Awaitable[tuple[Sequence[Change], int]]]
"""(prefix, after, up to) -> changes in order, and the revision they are complete to. Raises Compacted."""


class Feed:
    """`revision` is the newest published one; `history` reads older changes from the store."""

    def __init__(self, revision: int, history: History, queue_limit: int = QUEUE_LIMIT) -> None:
        self.revision = revision
        self.history = history
        self.closed = False
        self._queue_limit = queue_limit
        self._subscriptions: set[Subscription] = set()

    def publish(self, changes: Sequence[Change]) -> None:
        """Make changes known, in the order of their revisions."""
        if not changes:
            return
        self.revision = changes[-1].revision
        for subscription in self._subscriptions:
            subscription.offer(changes)

    def subscribe(self, prefix: str, after: int) -> Subscription:
        subscription = Subscription(self, prefix, after, self._queue_limit)
        self._subscriptions.add(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all watches with StoreClosed."""
        self.closed = True
        for subscription in self._subscriptions:
            subscription.request_progress()
        self._subscriptions.clear()


class Subscription:
    """One watch; see `protocol.Watch`."""

    def __init__(self, feed: Feed, prefix: str, after: int, limit: int) -> None:
        self.revision = after
        self._feed = feed
        self._prefix = prefix
        self._limit = limit
        self._queue: deque[Change] = deque()
        self._complete_from = feed.revision
        """The queue holds every change after this revision; older ones are in the history."""
        self._asked = False
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, changes: Sequence[Change]) -> None:
        """Take what concerns this watch from newly published changes."""
        prefix, after = self._prefix, self.revision
        mine = [change for change in changes if change.key.startswith(prefix) and change.revision > after]
        if not mine:
            return
        if len(self._queue) + len(mine) > self._limit:
            self._queue.clear()
            self._complete_from = self._feed.revision
        else:
            self._queue.extend(mine)
        self._wake()

    def request_progress(self) -> None:
        self._asked = True
        self._wake()

    def close(self) -> None:
        self._ended = True
        self._queue.clear()
        self._feed.drop(self)
        self._wake()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Sequence[Change]:
        while True:
            if self._ended:
                raise StopAsyncIteration
            if self._feed.closed:
                raise StoreClosed("the store was closed")
            if self.revision < self._complete_from:
                changes, self.revision = await self._feed.history(
                    self._prefix, self.revision, self._complete_from
                )
                if changes:
                    return changes
            elif self._queue or self._asked:
                batch = list(self._queue)
                self._queue.clear()
                self._asked = False
                self.revision = max(self.revision, self._feed.revision)
                return batch
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
