"""What to do next with a pod's containers, as kubelet's computePodActions decides it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.errors import Object
from netkit.node.lifecycle.records import Record, Views

RetryAt = Callable[[str, Record], float]
"""Container name and its ended attempt -> when (seconds since the epoch) it may start again."""


@dataclass(frozen=True, slots=True)
class Actions:
    """Containers to start now.

    `backing_off` are (name, seconds since the epoch) of containers that wait for their time. `done` means
    that no container will ever run again.
    """

    start: tuple[str, ...] = ()
    backing_off: tuple[tuple[str, float], ...] = ()
    done: bool = False


def is_sidecar(container: Object) -> bool:
    """Whether an init container is a sidecar."""
    return container.get("restartPolicy") == "Always"


def compute(spec: Object, views: Views, retry_at: RetryAt, now: float) -> Actions:
    """The next actions for a pod that is meant to run."""
    policy = spec.get("restartPolicy", "Always")
    init = spec.get("initContainers") or []
    regular = spec["containers"]
    began = any(views.of(container["name"]).current is not None for container in regular)
    planner = _Planner(views, retry_at, now)
    ephemeral = spec.get("ephemeralContainers") or ()
    if not began:
        verdict = _initialize(planner, init, policy)
        if verdict == "failed":
            return Actions(done=True)
        if verdict == "pending":
            planner.add(ephemeral)
            return planner.actions()
    if _finished(regular, views, policy):
        return Actions(done=True)
    for container in init:
        if is_sidecar(container):
            planner.keep(container["name"])
    for container in regular:
        name = container["name"]
        ended = views.of(name).exited
        if ended is None or should_restart(policy, ended.exit_code):
            planner.keep(name)
    planner.add(ephemeral)
    return planner.actions()


def should_restart(policy: str, exit_code: int) -> bool:
    """Whether a container that ended with that code starts again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


class _Planner:
    def __init__(self, views: Views, retry_at: RetryAt, now: float) -> None:
        self.views = views
        self._retry_at = retry_at
        self._now = now
        self._start: list[str] = []
        self._backing_off: list[tuple[str, float]] = []

    def keep(self, name: str) -> None:
        """Start the container unless it runs, or note when it may start."""
        view = self.views.of(name)
        if view.running:
            return
        ended = view.exited
        due = max(view.retry_at, self._retry_at(name, ended) if ended is not None else 0.0)
        if due > self._now:
            self._backing_off.append((name, due))
        else:
            self._start.append(name)

    def add(self, ephemeral: Sequence[Object]) -> None:
        """Start the ephemeral containers that have not been started yet; they run once."""
        for container in ephemeral:
            if self.views.of(container["name"]).current is None:
                self.keep(container["name"])

    def actions(self) -> Actions:
        return Actions(start=tuple(self._start), backing_off=tuple(self._backing_off))


def _initialize(planner: _Planner, init: list[Object], policy: str) -> str:
    """Bring init containers on their way, one after the other: `ready`, `pending` or `failed`."""
    for container in init:
        name = container["name"]
        view = planner.views.of(name)
        if is_sidecar(container):
            planner.keep(name)
            if not (view.running and view.started):
                return "pending"
            continue
        ended = view.exited
        if ended is not None and ended.exit_code == 0:
            continue
        if ended is not None and not should_restart(
            "OnFailure" if policy == "Always" else policy, ended.exit_code
        ):
            return "failed"
        planner.keep(name)
        return "pending"
    return "ready"


def _finished(regular: list[Object], views: Views, policy: str) -> bool:
    for container in regular:
        ended = views.of(container["name"]).exited
        if ended is None or should_restart(policy, ended.exit_code):
            return False
    return True
