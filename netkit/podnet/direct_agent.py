"""Keeps the routes to pods of a machine that is no node (loop). Run by the control plane's process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Address

from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.kernel import rtnl_read
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device, direct
from netkit.podnet.node_loop import keep_by_nodes

log = logging.getLogger(__name__)


class DirectRoutes:
    """`address` is the machine's own on the segment; its routes to pod ranges are this object's alone.
    `routers_know`: its router knows the way to the pods of nodes on other segments.
    """

    def __init__(
        self, client: Client, ns: Namespace, address: IPv4Address, *, routers_know: bool = False
    ) -> None:
        self._ns = ns
        self._address = address
        self._routers_know = routers_know
        self._nodes = Informer(client, NODE)

    async def run(self) -> None:
        """Work until cancelled."""
        await keep_by_nodes(self._nodes, _concerns, self._apply, f"{self._ns.name}: routes to pods", 10.0)

    def _apply(self, nodes: Sequence[Object]) -> None:
        uplink = device.uplink(self._ns, self._address)
        index = uplink.index
        wanted = direct.ways(nodes, uplink.network, routers_know=self._routers_know)
        current = {
            route.target: route.via
            for route in rtnl_read.routes(self._ns, index)
            if route.via is not None and route.target.prefixlen > 0
        }
        messages = direct.changes(current, wanted, index)
        if messages:
            with Rtnl(self._ns) as links:
                links.apply(*messages)
            log.info("%s: routes to pods: %d changes", self._ns.name, len(messages))


def _concerns(node: Object | None) -> object:
    """What of a Node routes depend on; heartbeats change nothing of it."""
    return direct.ways([node] if node else ())
