"""What is known of a pod's containers, as values the decisions work on. Pure.

Built by the pod worker from the runtime's states, or from the API's status where the runtime has forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from controlplane.errors import Object
from controlplane.meta import timestamps
from netkit.node.runtime.spec import ContainerState, Phase

ID_PREFIX = "netkit://"


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt to run one container. Times are seconds since the epoch, 0 = unknown."""

    id: str
    name: str
    attempt: int
    running: bool
    image: str = ""
    image_id: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class View:
    """One container of the pod: its newest attempt, the one before, and what keeps it from running.

    `waiting` is (reason, message) of a failure to start. `ready` and `started` are what the probes say;
    `started` counts only while a startup probe is there or the container runs.
    """

    name: str
    current: Record | None = None
    previous: Record | None = None
    waiting: tuple[str, str] | None = None
    ready: bool = False
    started: bool = False
    retry_at: float = 0.0

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.running

    @property
    def exited(self) -> Record | None:
        return self.current if self.current is not None and not self.current.running else None

    @property
    def restart_count(self) -> int:
        return self.current.attempt if self.current is not None else 0

    def take(self, record: Record) -> None:
        """Note a newer attempt, or news of the newest. What has ended does not run again (news may overtake)."""
        if self.current is None or record.attempt > self.current.attempt:
            self.previous, self.current = self.current or self.previous, record
            self.waiting = None
        elif record.attempt == self.current.attempt:
            if self.current.running or not record.running:
                self.current = record
        elif self.previous is None or record.attempt >= self.previous.attempt:
            self.previous = record


@dataclass(slots=True)
class Views:
    """All containers of a pod by name, init containers included."""

    by_name: dict[str, View] = field(default_factory=dict)

    def of(self, name: str) -> View:
        view = self.by_name.get(name)
        if view is None:
            view = self.by_name[name] = View(name)
        return view

    def running(self) -> list[Record]:
        return [
            view.current
            for view in self.by_name.values()
            if view.current is not None and view.current.running
        ]


def from_state(state: ContainerState) -> Record:
    """The record of a container the runtime knows."""
    return Record(
        id=state.config.id,
        name=state.config.name,
        attempt=state.config.attempt,
        running=state.phase is Phase.RUNNING,
        image=state.config.annotations.get("image", ""),
        image_id=state.config.annotations.get("imageID", ""),
        started_at=state.started_at,
        finished_at=state.finished_at,
        exit_code=state.exit_code,
        signal=state.signal,
        reason=state.reason,
        message=state.message,
    )


def lost(record: Record, now: float) -> Record:
    """The record of a container that died with its runtime."""
    return replace(
        record, running=False, finished_at=now, exit_code=137, signal=9, reason="Error",
        message="the container's runtime process ended",
    )  # fmt: skip


def with_message(record: Record, message: str) -> Record:
    """The record with the container's own last words."""
    return replace(record, message=message)


def from_status(status: Mapping[str, Any], now: float) -> list[Record]:
    """Records of a `containerStatuses` entry, oldest first; what was running there is taken for lost."""
    records = []
    count = int(status.get("restartCount") or 0)
    name, image_id = str(status["name"]), str(status.get("imageID") or "")
    last = (status.get("lastState") or {}).get("terminated")
    state = status.get("state") or {}
    if last:
        attempt = count - 1 if "waiting" not in state else count
        records.append(_terminated(name, max(attempt, 0), image_id, last))
    if "running" in state:
        since = state["running"].get("startedAt")
        record = Record(
            id=plain_id(status.get("containerID")), name=name, attempt=count, running=True, image_id=image_id,
            started_at=_seconds(since),
        )  # fmt: skip
        records.append(lost(record, now))
    elif "terminated" in state:
        records.append(_terminated(name, count, image_id, state["terminated"]))
    return records


def _terminated(name: str, attempt: int, image_id: str, state: Object) -> Record:
    return Record(
        id=plain_id(state.get("containerID")),
        name=name,
        attempt=attempt,
        running=False,
        image_id=image_id,
        started_at=_seconds(state.get("startedAt")),
        finished_at=_seconds(state.get("finishedAt")),
        exit_code=int(state.get("exitCode") or 0),
        signal=int(state.get("signal") or 0),
        reason=str(state.get("reason") or ""),
        message=str(state.get("message") or ""),
    )


def plain_id(container_id: str | None) -> str:
    """The runtime's id in a status' containerID."""
    return (container_id or "").removeprefix(ID_PREFIX)


def _seconds(text: str | None) -> float:
    return timestamps.parse(text).timestamp() if text else 0.0


def time_text(seconds: float) -> str:
    """A `Time` as the API writes it."""
    return timestamps.format_time(datetime.fromtimestamp(seconds, UTC))
