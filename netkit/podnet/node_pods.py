"""What the agent asks of whoever makes its node's sandboxes: `network.PodNetwork`, or plug-ins of others."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Protocol

from netkit.podnet.attach import Cable
from netkit.podnet.pod import NO_WISHES, PodRef, RuntimeConfig, Sandbox


class NodePods(Protocol):
    """The pods of one node. MTU and overhead in bytes; see PodNetwork for what each does."""

    @property
    def mtu(self) -> int: ...

    @property
    def overhead(self) -> int: ...

    @property
    def routes(self) -> Mapping[IPv4Network, Cable]: ...

    async def configure(self, node_range: IPv4Network, underlay_mtu: int, overhead: int) -> None: ...

    async def refresh(self) -> None: ...

    async def set_overhead(self, overhead: int) -> None: ...

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox: ...

    async def remove(self, uid: str) -> None: ...

    async def list(self) -> dict[str, Sandbox]: ...

    async def close(self) -> None: ...
