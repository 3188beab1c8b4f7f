"""Asks the runtime now and then what its containers use (loop). Read by the kubelet server."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from netkit.kernel.process_usage import usage_of
from netkit.node.runtime.client import RuntimeClient, RuntimeGone, RuntimeRefused
from netkit.node.usage_history import History, Part, Sample

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 15.0
_FRESH_SECONDS = 2.0


class UsageMeter:
    """`history` holds what is known; `refresh` makes sure that it is of now."""

    def __init__(self, runtime: RuntimeClient, clock: Callable[[], float] = time.time) -> None:
        self.history = History()
        self._runtime = runtime
        self._clock = clock
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled. Without a steady sample there would be nothing to take a rate against."""
        while True:
            await self._runtime.connected()
            try:
                await self.refresh()
            except RuntimeGone:
                continue
            except RuntimeRefused as error:
                log.warning("usage of containers is not known: %s", error)
            await asyncio.sleep(_PERIOD_SECONDS)

    async def refresh(self) -> History:
        """Take a sample unless there is a fresh one. Raises RuntimeGone and RuntimeRefused."""
        async with self._lock:
            newest = self.history.newest
            if newest is None or self._clock() - newest.at > _FRESH_SECONDS:
                used = await self._runtime.usage()
                agent = Part(time.process_time_ns(), usage_of([os.getpid()]).rss)
                runtime = Part(used.own_cpu_nanos, used.own_memory)
                containers = {each.id: each for each in used.containers}
                sample = Sample(self._clock(), containers, {"kubelet": agent, "runtime": runtime})
                self.history.add(sample)
        return self.history
