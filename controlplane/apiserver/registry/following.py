"""Following all objects of kinds for as long as the server runs: what is there, then every change.

For parts of the server that act on objects; those that only decide by them read a watch cache instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from controlplane.apiserver.registry.registry import Registry
from controlplane.apiserver.registry.requests import FrameType, WatchOptions
from controlplane.errors import Object, StatusError
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.1, 30.0)

Handle = Callable[[Object, bool], Awaitable[None]]
"""Told an object as it is now, and whether that was its end. Must raise StatusErrors only; it is told again then."""

Begun = Callable[[], Awaitable[None]]


class Following:
    """One watch and one task for each `follow`, until `close`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = 0
        self._synced = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        """Whether every watch asked for has begun."""
        return not self._waiting

    async def synced(self) -> None:
        while self._waiting:
            self._synced.clear()
            await self._synced.wait()

    def follow(self, kind: Kind, handle: Handle, namespace: str = "", begun: Begun | None = None) -> None:
        """`begun` is called whenever everything there is will be told (again): what went missing unseen can be
        looked for."""
        self._waiting += 1
        coroutine = self._run(kind, handle, namespace, begun)
        self._tasks.append(asyncio.create_task(coroutine, name=f"following {kind.plural}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()

    async def _run(self, kind: Kind, handle: Handle, namespace: str, begun: Begun | None) -> None:
        delay = _RETRY_SECONDS[0]
        is_first = True
        while True:
            try:
                if begun is not None:
                    await begun()
                watch = self._registry.watch(kind, namespace, WatchOptions())
                try:
                    await watch.begin()
                    if is_first:
                        is_first = False
                        self._waiting -= 1
                        self._synced.set()
                    async for frame in watch:
                        if frame.stored is not None:
                            await handle(frame.stored.object, frame.type is FrameType.DELETED)
                            delay = _RETRY_SECONDS[0]
                finally:
                    await watch.aclose()
            except StatusError as fault:
                log.warning("%s: %s; again in %.1f s", kind.plural, fault, delay)
            except Exception:
                log.exception("%s: failed; again in %.1f s", kind.plural, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])
