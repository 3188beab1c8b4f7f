"""Gives every node its range of pod addresses out of the cluster's.

Which ranges are taken is read from the nodes themselves each time, so nothing can leak; only ranges given out
but not yet seen in the cache are remembered.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.events import NORMAL, EventRecorder
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, name, uid
from controlplane.resources.catalog import NODE

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NodeIpamController:
    """Keys are names of nodes. `cluster_cidr` is cut into ranges of prefix length `node_mask`, used in turn."""

    def __init__(self, client: Client, informers: Informers, cluster_cidr: Network, node_mask: int) -> None:
        self._client = client
        self._nodes = informers.of(NODE)
        self._cluster_cidr = cluster_cidr
        self._node_mask = node_mask
        self._given: dict[str, tuple[str, Network]] = {}
        self._next = 0
        self._events = EventRecorder(client, "cidrAllocator")
        # One worker: ranges are given one after the other.
        self._loop: Controller[str] = Controller("node-ipam", self._reconcile, workers=1)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._nodes)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            if not _ranges(new):
                self._loop.queue.add(name(new))
            return
        # A range came free: nodes that wait for one may have it.
        for node in self._nodes.items():
            if not _ranges(node):
                self._loop.queue.add(name(node))

    async def _reconcile(self, key: str) -> None:
        node = self._nodes.get("", key)
        if node is None or is_being_deleted(node) or _ranges(node):
            return
        chosen = self._choose(node)
        if chosen is None:
            text = f"Node {key} status is now: CIDRNotAvailable"
            self._events.event(NODE, node, NORMAL, "CIDRNotAvailable", text)
            log.warning("%s: no range left in %s", key, self._cluster_cidr)
            return
        self._given[uid(node)] = (key, chosen)
        patch = {"metadata": {"uid": uid(node)}, "spec": {"podCIDR": str(chosen), "podCIDRs": [str(chosen)]}}
        await self._client.patch(NODE, key, patch)
        log.info("%s: pod addresses %s", key, chosen)

    def _choose(self, node: Object) -> Network | None:
        """A free range: the one already given to this node, or the next in turn, so that ranges rest after
        use.
        """
        present = {uid(each): _ranges(each) for each in self._nodes.items()}
        for other in list(self._given):
            if other not in present or present[other]:
                del self._given[other]
        if uid(node) in self._given:
            return self._given[uid(node)][1]
        taken = [network for networks in present.values() for network in networks]
        taken += [network for _, network in self._given.values()]
        count = 1 << (self._node_mask - self._cluster_cidr.prefixlen)
        indexes = self._taken_indexes(taken)
        for offset in range(count):
            index = (self._next + offset) % count
            if index not in indexes:
                self._next = (index + 1) % count
                return self._range(index)
        return None

    def _range(self, index: int) -> Network:
        size = self._cluster_cidr.max_prefixlen - self._node_mask
        first = int(self._cluster_cidr.network_address) + (index << size)
        return type(self._cluster_cidr)((first, self._node_mask))

    def _taken_indexes(self, taken: Iterable[Network]) -> set[int]:
        """Indexes of the ranges that overlap with one that is taken, whatever its size."""
        size = self._cluster_cidr.max_prefixlen - self._node_mask
        start = int(self._cluster_cidr.network_address)
        result: set[int] = set()
        for network in taken:
            if network.version == self._cluster_cidr.version and network.overlaps(self._cluster_cidr):
                first = max(int(network.network_address), start)
                last = min(int(network.broadcast_address), int(self._cluster_cidr.broadcast_address))
                result.update(range((first - start) >> size, ((last - start) >> size) + 1))
        return result


def _ranges(node: Object) -> list[Network]:
    listed = dig(node, "spec", "podCIDRs") or [dig(node, "spec", "podCIDR", default="")]
    return [ipaddress.ip_network(text) for text in listed if text]
