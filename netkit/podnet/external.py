"""The mode `external`: plug-ins of others attach pods, and the ways between nodes are their affair. Pure.

With `routes`, each node nevertheless has the native route per node to the others' pod ranges: enough for plug-ins that
take their addresses from the node's range and know nothing of other nodes, such as CNI's `bridge` with `host-local`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from netkit.podnet.native import Native
from netkit.podnet.paths import Paths, Wanted
from netkit.podnet.peer import Peer
from netkit.podnet.underlay import ONE_LINK, Underlay


@dataclass(frozen=True, slots=True)
class External:
    """The mode."""

    routes: bool = False
    underlay: Underlay = ONE_LINK

    @property
    def tunnels(self) -> tuple[str, ...]:
        return ()

    @property
    def overhead(self) -> int:
        return 0

    def annotations(self, node_address: IPv4Address, public_key: str = "") -> dict[str, str]:
        return Native().annotations(node_address) if self.routes else {}

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        return Native(underlay=self.underlay).wanted(joined, link) if self.routes else Wanted(Paths())
