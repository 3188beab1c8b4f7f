"""Runs the probes of one running container and tells the pod's worker what changed (loop).

Made by `worker` for every container that runs, ended with it. Thresholds are judged in `lifecycle.probes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from controlplane.client.events import WARNING
from controlplane.errors import Object
from controlplane.meta import pods
from controlplane.resources.catalog import POD
from netkit.node import probe_checks
from netkit.node.lifecycle.probes import ProbeKind, ProbeState, timing
from netkit.node.lifecycle.records import Record
from netkit.node.probe_checks import Outcome
from netkit.node.settings import NodeContext

Report = Callable[[str, ProbeKind, bool], None]
"""Container name, which probe, its new result."""


class ContainerProber:
    """The probes of one attempt of one container. `addresses` are the pod's; a pod on the node's network
    has its.
    """

    def __init__(
        self,
        context: NodeContext,
        pod: Object,
        container: Object,
        record: Record,
        address: str,
        report: Report,
    ) -> None:
        self._context = context
        self._pod = pod
        self._container = container
        self._record = record
        self._address = address
        self._report = report
        self._started = asyncio.Event()
        self._tasks: dict[ProbeKind, asyncio.Task[None]] = {}

    def start(self, *, started: bool, ready: bool) -> None:
        """Begin. `started` and `ready` are what is known already (of an adopted container)."""
        if started or ProbeKind.STARTUP not in self._container:
            self._started.set()
        for kind in ProbeKind:
            if kind in self._container and not (kind is ProbeKind.STARTUP and started):
                state = ProbeState(timing(self._container[kind]))
                if kind is ProbeKind.READINESS and ready:
                    state.result = True
                name = f"{kind.word} probe of {self._pod['metadata']['name']}/{self._container['name']}"
                self._tasks[kind] = asyncio.create_task(self._run(kind, state), name=name)

    def stop_for_termination(self) -> None:
        """The pod is going: only readiness still counts."""
        for kind in (ProbeKind.LIVENESS, ProbeKind.STARTUP):
            task = self._tasks.pop(kind, None)
            if task is not None:
                task.cancel()

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _run(self, kind: ProbeKind, state: ProbeState) -> None:
        probe = self._container[kind]
        if kind is not ProbeKind.STARTUP:
            await self._started.wait()
        age = self._context.clock() - self._record.started_at
        await asyncio.sleep(max(state.timing.initial_delay - age, 0))
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            outcome = await self._check(probe, state.timing.timeout)
            if not outcome.success:
                self._context.events.event(
                    POD, self._pod, WARNING, "Unhealthy", f"{kind.word} probe failed: {outcome.text}",
                    f"spec.containers{{{self._container['name']}}}",
                )  # fmt: skip
            if state.take(outcome.success):
                if kind is ProbeKind.STARTUP and outcome.success:
                    self._started.set()
                self._report(self._container["name"], kind, outcome.success)
                if kind is ProbeKind.STARTUP:
                    return
            await asyncio.sleep(max(state.timing.period - (loop.time() - began), 0.01))

    async def _check(self, probe: Object, timeout: float) -> Outcome:
        namespace = self._context.settings.node_ns
        if "exec" in probe:
            command = [str(word) for word in probe["exec"].get("command") or ()]
            return await probe_checks.execute(self._context.runtime, self._record.id, command, timeout)
        action: Any = probe.get("httpGet") or probe.get("tcpSocket")
        if action is None:
            return Outcome(False, "this kind of probe is not supported")
        port = pods.find_port({"spec": {"containers": [self._container]}}, action.get("port", 0), "TCP")
        if port is None:
            return Outcome(False, f"couldn't find port: {action.get('port')} in container")
        if "httpGet" in probe:
            return await probe_checks.http_get(namespace, self._address, port, action, timeout)
        host = str(action.get("host") or self._address)
        return await probe_checks.tcp_connect(namespace, host, port, timeout)
