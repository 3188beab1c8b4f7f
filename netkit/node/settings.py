"""What a node agent is told at its start, and what its parts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from controlplane.client.client import Client
from controlplane.client.events import EventRecorder
from controlplane.errors import Object
from netkit.kernel.netns import Namespace
from netkit.node.images.store import ImageStore
from netkit.node.runtime.client import RuntimeClient
from netkit.podnet.pod import NO_WISHES, PodRef, RuntimeConfig, Sandbox

DEFAULT_CAPACITY: Mapping[str, str] = {
    "cpu": "4",
    "memory": "8Gi",
    "pods": "110",
    "ephemeral-storage": "20Gi",
}


class PodNetworkDriver(Protocol):
    """What the agent asks of the pod network (`netkit.podnet.network.PodNetwork`)."""

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox: ...

    async def remove(self, uid: str) -> None: ...

    async def list(self) -> dict[str, Sandbox]: ...


@dataclass(frozen=True, slots=True)
class KubeletTls:
    """PEM files of the kubelet server: its certificate and key, and the CA that client certificates must
    come from.

    `allowed_names` are the common names that may connect; `allowed_groups` organizations.
    """

    certificate: Path
    key: Path
    client_ca: Path
    allowed_names: frozenset[str] = frozenset({"kube-apiserver-kubelet-client"})
    allowed_groups: frozenset[str] = frozenset({"system:masters"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One node. `node_ns` is the machine's network namespace; `state_dir` belongs to this node alone.

    `image_file` is the user's catalogue; `tls` None leaves the kubelet server out; `lease_seconds` is the
    lease's duration; `resolv_conf` the file whose servers pods with dnsPolicy Default use.
    """

    cluster: str
    node_name: str
    node_address: str
    node_ns: Namespace
    state_dir: Path
    runtime_socket: Path
    image_file: Path
    cluster_domain: str = "cluster.local"
    cluster_dns: str = "10.96.0.10"
    lease_seconds: int = 40
    status_seconds: float = 300.0
    tls: KubeletTls | None = None
    kubelet_port: int = 10250
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    capacity: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_CAPACITY))
    resolv_conf: Path = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What every pod worker needs of its node. `services` gives all Services known; `clock` seconds since
    the epoch.
    """

    settings: NodeSettings
    client: Client
    network: PodNetworkDriver
    runtime: RuntimeClient
    images: ImageStore
    events: EventRecorder
    services: Callable[[], list[Object]]
    clock: Callable[[], float]
