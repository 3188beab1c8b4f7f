"""Python's cycle collector in a process that holds many objects: full collections by the clock, not by growth.

Used by `server.py` around everything it runs. Python starts a full collection whenever the heap has grown by a
quarter, and walks through all of it: 250 ms for 5000 pods, while every client waits, and a fifth of the time of a
server that takes in objects. Stored objects are JSON, have no cycles and are freed by their reference counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator

log = logging.getLogger(__name__)

FULL_COLLECTION_SECONDS = 300.0
_NEVER = 2**31 - 1


@contextlib.contextmanager
def full_collections_by_the_clock(seconds: float = FULL_COLLECTION_SECONDS) -> Iterator[None]:
    """Within the block old objects are looked through every so many seconds only; needs a running loop.

    Young objects are collected as ever. What is there already, modules above all, is not looked at again.
    """
    loop = asyncio.get_running_loop()
    thresholds = gc.get_threshold()
    timer: asyncio.TimerHandle | None = None

    def collect() -> None:
        started = time.monotonic()
        found = gc.collect()
        log.debug("cycle collector: %d objects in %.0f ms", found, (time.monotonic() - started) * 1000)
        wait()

    def wait() -> None:
        nonlocal timer
        timer = loop.call_later(seconds, collect)

    gc.freeze()
    gc.set_threshold(*thresholds[:2], _NEVER)
    wait()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        gc.set_threshold(*thresholds)
        gc.unfreeze()
