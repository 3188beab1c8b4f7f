"""All pods of this node: a worker for each, fed with changes from the API and news from the runtime (loop).

Used by `agent`. After a restart it adopts what stands: sandboxes and running containers of pods that are
still wanted go on untouched, all others are removed.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta import objects
from netkit.node.config_source import ConfigSource
from netkit.node.pod_directory import PodDirectory, pods_directory
from netkit.node.runtime.client import RuntimeGone
from netkit.node.runtime.spec import ContainerState
from netkit.node.settings import NodeContext
from netkit.node.worker import PodWorker
from netkit.podnet.pod import Sandbox

log = logging.getLogger(__name__)

_REVIVAL_SECONDS = 5.0


class Pods:
    """Workers by pod uid. `informer` holds the pods bound to this node and is run by the caller."""

    def __init__(self, context: NodeContext, informer: Informer) -> None:
        self._context = context
        self._informer = informer
        self._source = ConfigSource(context.client)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._states: dict[str, list[ContainerState]] = {}
        self._revivals: set[asyncio.Task[None]] = set()
        context.runtime.on_exit = self._exited
        context.runtime.on_connect = self._runtime_back

    async def run(self) -> None:
        """Until cancelled; the pods go on without us."""
        try:
            await self._informer.synced()
            await self._context.runtime.connected()
            self._sandboxes = await self._context.network.list()
            await self._drop_orphans()
            self._informer.on_change(self._changed)
            await asyncio.Event().wait()
        finally:
            tasks = [*self._tasks.values(), *self._revivals]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def find(self, namespace: str, name: str, uid: str = "") -> PodWorker | None:
        """The worker of a pod, the newest of that name unless `uid` says which."""
        for worker in reversed(self._workers.values()):
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name) and uid in ("", worker.uid):
                return worker
        return None

    def workers(self) -> list[PodWorker]:
        """Of all pods that are looked after."""
        return list(self._workers.values())

    def all(self) -> list[Object]:
        """The pods as the workers see them."""
        return [worker.pod for worker in self._workers.values()]

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            assert old is not None
            worker = self._workers.get(objects.uid(old))
            if worker is not None:
                worker.update(old)
                worker.remove()
            return
        uid = objects.uid(new)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(new)
            return
        self._employ(new, self._sandboxes.pop(uid, None), self._states.pop(uid, []))

    def _employ(self, pod: Object, sandbox: Sandbox | None, states: list[ContainerState]) -> None:
        worker = PodWorker(self._context, self._source, pod, sandbox, states)
        self._workers[worker.uid] = worker
        task = asyncio.create_task(worker.run(), name=f"pod {worker.key}")
        self._tasks[worker.uid] = task
        task.add_done_callback(partial(self._ended, worker))

    def _ended(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        self._tasks.pop(worker.uid, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._workers.pop(worker.uid, None)
            return
        # A defect that shows with one pod must not take the others with it.
        log.error(
            "%s: worker failed; a new one takes over in %g s", worker.key, _REVIVAL_SECONDS, exc_info=error
        )
        revival = asyncio.create_task(self._revive(worker), name=f"revival of pod {worker.key}")
        self._revivals.add(revival)
        revival.add_done_callback(self._revivals.discard)

    async def _revive(self, worker: PodWorker) -> None:
        await asyncio.sleep(_REVIVAL_SECONDS)
        while True:
            await self._context.runtime.connected()
            try:
                states = await self._context.runtime.states()
                break
            except RuntimeGone as gone:
                log.info("%s: %s; waiting for it", worker.key, gone)
        self._employ(worker.pod, worker.sandbox, [s for s in states if s.config.pod_uid == worker.uid])
        if worker.removed:
            self._workers[worker.uid].remove()

    def _exited(self, state: ContainerState) -> None:
        worker = self._workers.get(state.config.pod_uid)
        if worker is not None:
            worker.exited(state)

    def _runtime_back(self, states: list[ContainerState]) -> None:
        by_pod: dict[str, list[ContainerState]] = {}
        for state in states:
            by_pod.setdefault(state.config.pod_uid, []).append(state)
        for uid, worker in self._workers.items():
            worker.runtime_back(by_pod.pop(uid, []))
        self._states = by_pod

    async def _drop_orphans(self) -> None:
        """Remove what belongs to pods that the API no longer has on this node."""
        wanted = {objects.uid(pod) for pod in self._informer.items()}
        for uid in [uid for uid in self._states if uid not in wanted]:
            for state in self._states.pop(uid):
                log.info("%s: orphan, removed", state.config.key)
                try:
                    await self._context.runtime.remove(state.config.id)
                except RuntimeGone:
                    break
        for uid in [uid for uid in self._sandboxes if uid not in wanted]:
            self._sandboxes.pop(uid)
            await self._context.network.remove(uid)
        folder = pods_directory(self._context.settings.state_dir)
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.name not in wanted:
                    await asyncio.to_thread(PodDirectory(self._context.settings.state_dir, entry.name).remove)
