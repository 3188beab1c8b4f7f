"""The values that cross the runtime's socket: what a container is, how it fares, what a request says.

Used by the agent (`runtime.client`) and the runtime process. Pure; encoded as JSON by orjson, which writes
dataclasses itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Where a container is in its life."""

    RUNNING = "running"
    EXITED = "exited"


class Processes(StrEnum):
    """Which processes a container sees: its own alone, all of its pod's, those of another container of the pod
    (`ContainerConfig.neighbour`), or all of the machine's.
    """

    OWN = "own"
    POD = "pod"
    CONTAINER = "container"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class ListenPort:
    """A port of the pod a builtin container serves; `protocol` is TCP or UDP."""

    number: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class BindMount:
    """`source` of the machine shown at `target` in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class BuiltinConfig:
    """A server of the runtime itself: which behaviour of `runtime.behaviours`, where, and with what text."""

    behaviour: str
    ports: tuple[ListenPort, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Whom the program runs as and what it may write; `capabilities` is the bounding set, names without CAP_."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    read_only_root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """One container to start.

    `network` is the name of a network namespace; `argv` is empty exactly if `builtin` is set; `root` is
    the lower layer of the file system; `annotations` are the agent's own notes, handed back by `list`
    after its restart. `neighbour` is the id of the container whose processes are seen too, for
    `Processes.CONTAINER`.
    """

    id: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    name: str
    attempt: int
    network: str
    hostname: str
    log_path: str
    builtin: BuiltinConfig | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    root: str = "/"
    binds: tuple[BindMount, ...] = ()
    security: SecurityConfig = SecurityConfig()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    addresses: tuple[str, ...] = ()
    node_name: str = ""
    processes: Processes = Processes.OWN
    neighbour: str = ""
    host_ipc: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`namespace/pod/container`, for log lines."""
        return f"{self.pod_namespace}/{self.pod_name}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """How a container fares. Times are seconds since the epoch; `reason` and `message` are kubelet's
    words.
    """

    config: ContainerConfig
    phase: Phase
    pid: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """What a running container uses. `cpu_nanos` is the CPU time since its start, and never falls; memory in bytes.

    The memory of a builtin container is its equal share of the runtime's own, as nothing tells what of it is whose.
    """

    id: str
    cpu_nanos: int
    memory: int
    shared_memory: int = 0
    faults: int = 0
    major_faults: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeUsage:
    """All running containers, and what the runtime uses besides them."""

    containers: tuple[ContainerUsage, ...]
    own_cpu_nanos: int
    own_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """Run a program in a container (`attach` = join its main process instead)."""

    container: str
    argv: tuple[str, ...] = ()
    attach: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


def config_from_json(data: Mapping[str, Any]) -> ContainerConfig:
    """The config its JSON form stands for. Raises TypeError or KeyError for what is none."""
    builtin = data.get("builtin")
    return ContainerConfig(
        **{
            **data,
            "builtin": builtin
            and BuiltinConfig(
                builtin["behaviour"], tuple(ListenPort(**port) for port in builtin["ports"]), builtin["text"]
            ),
            "argv": tuple(data["argv"]),
            "binds": tuple(BindMount(**bind) for bind in data["binds"]),
            "security": _security(data["security"]),
            "addresses": tuple(data["addresses"]),
            "processes": Processes(data["processes"]),
        }
    )


def _security(data: Mapping[str, Any]) -> SecurityConfig:
    return SecurityConfig(
        data["uid"], data["gid"], tuple(data["groups"]), tuple(data["capabilities"]), data["read_only_root"]
    )


def state_from_json(data: Mapping[str, Any]) -> ContainerState:
    """The state its JSON form stands for."""
    return ContainerState(
        **{**data, "config": config_from_json(data["config"]), "phase": Phase(data["phase"])}
    )


def usage_from_json(data: Mapping[str, Any]) -> RuntimeUsage:
    """The usage its JSON form stands for."""
    return RuntimeUsage(
        **{**data, "containers": tuple(ContainerUsage(**each) for each in data["containers"])}
    )


def exec_request_from_json(data: Mapping[str, Any]) -> ExecRequest:
    """The request its JSON form stands for."""
    return ExecRequest(**{**data, "argv": tuple(data["argv"])})
