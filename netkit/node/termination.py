"""Stops the containers of a pod, all of them or some, with hooks and grace periods. Used by `worker`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from controlplane.client.events import NORMAL, WARNING
from controlplane.errors import Object
from netkit.node.container_start import ContainerStarter
from netkit.node.hooks import run_hook
from netkit.node.lifecycle.plan import is_sidecar
from netkit.node.lifecycle.records import View, Views
from netkit.node.runtime.client import RuntimeGone, RuntimeRefused
from netkit.node.settings import NodeContext

log = logging.getLogger(__name__)

_SHORTEST_GRACE = 2.0
"""Seconds a container is left after a hook that used up the grace period."""


class Terminator:
    """Stops containers of one pod; each is stopped once, a later call may only hurry it."""

    def __init__(self, context: NodeContext, starter: ContainerStarter, address: Callable[[], str]) -> None:
        self._context = context
        self._starter = starter
        self._address = address
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def stop(self, pod: Object, container: Object, view: View, grace: float, message: str) -> None:
        """Begin to stop a running container: event, preStop hook, SIGTERM, SIGKILL after `grace` seconds."""
        record = view.current
        if record is None or not record.running or record.id in self._tasks:
            return
        self._starter.event(pod, container, NORMAL, "Killing", message)
        task = asyncio.create_task(
            self._stop(pod, container, record.id, grace),
            name=f"stop {view.name} of {pod['metadata']['name']}",
        )
        self._tasks[record.id] = task
        task.add_done_callback(partial(self._stopped, record.id))

    def is_stopping(self, views: Views) -> bool:
        """Whether one of the running containers is being stopped."""
        return any(record.id in self._tasks for record in views.running())

    def hurry(self, views: Views, grace: float) -> None:
        """Shorten the grace period of what is being stopped."""
        for record in views.running():
            task = asyncio.create_task(self._signal(record.id, grace), name=f"hurry {record.name}")
            key = f"{record.id} in {grace:g} s"
            self._tasks[key] = task
            task.add_done_callback(partial(self._stopped, key))

    def stop_all(self, pod: Object, views: Views, grace: float) -> None:
        """Begin with the pod's containers; sidecars follow, last first, once those in front are gone.

        Call again whenever a container has ended.
        """
        spec = pod["spec"]
        init = spec.get("initContainers") or []
        plain = [*spec["containers"], *(c for c in init if not is_sidecar(c))]
        plain += spec.get("ephemeralContainers") or ()
        if self._stop_running(pod, plain, views, grace):
            return
        for container in reversed([c for c in init if is_sidecar(c)]):
            if self._stop_running(pod, [container], views, grace):
                return

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        for key in [key for key in self._tasks if key.startswith(container_id)]:
            if self._tasks[key].done():
                del self._tasks[key]

    async def close(self) -> None:
        """Forget what is under way."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _stop_running(self, pod: Object, containers: Iterable[Object], views: Views, grace: float) -> bool:
        waiting = False
        for container in containers:
            view = views.of(container["name"])
            if view.running:
                self.stop(pod, container, view, grace, f"Stopping container {container['name']}")
                waiting = True
        return waiting

    async def _stop(self, pod: Object, container: Object, container_id: str, grace: float) -> None:
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(grace):
                    outcome = await run_hook(
                        self._context, container, container_id, self._address(), hook, grace
                    )
                if not outcome.success:
                    log.info("%s/%s: preStop: %s", pod["metadata"]["name"], container["name"], outcome.text)
                    self._starter.event(pod, container, WARNING, "FailedPreStopHook", "PreStopHook failed")
            except TimeoutError:
                log.info(
                    "%s/%s: preStop used up the grace period", pod["metadata"]["name"], container["name"]
                )
            grace = max(grace - (loop.time() - began), _SHORTEST_GRACE)
        await self._signal(container_id, grace)

    async def _signal(self, container_id: str, grace: float) -> None:
        try:
            await self._context.runtime.stop(container_id, grace)
        except RuntimeRefused as error:
            log.debug("stop %s: %s", container_id[:12], error)

    def _stopped(self, container_id: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        # Not stopped: the next look at the pod tries again.
        self._tasks.pop(container_id, None)
        if not isinstance(error, RuntimeGone):
            log.error("stop %s failed", container_id[:12], exc_info=error)
