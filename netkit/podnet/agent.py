"""The pod network's loop on one node: watch Nodes, keep devices, overlay and masquerading right.

Run by the node's agent process. What flannel's daemon does: it publishes its own node's tunnel end on its
Node object and reads the others' from theirs. A change costs what changed; after a restart the kernel's state
is read once and corrected. Traffic goes on while this process is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client, PatchType
from controlplane.client.informer import Informer
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.meta import timestamps
from controlplane.resources.catalog import NODE
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device, masquerade, overlay
from netkit.podnet.network import PodNetwork
from netkit.podnet.overlay import Overlay, Peer

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 60.0
"""How often rules are ensured though nothing changed: others may have flushed them."""


class PodNetworkAgent:
    """Keeps the pod network of one node.

    `node_address` is the node's address on the segment, `cluster_cidr` all pods' range, `state_dir` where
    given addresses are kept. `cluster` defaults to the first part of the node namespace's name. `iptables`
    defaults to the namespace's own with a lock file in `state_dir`.
    """

    def __init__(
        self, client: Client, node_name: str, node_ns: Namespace, node_address: IPv4Address, cluster_cidr:
        IPv4Network, state_dir: Path, ledger: Ledger, *, cluster: str = "", iptables: IPTables | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._name = node_name
        self._ns = node_ns
        self._address = node_address
        self._cluster_cidr = cluster_cidr
        cluster = cluster or node_ns.name.partition(".")[0] or "node"
        self.network = PodNetwork(cluster, node_ns, node_address, state_dir, ledger)
        self._iptables = iptables or IPTables(node_ns, lock_file=state_dir / "xtables.lock")
        self._nodes = Informer(client, NODE)
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._range: IPv4Network | None = None
        self._device = 0
        self._overlay: Overlay | None = None
        self._rules = ""
        self._rules_at = 0.0

    async def ready(self) -> None:
        """Return when pods can be added and are reached from the nodes known by then."""
        await self._ready.wait()

    async def run(self) -> None:
        """Work until cancelled. Raises kernel.errors.Unsupported when the kernel lacks what pods need."""
        uplink = await asyncio.to_thread(device.uplink, self._ns, self._address)
        await asyncio.to_thread(device.prepare_node, self._ns, uplink.name)
        self._nodes.on_change(self._on_node)
        following = asyncio.create_task(self._nodes.run())
        try:
            await self._nodes.synced()
            await self._sync_for_ever()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await self.network.close()

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        """Wake up for what concerns the network; heartbeats change the status only."""
        if old is None or new is None or _concerns(old) != _concerns(new):
            self._changed.set()

    async def _sync_for_ever(self) -> None:
        backoff = Backoff(0.1, 10.0)
        self._changed.set()
        wait = RESYNC_SECONDS
        while True:
            # Not wait_for, which in Python 3.11 loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._sync()
            except (KernelError, StatusError, ConnectionFailed, OSError) as error:
                wait = backoff.next()
                # The kernel may hold anything now, or have lost a device: begin with what is there.
                self._range, self._overlay, self._rules = None, None, ""
                log.warning("%s: pod network: %s; again in %.1f s", self._name, error, wait)
            else:
                backoff.reset()
                wait = RESYNC_SECONDS

    async def _sync(self) -> None:
        """One round: from the Nodes as they are now to devices, entries and rules."""
        own = self._nodes.get("", self._name)
        own_range = overlay.pod_range(own) if own is not None else None
        if own is None or own_range is None:
            log.debug("%s: no pod range yet", self._name)
            return
        if own_range != self._range:
            await self._set_range(own_range)
        await self._publish(own)
        joined = overlay.peers(self._nodes.items(), self._name)
        await self._sync_overlay(joined)
        await self._sync_rules(own_range, joined)
        self._ready.set()

    async def _set_range(self, own_range: IPv4Network) -> None:
        uplink = await asyncio.to_thread(device.uplink, self._ns, self._address)
        await self.network.configure(own_range, uplink.mtu)
        self._device = await asyncio.to_thread(self._ensure_vxlan, own_range, uplink)
        self._range, self._overlay, self._rules = own_range, None, ""

    def _ensure_vxlan(self, own_range: IPv4Network, uplink: device.Uplink) -> int:
        with Rtnl(self._ns) as links:
            return device.ensure_vxlan(self._ns, links, own_range, self._address, uplink)

    async def _publish(self, own: Object) -> None:
        """Tell the others our tunnel end, and the scheduler that the node's network is there."""
        wanted = overlay.node_annotations(self._address, overlay.vtep_mac(self._address))
        present = own["metadata"].get("annotations") or {}
        if any(present.get(key) != value for key, value in wanted.items()):
            await self._client.patch(NODE, self._name, {"metadata": {"annotations": wanted}})
        conditions = (own.get("status") or {}).get("conditions") or ()
        if not any(c["type"] == "NetworkUnavailable" and c["status"] == "False" for c in conditions):
            now = timestamps.now()
            condition = {
                "type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp",
                "message": "Flannel is running on this node", "lastTransitionTime": now, "lastHeartbeatTime": now,
            }  # fmt: skip
            patch = {"status": {"conditions": [condition]}}
            await self._client.patch(
                NODE, self._name, patch, patch_type=PatchType.STRATEGIC, subresource="status"
            )

    async def _sync_overlay(self, joined: tuple[Peer, ...]) -> None:
        wanted = overlay.overlay(joined)
        if wanted == self._overlay:
            return
        began = time.perf_counter()
        count = await asyncio.to_thread(self._change_overlay, wanted)
        self._overlay = wanted
        took = (time.perf_counter() - began) * 1000
        log.info("%s: %d nodes joined, %d changes, synced in %.1f ms", self._name, len(joined), count, took)

    def _change_overlay(self, wanted: Overlay) -> int:
        current = self._overlay
        if current is None:
            current = device.read_overlay(self._ns, self._device)
        messages = overlay.changes(current, wanted, self._device)
        if messages:
            with Rtnl(self._ns) as links:
                links.apply(*messages)
        return len(messages)

    async def _sync_rules(self, own_range: IPv4Network, joined: tuple[Peer, ...]) -> None:
        nodes = [(self._name, self._address), *((peer.name, peer.address) for peer in joined)]
        random_fully = await asyncio.to_thread(lambda: self._iptables.random_fully)
        text = masquerade.rules(own_range, self._cluster_cidr, nodes, random_fully=random_fully)
        if text == self._rules and time.monotonic() - self._rules_at < RESYNC_SECONDS:
            return
        await self._iptables.restore(text)
        for table, chain, rule in masquerade.JUMPS:
            await self._iptables.ensure_rule(table, chain, rule, prepend=False)
        self._rules, self._rules_at = text, time.monotonic()


def _concerns(node: Object) -> tuple[object, ...]:
    """What of a Node the pod network depends on."""
    spec = node.get("spec") or {}
    notes = node["metadata"].get("annotations") or {}
    ours = sorted(item for item in notes.items() if item[0].startswith("flannel.alpha.coreos.com/"))
    return spec.get("podCIDR"), spec.get("podCIDRs"), ours
