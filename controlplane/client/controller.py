"""The loop every controller has: keys from a queue, a reconcile per key, retries by the type of the error.

A controller owns one `Controller`, adds keys to it from its informers' handlers and passes its reconcile
function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from controlplane.client.informer import Informer
from controlplane.client.transport import ConnectionFailed
from controlplane.client.workqueue import WorkQueue
from controlplane.errors import Conflict, NotFound, StatusError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
NamespacedName = tuple[str, str]


class Controller(Generic[K]):
    """Calls `reconcile(key)` for every key added, with `workers` tasks, never twice at once for the same key.

    A reconcile that raises is repeated with growing delay. Lost races (Conflict, NotFound) are expected and
    only logged for debugging; refusals and broken connections are logged in one line, anything else with its
    traceback.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[None]],
        *,
        workers: int = 4,
        max_delay: float = 60.0,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[K] = WorkQueue(max_delay=max_delay, name=name)
        self._reconcile = reconcile
        self._workers = workers

    async def run(self, *informers: Informer) -> None:
        """Wait until the informers are synced, then work until cancelled."""
        for informer in informers:
            await informer.synced()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name} worker {number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile(key)
            except (Conflict, NotFound) as error:
                log.debug("%s: %s: %s; trying again", _text(key), self.name, error)
                self.queue.retry(key)
            except (StatusError, ConnectionFailed) as error:
                delay = self.queue.retry(key)
                log.warning("%s: %s: %s; again in %.2f s", _text(key), self.name, error, delay)
            except Exception:
                delay = self.queue.retry(key)
                log.exception("%s: %s failed; again in %.2f s", _text(key), self.name, delay)
            else:
                self.queue.forget(key)
            finally:
                self.queue.done(key)


def _text(key: Hashable) -> str:
    return "/".join(str(part) for part in key if part) if isinstance(key, tuple) else str(key)
