"""The life of one pod on this node: one task that brings sandbox, containers and status to what the API asks.

Made by `pods.Pods` for every pod of the node. What to do is decided in `lifecycle` (pure); this loop
carries it out and is woken by news: a changed pod, an exit, a probe's result, a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from controlplane.client.events import NORMAL, WARNING
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.meta import objects, timestamps
from controlplane.resources.catalog import POD
from netkit.kernel.errors import KernelError
from netkit.node.config_source import ConfigSource
from netkit.node.container_start import ContainerStarter
from netkit.node.lifecycle import plan, records
from netkit.node.lifecycle.backoff import BackOff
from netkit.node.lifecycle.probes import ProbeKind, timing
from netkit.node.lifecycle.records import Record, Views
from netkit.node.lifecycle.status import PodFacts, pod_status
from netkit.node.log_reader import last_words
from netkit.node.pod_directory import PodDirectory
from netkit.node.pod_setup import PodSetup
from netkit.node.podspec.volumes import MountError
from netkit.node.prober import ContainerProber
from netkit.node.runtime.client import RuntimeGone
from netkit.node.runtime.spec import ContainerState
from netkit.node.settings import NodeContext
from netkit.node.status_writer import StatusWriter
from netkit.node.termination import Terminator
from netkit.podnet.network import NetworkNotReady
from netkit.podnet.pod import Sandbox, SandboxFailed

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_NETWORK_RETRY_SECONDS = 0.05
_SETUP_RETRY_SECONDS = 0.5
_REFRESH_SECONDS = 60.0
_FINISHED = ("Succeeded", "Failed")
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


class PodWorker:
    """One pod. `update` and the other calls give news; `run` ends when the pod is gone for good."""

    def __init__(
        self, context: NodeContext, source: ConfigSource, pod: Object, sandbox: Sandbox | None,
        states: Sequence[ContainerState],
    ) -> None:  # fmt: skip
        self.pod = pod
        self.uid = objects.uid(pod)
        self.key = objects.namespaced_name(pod)
        self.views = Views()
        self.directory = PodDirectory(context.settings.state_dir, self.uid)
        self._context = context
        self._wake = asyncio.Event()
        self._removed = False
        self._failed: tuple[str, str] | None = None
        self._finished = (pod.get("status") or {}).get("phase") in _FINISHED
        self._backoff = BackOff()
        self._setup = PodSetup(context, source, self.directory, sandbox)
        self._starter = ContainerStarter(context, source, self.directory)
        self._terminator = Terminator(context, self._starter, lambda: self._setup.address)
        self._writer = StatusWriter(context.client, pod)
        self._probers: dict[str, ContainerProber] = {}
        self._grace: float | None = None
        self._setup_failures = 0
        self._start_time = (pod.get("status") or {}).get("startTime") or timestamps.now()
        self._adopt(states)

    # news

    def update(self, pod: Object) -> None:
        """The pod as the API has it now."""
        self.pod = pod
        self._wake.set()

    def remove(self) -> None:
        """The pod is gone from the API: clean up."""
        self._removed = True
        self._wake.set()

    def exited(self, state: ContainerState) -> None:
        """A container of the pod has ended."""
        view = self.views.of(state.config.name)
        view.take(self._with_message(records.from_state(state)))
        if view.current is not None and view.current.id == state.config.id:
            view.ready = view.started = False
        self._stop_prober(state.config.id)
        self._terminator.forget(state.config.id)
        self._wake.set()

    def runtime_back(self, states: Sequence[ContainerState]) -> None:
        """The runtime (anew) lists these containers of the pod: running ones it does not list have died."""
        known = {state.config.id for state in states}
        for state in states:
            self.views.of(state.config.name).take(records.from_state(state))
        for record in self.views.running():
            if record.id not in known:
                view = self.views.of(record.name)
                view.take(records.lost(record, self._context.clock()))
                view.ready = view.started = False
                self._stop_prober(record.id)
        self._wake.set()

    @property
    def removed(self) -> bool:
        """The API no longer has the pod."""
        return self._removed

    @property
    def sandbox(self) -> Sandbox | None:
        return self._setup.sandbox

    # the loop

    async def run(self) -> None:
        """Until the pod is deleted and nothing of it is left. Cancelling leaves everything as it stands."""
        try:
            while True:
                self._wake.clear()
                try:
                    if self._removed or self.pod["metadata"].get("deletionTimestamp"):
                        if await self._terminate():
                            return
                        delay = _RETRY_SECONDS
                    else:
                        delay = await self._sync()
                except (
                    RuntimeGone, StatusError, ConnectionFailed, KernelError, SandboxFailed, OSError,
                ) as error:  # fmt: skip
                    log.warning("%s: %s: %s; trying again", self.key, type(error).__name__, error)
                    delay = _RETRY_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
        finally:
            for prober in self._probers.values():
                prober.stop()
            await self._terminator.close()

    async def _sync(self) -> float:
        """One pass; the seconds until the next look without news."""
        if self._finished or (self._failed is None and self._deadline_left() <= 0):
            return await self._finish()
        if self._failed is not None:
            return await self._finish()
        if self._setup.has_lost_sandbox and not await self._is_clear_of_lost_sandbox():
            return _RETRY_SECONDS
        if (pause := await self._ready_for_containers()) > 0:
            return pause
        self._stop_changed_containers()
        delay = min(_REFRESH_SECONDS, self._deadline_left())
        while True:
            now = self._context.clock()
            actions = plan.compute(self.pod["spec"], self.views, self._retry_at, now)
            self._note_backing_off(actions)
            if actions.done:
                return await self._finish()
            started = [await self._start(name) for name in actions.start]
            if not any(started):
                break
        due = [at for _, at in actions.backing_off] + [self.views.of(name).retry_at for name in actions.start]
        delay = min([delay, *(max(at - self._context.clock(), 0.01) for at in due)])
        return delay if await self._write_status() else _RETRY_SECONDS

    async def _is_clear_of_lost_sandbox(self) -> bool:
        """Without its network namespace a pod begins anew: its containers are stopped, then it gets another."""
        if self.views.running():
            if not self._terminator.is_stopping(self.views):
                self._event(
                    NORMAL, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."
                )
            self._terminator.stop_all(self.pod, self.views, self._pod_grace())
            return False
        if self._setup.sandbox is not None:
            await self._setup.tear_down(self.uid)
        return True

    async def _ready_for_containers(self) -> float:
        """0 when containers may start, else the seconds until the next try."""
        if not self._context.runtime.is_connected:
            await self._write_status()
            await self._context.runtime.connected()
        try:
            await self._setup.ensure(self.pod)
        except NetworkNotReady as error:
            if not self._setup_failures:
                self._event(WARNING, "NetworkNotReady", f"network is not ready: {error}")
            delay = _NETWORK_RETRY_SECONDS
        except MountError as error:
            self._event(WARNING, "FailedMount", str(error))
            delay = min(_SETUP_RETRY_SECONDS * 2**self._setup_failures, _REFRESH_SECONDS)
        except (KernelError, SandboxFailed) as error:
            self._event(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            delay = min(_SETUP_RETRY_SECONDS * 2**self._setup_failures, _REFRESH_SECONDS)
        else:
            self._setup_failures = 0
            return 0.0
        self._setup_failures = min(self._setup_failures + 1, 10)
        await self._write_status()
        return delay

    def _stop_changed_containers(self) -> None:
        """A container whose image was edited is replaced, as kubelet does it."""
        for record in self.views.running():
            container = self._container(record.name)
            if record.image and record.image != container.get("image", ""):
                text = f"Container {record.name} definition changed, will be restarted"
                view = self.views.of(record.name)
                self._terminator.stop(self.pod, container, view, self._pod_grace(), text)

    async def _start(self, name: str) -> bool:
        view = self.views.of(name)
        container = self._container(name)
        ended = view.exited
        if ended is not None:
            self._backoff.next(name, ended.finished_at, self._context.clock())
        if not await self._starter.start(self.pod, container, self.views, self._setup.setting):
            return False
        record = view.current
        if record is None or not record.running:
            return True
        view.started = ProbeKind.STARTUP not in container
        view.ready = view.started and ProbeKind.READINESS not in container
        self._start_prober(container, record)
        return True

    async def _finish(self) -> float:
        """No container will run again: stop what is left (sidecars, or all of a failed pod), then the sandbox."""
        if self._failed is None and not self._finished and self._deadline_left() <= 0:
            self._failed = (
                "DeadlineExceeded", "Pod was active on the node longer than the specified deadline",
            )  # fmt: skip
            self._event(
                "Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
            )
        self._finished = True
        if self.views.running():
            self._terminator.stop_all(self.pod, self.views, self._pod_grace())
            return _REFRESH_SECONDS
        await self._setup.tear_down(self.uid)
        return _REFRESH_SECONDS if await self._write_status() else _RETRY_SECONDS

    async def _terminate(self) -> bool:
        """One pass of the way out; True when nothing of the pod is left."""
        for prober in self._probers.values():
            prober.stop_for_termination()
        metadata = self.pod["metadata"]
        grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
        if self._removed and not metadata.get("deletionTimestamp"):
            grace = 0.0
        if self._grace is not None and grace < self._grace:
            self._terminator.hurry(self.views, grace)
        self._grace = grace
        if self.views.running():
            self._terminator.stop_all(self.pod, self.views, grace)
            return False
        if not self._removed:
            if not self._finished:
                self._finished = True
                if not await self._write_status():
                    return False
            await self._setup.tear_down(self.uid)
            if not await self._writer.delete():
                return False
        await self._setup.tear_down(self.uid)
        for view in self.views.by_name.values():
            for record in (view.current, view.previous):
                if record is not None and record.id:
                    await self._context.runtime.remove(record.id)
        await asyncio.to_thread(self.directory.remove)
        log.info("%s: removed", self.key)
        return True

    # parts

    async def _write_status(self) -> bool:
        sandbox = self._setup.sandbox
        previous = self._writer.written
        addresses = sandbox.addresses if sandbox is not None else ()
        if not addresses:
            addresses = tuple(entry["ip"] for entry in previous.get("podIPs") or ())
        reason, message = self._failed or ("", "")
        facts = PodFacts(
            host_address=self._context.settings.node_address, addresses=addresses, start_time=self._start_time,
            sandbox_ready=sandbox is not None, now=timestamps.now(), terminal=self._failed is not None,
            finished=self._finished, reason=reason, message=message,
        )  # fmt: skip
        return await self._writer.write(pod_status(self._writer.base(self.pod), self.views, facts))

    def _retry_at(self, name: str, ended: Record) -> float:
        return self._backoff.until(name, ended.finished_at)

    def _note_backing_off(self, actions: plan.Actions) -> None:
        for name, at in actions.backing_off:
            view = self.views.of(name)
            ended = view.exited
            if (
                ended is None
                or view.retry_at >= at
                or (view.waiting and view.waiting[0] == "CrashLoopBackOff")
            ):
                continue
            pod_name = f"{objects.name(self.pod)}_{objects.namespace(self.pod)}({self.uid})"
            text = f"restarting failed container={name} pod={pod_name}"
            view.waiting = ("CrashLoopBackOff", f"back-off {_go_duration(self._backoff.delay(name))} {text}")
            message = f"Back-off restarting failed container {name} in pod {pod_name}"
            self._starter.event(self.pod, self._container(name), WARNING, "BackOff", message)

    def _probed(self, name: str, kind: ProbeKind, success: bool) -> None:
        view = self.views.of(name)
        if not view.running:
            return
        container = self._container(name)
        if kind is ProbeKind.READINESS:
            view.ready = success
        elif kind is ProbeKind.STARTUP and success:
            view.started = True
            view.ready = ProbeKind.READINESS not in container
        elif not success:
            grace = timing(container[kind]).grace
            text = f"Container {name} failed {kind.word.lower()} probe"
            if self.pod["spec"].get("restartPolicy", "Always") != "Never":
                text += ", will be restarted"
            self._terminator.stop(
                self.pod, container, view, self._pod_grace() if grace is None else grace, text
            )
        self._wake.set()

    def _start_prober(self, container: Object, record: Record) -> None:
        if not any(kind in container for kind in ProbeKind):
            return
        view = self.views.of(record.name)
        prober = ContainerProber(
            self._context, self.pod, container, record, self._setup.address, self._probed
        )
        self._probers[record.id] = prober
        prober.start(started=view.started, ready=view.ready)

    def _stop_prober(self, container_id: str) -> None:
        prober = self._probers.pop(container_id, None)
        if prober is not None:
            prober.stop()

    def _adopt(self, states: Sequence[ContainerState]) -> None:
        """Take over what an earlier agent left: records from the API's status, then the runtime's own."""
        status = self.pod.get("status") or {}
        listed = [entry for kind in _STATUSES for entry in status.get(kind) or ()]
        known = {(state.config.name, state.config.attempt) for state in states}
        for entry in listed:
            for record in records.from_status(entry, self._context.clock()):
                if (record.name, record.attempt) not in known:
                    self.views.of(record.name).take(record)
        for state in sorted(states, key=lambda state: state.config.attempt):
            self.views.of(state.config.name).take(self._with_message(records.from_state(state)))
        by_id = {records.plain_id(entry.get("containerID")): entry for entry in listed}
        for record in self.views.running():
            container = self._container(record.name)
            entry = by_id.get(record.id, {})
            view = self.views.of(record.name)
            view.started = ProbeKind.STARTUP not in container or bool(entry.get("started"))
            view.ready = view.started and (ProbeKind.READINESS not in container or bool(entry.get("ready")))
            self._start_prober(container, record)

    def _with_message(self, record: Record) -> Record:
        """With what the container wrote to its termination log, or its last lines if it asks for that."""
        if record.running or record.message:
            return record
        path = self.directory.path / "termination" / record.name
        try:
            text = path.read_text(encoding="utf-8", errors="replace")[:4096]
        except OSError:
            text = ""
        policy = self._container(record.name).get("terminationMessagePolicy")
        if not text and record.exit_code and policy == "FallbackToLogsOnError":
            text = last_words(self.directory.log(record.name, record.attempt))
        return records.with_message(record, text)

    def _container(self, name: str) -> Object:
        spec = self.pod["spec"]
        for kind in ("containers", "initContainers", "ephemeralContainers"):
            for container in spec.get(kind) or ():
                if container["name"] == name:
                    found: Object = container
                    return found
        return {"name": name}

    def _pod_grace(self) -> float:
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else float(grace)

    def _deadline_left(self) -> float:
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return float("inf")
        return float(limit) - (self._context.clock() - timestamps.parse(self._start_time).timestamp())

    def _event(self, type_: str, reason: str, message: str) -> None:
        self._context.events.event(POD, self.pod, type_, reason, message)


def _go_duration(seconds: float) -> str:
    """`10s`, `1m20s`, `5m0s`: as Go prints a duration."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
