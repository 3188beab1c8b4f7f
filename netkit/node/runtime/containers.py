"""All containers of one runtime process, running and exited. Used by `server`.

Exited containers stay listed until the agent removes them: they are its memory across a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from netkit.kernel.container import StartFailure
from netkit.node.runtime.builtin import BuiltinContainer
from netkit.node.runtime.neighbours import Neighbours
from netkit.node.runtime.process import Listener, ProcessContainer
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerConfig, ContainerState, Phase


class Container(Protocol):
    """What both kinds of container offer."""

    state: ContainerState

    @property
    def config(self) -> ContainerConfig: ...

    async def start(self) -> None: ...

    def stop(self, grace: float) -> None: ...

    async def target(self) -> tuple[int, int]: ...

    async def ended(self) -> None: ...

    def listen(self, listener: Listener) -> None: ...

    def unlisten(self, listener: Listener) -> None: ...

    async def feed(self, data: bytes) -> bool: ...

    def end_of_input(self) -> None: ...

    def resize(self, width: int, height: int) -> None: ...

    def mount_namespaces(self) -> tuple[int, ...]: ...

    @property
    def handling_nanos(self) -> int: ...


class UnknownContainer(LookupError):
    """No container of that id."""


class Containers:
    """The table. `on_exit(state)` is called for every container that ends."""

    def __init__(self, settings: RuntimeSettings, on_exit: Callable[[ContainerState], None]) -> None:
        self._settings = settings
        self._tell_exit = on_exit
        self._containers: dict[str, Container] = {}
        self._neighbours = Neighbours(settings, self._target)

    async def start(self, config: ContainerConfig) -> ContainerState:
        """Start a container; one of the same id is left as it is. Raises StartFailure."""
        known = self._containers.get(config.id)
        if known is not None:
            return known.state
        container: Container
        if config.builtin is not None:
            container = BuiltinContainer(config, self._settings, self._on_exit, self._neighbours)
        elif config.argv:
            container = ProcessContainer(config, self._settings, self._on_exit, self._neighbours)
        else:
            raise StartFailure("no command specified")
        self._containers[config.id] = container
        try:
            await container.start()
        except BaseException:
            del self._containers[config.id]
            self._release(config.pod_uid)
            raise
        return container.state

    async def _target(self, container_id: str) -> tuple[int, int]:
        return await self.get(container_id).target()

    def _on_exit(self, state: ContainerState) -> None:
        self._release(state.config.pod_uid)
        self._tell_exit(state)

    def _release(self, pod_uid: str) -> None:
        """Let go of what the pod's containers shared, if none of them runs."""
        for container in self._containers.values():
            if container.config.pod_uid == pod_uid and container.state.phase is Phase.RUNNING:
                return
        self._neighbours.release(pod_uid)

    def get(self, container_id: str) -> Container:
        """Raises UnknownContainer."""
        try:
            return self._containers[container_id]
        except KeyError:
            raise UnknownContainer(f'container "{container_id}" not found') from None

    def running(self) -> list[Container]:
        return [each for each in self._containers.values() if each.state.phase is Phase.RUNNING]

    def states(self) -> list[ContainerState]:
        return [container.state for container in self._containers.values()]

    async def remove(self, container_id: str) -> None:
        """Forget a container, killing it if it still runs."""
        container = self._containers.get(container_id)
        if container is None:
            return
        container.stop(0)
        if container.state.phase is Phase.RUNNING:
            await container.ended()
        self._containers.pop(container_id, None)

    async def close(self) -> None:
        """Kill everything."""
        await asyncio.gather(*(self.remove(container_id) for container_id in list(self._containers)))
