"""A pod's status from what is known of its containers, word for word as kubelet writes it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Object
from controlplane.meta import conditions as condition_lists
from netkit.node.lifecycle.plan import is_sidecar
from netkit.node.lifecycle.records import ID_PREFIX, Record, View, Views, time_text

OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the status says besides containers. `reason` and `message` belong to a pod that was failed whole.

    `terminal` forces the phase Failed (deadline, eviction); `finished` means that no container will run
    again.
    """

    host_address: str
    addresses: tuple[str, ...]
    start_time: str
    sandbox_ready: bool
    now: str
    terminal: bool = False
    finished: bool = False
    reason: str = ""
    message: str = ""


def pod_status(pod: Object, views: Views, facts: PodFacts) -> Object:
    """The whole status kubelet owns (conditions of others are kept, qosClass is left to the API server)."""
    spec = pod["spec"]
    init = spec.get("initContainers") or []
    regular = spec["containers"]
    init_statuses = [_container_status(c, views.of(c["name"]), "PodInitializing", init=True) for c in init]
    waiting = "PodInitializing" if init else "ContainerCreating"
    statuses = [_container_status(c, views.of(c["name"]), waiting, init=False) for c in regular]
    phase = "Failed" if facts.terminal else _phase(spec, init_statuses, statuses)
    if facts.finished and phase not in ("Succeeded", "Failed"):
        # A pod that is taken away ends in a final phase too, whatever its restart policy.
        phase = "Succeeded" if all(_succeeded(status) for status in statuses) else "Failed"
    previous = pod.get("status") or {}
    if previous.get("phase") in ("Succeeded", "Failed"):
        phase = previous["phase"]
    status: Object = {
        "phase": phase,
        "conditions": _conditions(pod, phase, init_statuses, statuses, facts),
        "hostIP": facts.host_address,
        "hostIPs": [{"ip": facts.host_address}],
        "startTime": facts.start_time,
        "containerStatuses": statuses,
    }
    if init:
        status["initContainerStatuses"] = init_statuses
    ephemeral = spec.get("ephemeralContainers") or ()
    if ephemeral:
        status["ephemeralContainerStatuses"] = [
            _ephemeral_status(c, views.of(c["name"]), waiting) for c in ephemeral
        ]
    if facts.addresses:
        status["podIP"] = facts.addresses[0]
        status["podIPs"] = [{"ip": address} for address in facts.addresses]
    for name in ("reason", "message"):
        value = getattr(facts, name) or previous.get(name, "")
        if value:
            status[name] = value
    return status


def changes(previous: Object, status: Object) -> Object:
    """The part of `status` that differs from `previous`, as a merge patch of the status; empty when nothing
    does.
    """
    return {key: value for key, value in status.items() if previous.get(key) != value}


def _container_status(container: Object, view: View, waiting_reason: str, *, init: bool) -> Object:
    record = view.current
    state: Object
    last: Object = {}
    previous = view.previous
    if view.waiting is not None and not view.running:
        reason, message = view.waiting
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        if record is not None and not record.running:
            last = {"terminated": _terminated(record)}
    elif record is None:
        state = {"waiting": {"reason": waiting_reason}}
    else:
        state = _state(record)
        if previous is not None and not previous.running:
            last = {"terminated": _terminated(previous)}
    running = "running" in state
    if init and not is_sidecar(container):
        ready = record is not None and not record.running and record.exit_code == 0
    else:
        ready = running and view.ready
    status: Object = {
        "name": container["name"],
        "state": state,
        "lastState": last,
        "ready": ready,
        "restartCount": view.restart_count,
        "image": (record.image if record is not None else "") or container.get("image", ""),
        "imageID": record.image_id if record is not None else "",
        "started": running and view.started,
    }
    if record is not None and record.id:
        status["containerID"] = ID_PREFIX + record.id
    return status


def _ephemeral_status(container: Object, view: View, waiting_reason: str) -> Object:
    """They are never ready, and nobody says whether they have started."""
    status = _container_status(container, view, waiting_reason, init=False)
    del status["started"]
    return {**status, "ready": False}


def _state(record: Record) -> Object:
    if record.running:
        return {"running": {"startedAt": time_text(record.started_at)}}
    return {"terminated": _terminated(record)}


def _terminated(record: Record) -> Object:
    state: Object = {
        "exitCode": record.exit_code,
        "reason": record.reason or ("Completed" if record.exit_code == 0 else "Error"),
        "startedAt": time_text(record.started_at),
        "finishedAt": time_text(record.finished_at),
    }
    if record.message:
        state["message"] = record.message
    if record.id:
        state["containerID"] = ID_PREFIX + record.id
    return state


def _phase(spec: Object, init_statuses: Sequence[Object], statuses: Sequence[Object]) -> str:
    policy = spec.get("restartPolicy", "Always")
    for container, status in zip(spec.get("initContainers") or (), init_statuses, strict=True):
        if is_sidecar(container):
            if not status["started"] and not any("containerID" in other for other in statuses):
                return "Pending"
            continue
        ended = status["state"].get("terminated")
        if ended is None or ended["exitCode"] != 0:
            if ended is not None and policy == "Never":
                return "Failed"
            return "Pending"
    waiting = running = stopped = succeeded = 0
    for status in statuses:
        state = status["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += state["terminated"]["exitCode"] == 0
        elif "terminated" in status["lastState"]:
            stopped += 1
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _succeeded(status: Object) -> bool:
    ended = status["state"].get("terminated") or status["lastState"].get("terminated")
    return ended is not None and ended["exitCode"] == 0


def _conditions(
    pod: Object,
    phase: str,
    init_statuses: Sequence[Object],
    statuses: Sequence[Object],
    facts: PodFacts,
) -> list[Object]:
    existing = (pod.get("status") or {}).get("conditions") or []
    containers_ready = _containers_ready(pod, phase, init_statuses, statuses)
    wanted = [
        _condition("PodReadyToStartContainers", facts.sandbox_ready),
        _initialized(pod, phase, init_statuses, statuses),
        _ready(pod, containers_ready, existing),
        containers_ready,
        _condition("PodScheduled", True),
    ]
    result = [condition for condition in existing if condition.get("type") not in OWN_CONDITIONS]
    own = []
    for condition in wanted:
        before = condition_lists.find(existing, condition["type"])
        since = facts.now
        if (
            before is not None
            and before.get("status") == condition["status"]
            and before.get("lastTransitionTime")
        ):
            since = before["lastTransitionTime"]
        own.append({**condition, "lastProbeTime": None, "lastTransitionTime": since})
    return own + result


def _condition(type_: str, true: bool, reason: str = "", message: str = "") -> Object:
    condition: Object = {"type": type_, "status": "True" if true else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _initialized(
    pod: Object, phase: str, init_statuses: Sequence[Object], statuses: Sequence[Object]
) -> Object:
    if phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    incomplete = []
    for container, status in zip(pod["spec"].get("initContainers") or (), init_statuses, strict=True):
        done = status["started"] if is_sidecar(container) else status["ready"]
        if not done:
            incomplete.append(status["name"])
    began = any("containerID" in status for status in statuses)
    if not incomplete or began:
        return _condition("Initialized", True)
    text = f"containers with incomplete status: {_names(incomplete)}"
    return _condition("Initialized", False, "ContainersNotInitialized", text)


def _containers_ready(
    pod: Object, phase: str, init_statuses: Sequence[Object], statuses: Sequence[Object]
) -> Object:
    if phase == "Succeeded":
        return _condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return _condition("ContainersReady", False, "PodFailed")
    sidecars = [
        status
        for container, status in zip(pod["spec"].get("initContainers") or (), init_statuses, strict=True)
        if is_sidecar(container)
    ]
    unready = [status["name"] for status in (*sidecars, *statuses) if not status["ready"]]
    if not unready:
        return _condition("ContainersReady", True)
    text = f"containers with unready status: {_names(unready)}"
    return _condition("ContainersReady", False, "ContainersNotReady", text)


def _ready(pod: Object, containers_ready: Object, existing: Sequence[Object]) -> Object:
    if containers_ready["status"] != "True":
        return {**containers_ready, "type": "Ready"}
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        type_ = gate["conditionType"]
        found: Any = condition_lists.find(existing, type_)
        if found is None:
            problems.append(f'corresponding condition of pod readiness gate "{type_}" does not exist.')
        elif found.get("status") != "True":
            text = f'the status of pod readiness gate "{type_}" is not "True", but {found.get("status")}'
            problems.append(text)
    if problems:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return _condition("Ready", True)


def _names(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"
