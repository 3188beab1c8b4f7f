"""Entry point of the runtime process. The supervisor calls `run_runtime` in a process forked for it."""

from __future__ import annotations

import asyncio
import logging
import signal

from netkit.node.runtime.server import RuntimeServer
from netkit.node.runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)


def run_runtime(settings: RuntimeSettings) -> None:
    """Serve until SIGTERM or SIGINT; returns when all containers are gone. The process must have one
    thread.
    """
    asyncio.run(serve(settings))


async def serve(settings: RuntimeSettings) -> None:
    """As `run_runtime`, inside a running loop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = RuntimeServer(settings)
    await server.start()
    log.info("%s: runtime listens on %s", settings.node_name, settings.socket)
    try:
        await stop.wait()
    finally:
        await server.close()
