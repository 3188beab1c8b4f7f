"""Whose processes a container shares: the pod's (`shareProcessNamespace`), or another container's (`--target`).

Used by both kinds of container when they start a process. A pod's shared PID namespace is held by a quiet process,
its process 1, from the first container of the pod until the last has ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

from netkit.kernel.container import StartFailure, Stdio, start
from netkit.node.runtime import launch
from netkit.node.runtime.child import Child
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerConfig, Processes

Target = Callable[[str], Awaitable[tuple[int, int]]]
"""Container id -> (pidfd, pid) of its main process. Raises LookupError or RuntimeError when it does not run."""


class Neighbours:
    """One for all containers of a runtime."""

    def __init__(self, settings: RuntimeSettings, target: Target) -> None:
        self._settings = settings
        self._target = target
        self._holders: dict[str, Child] = {}
        self._lock = asyncio.Lock()

    async def pidfd(self, config: ContainerConfig) -> int:
        """The pidfd of a process whose PID namespace the container joins, -1 for none. Raises StartFailure."""
        if config.processes is Processes.POD:
            async with self._lock:
                holder = self._holders.get(config.pod_uid)
                if holder is None or not holder.running:
                    own = replace(config, processes=Processes.OWN)
                    holder = self._holders[config.pod_uid] = await quiet_process(own, self._settings)
                return holder.pidfd
        if config.processes is Processes.CONTAINER:
            try:
                return (await self._target(config.neighbour))[0]
            except (LookupError, RuntimeError) as error:
                raise StartFailure(f"unable to join the processes of another container: {error}") from error
        return -1

    def release(self, pod_uid: str) -> None:
        """No container of the pod runs any more."""
        holder = self._holders.pop(pod_uid, None)
        if holder is not None:
            holder.send(signal.SIGKILL)


async def quiet_process(config: ContainerConfig, settings: RuntimeSettings, neighbour: int = -1) -> Child:
    """A process that does nothing in the place the container's would have. Raises StartFailure."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        program = launch.program(config, ("sleep", "infinity"), terminal=False)
        spawned = start(
            replace(program, workdir="/", reap_orphans=True),
            launch.isolation(config, settings, neighbour),
            Stdio(null, null, null),
        )
    finally:
        os.close(null)
    return await Child.started(spawned)
