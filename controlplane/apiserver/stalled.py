"""Clients that stop reading what they asked for: their connections are cut, so that nothing is kept for them forever.

Made by the HTTP shell. A tunnel (exec, port-forward) may stand still for as long as its user likes: it is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiohttp import web

log = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
PATIENCE = 2
"""Sweeps in a row that must find the same bytes unsent."""


class StalledConnections:
    """Looks at all connections now and then. `connections` are the server's, by the HTTP protocol on each."""

    def __init__(
        self, connections: Callable[[], Iterable[web.RequestHandler]], every: float = SWEEP_SECONDS
    ) -> None:
        self._connections = connections
        self._every = every
        self._seen: dict[asyncio.Transport, tuple[int, int]] = {}
        self._timer = asyncio.get_running_loop().call_later(every, self._tick)

    def close(self) -> None:
        self._timer.cancel()
        self._seen.clear()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every, self._tick)
        self.sweep()

    def sweep(self) -> None:
        """Cut those who have taken nothing for `PATIENCE` sweeps."""
        seen: dict[asyncio.Transport, tuple[int, int]] = {}
        for connection in list(self._connections()):
            transport = connection.transport
            if transport is None or transport.get_protocol() is not connection:
                continue
            unsent = transport.get_write_buffer_size()
            if not unsent:
                continue
            before, times = self._seen.get(transport, (0, 0))
            times = times + 1 if before == unsent else 0
            if times < PATIENCE:
                seen[transport] = (unsent, times)
                continue
            log.info("%s: reads no more, %d bytes unsent", transport.get_extra_info("peername"), unsent)
            transport.abort()
        self._seen = seen
