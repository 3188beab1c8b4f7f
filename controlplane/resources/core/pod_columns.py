"""The columns of `kubectl get pods`, with upstream's reading of STATUS and RESTARTS (`printPod`, v1.32).
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.meta.timestamps import age, parse, since
from controlplane.resources.cells import AGE, NAME, NONE
from controlplane.resources.kind import Column

COLUMNS = (
    NAME,
    Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", description="The aggregate status of the containers in this pod."),
    Column(
        "Restarts",
        description="The number of times the containers in this pod have been restarted and when the last container "
        "in this pod has restarted.",
    ),
    AGE,
    Column("IP", priority=1, documents="io.k8s.api.core.v1.PodStatus.podIP"),
    Column("Node", priority=1, documents="io.k8s.api.core.v1.PodSpec.nodeName"),
    Column("Nominated Node", priority=1, documents="io.k8s.api.core.v1.PodStatus.nominatedNodeName"),
    Column("Readiness Gates", priority=1, documents="io.k8s.api.core.v1.PodSpec.readinessGates"),
)

_SUCCEEDED = (
    {
        "type": "Completed",
        "status": "True",
        "reason": "Succeeded",
        "message": "The pod has completed successfully.",
    },
)
_FAILED = ({"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},)

_NODE_LOST = "NodeLost"


@dataclass(slots=True)
class _Restarts:
    """How often containers were restarted, and when the last one had ended."""

    count: int = 0
    last: str = ""

    def add(self, status: Object) -> None:
        self.count += status.get("restartCount") or 0
        ended = dig(status, "lastState", "terminated", "finishedAt", default="")
        if ended and (not self.last or parse(ended) > parse(self.last)):
            self.last = ended

    def text(self, now: datetime) -> str:
        if self.count and self.last:
            return f"{self.count} ({since(self.last, now)} ago)"
        return str(self.count)


@dataclass(slots=True)
class _Summary:
    """What the container statuses come to."""

    reason: str
    ready: int
    total: int
    restarts: _Restarts


def row(pod: Object, now: datetime) -> Sequence[object]:
    """The cells at `now` (aware)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    summary = _summarise(pod, spec, status)
    return (
        name(pod),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        summary.restarts.text(now),
        age(pod, now),
        _pod_ip(status) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(pod, spec),
    )


def row_conditions(pod: Object) -> Sequence[Object]:
    """Finished pods are greyed out or hidden by clients that ask for it."""
    match (pod.get("status") or {}).get("phase"):
        case "Succeeded":
            return _SUCCEEDED
        case "Failed":
            return _FAILED
        case _:
            return ()


def pod_status(pod: Object) -> str:
    """The STATUS cell: the phase, or what the containers say about why it is not simply that."""
    return _summarise(pod, pod.get("spec") or {}, pod.get("status") or {}).reason


def _summarise(pod: Object, spec: Object, status: Object) -> _Summary:
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    summary = _Summary(
        reason=status.get("reason") or status.get("phase") or "",
        ready=0,
        total=len(spec.get("containers") or ()) + len(sidecars),
        restarts=_Restarts(),
    )
    scheduled = conditions.of(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "SchedulingGated":
        summary.reason = "SchedulingGated"
    sidecar_restarts, initializing = _Restarts(), False
    if status.get("initContainerStatuses"):
        sidecar_restarts, initializing = _read_init_containers(summary, spec, status, sidecars)
    if not initializing or conditions.status_of(pod, "Initialized") == "True":
        summary.restarts = sidecar_restarts
        _read_containers(summary, pod, status)
    if is_being_deleted(pod):
        if status.get("reason") == _NODE_LOST:
            summary.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            summary.reason = "Terminating"
    return summary


def _read_init_containers(
    summary: _Summary, spec: Object, status: Object, sidecars: set[str]
) -> tuple[_Restarts, bool]:
    """Adds the init containers up to the first unfinished one; returns the sidecars' restarts and whether
    one is.
    """
    sidecar_restarts = _Restarts()
    for position, container in enumerate(status.get("initContainerStatuses") or ()):
        summary.restarts.add(container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            sidecar_restarts.add(container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            summary.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            summary.reason = f"Init:{_termination(terminated)}"
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            summary.reason = f"Init:{waiting['reason']}"
        else:
            summary.reason = f"Init:{position}/{len(spec.get('initContainers') or ())}"
        return sidecar_restarts, True
    return sidecar_restarts, False


def _read_containers(summary: _Summary, pod: Object, status: Object) -> None:
    running = False
    # From last to first, so that the first container with something to say has the word.
    for container in reversed(status.get("containerStatuses") or ()):
        summary.restarts.add(container)
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason"):
            summary.reason = waiting["reason"]
        elif state.get("terminated") is not None:
            summary.reason = _termination(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
            summary.ready += 1
    if summary.reason == "Completed" and running:
        summary.reason = "Running" if conditions.status_of(pod, "Ready") == "True" else "NotReady"


def _termination(terminated: Mapping[str, object]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _pod_ip(status: Object) -> str:
    addresses = status.get("podIPs")
    return str(addresses[0].get("ip", "")) if addresses else str(status.get("podIP") or "")


def _readiness_gates(pod: Object, spec: Object) -> str:
    gates = spec.get("readinessGates")
    if not gates:
        return NONE
    true = sum(conditions.status_of(pod, gate.get("conditionType", "")) == "True" for gate in gates)
    return f"{true}/{len(gates)}"
