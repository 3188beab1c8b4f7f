"""The pod network's loop on one node: watch Nodes, keep devices, overlay and masquerading right.

Run by the node's agent process. What flannel's daemon does: it publishes on its own Node object how its node is
reached, and reads the others' from theirs. The mode decides what the kernel must hold, and can be changed while
packets flow (`use`). A change costs what changed; at the start and every RESYNC_SECONDS the kernel's state is read and
corrected. Traffic goes on while this process is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
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
from netkit.kernel.network_events import Event, LinkEvent, NetworkEvents
from netkit.kernel.route_listener import EventsLost
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device, masquerade, overlay, paths, trespass, wireguard
from netkit.podnet.attach import Attach
from netkit.podnet.modes import VXLAN, NetworkMode, Setting, backend
from netkit.podnet.modes import mtu as mtu_of
from netkit.podnet.network import PodNetwork
from netkit.podnet.node_pods import NodePods
from netkit.podnet.paths import Devices, NoWay, Paths, Wanted
from netkit.podnet.peer import PREFIX, Peer, peers, pod_range
from netkit.podnet.tunnel_watch import TunnelWatch
from netkit.podnet.tunnels import Tunnels
from netkit.podnet.underlay import ONE_LINK, Underlay

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 60.0
"""How often the kernel is looked at though nothing changed: others may have changed it."""

_CALM_SECONDS: Final = 0.1
"""Between looks at the kernel, should somebody insist."""

_SETTLE_SECONDS: Final = 0.02
"""After a packet was routed, until it has left the node: what it needs on its way must stand as long."""

_NEWS_SECONDS: Final = 5.0
"""How long other nodes may take to tell what a mode must know of them, while all change over."""


class RouteNowhere(Exception):
    """A mode that cannot reach all nodes; `ways` says which, and why. Nothing was changed."""

    def __init__(self, ways: Sequence[NoWay]) -> None:
        super().__init__("; ".join(map(str, ways)))
        self.ways = tuple(ways)


class PodNetworkAgent:
    """Keeps the pod network of one node.

    `node_address` is the node's address on the segment, `cluster_cidr` all pods' range, `state_dir` where
    given addresses are kept. `cluster` defaults to the first part of the node namespace's name. `iptables`
    defaults to the namespace's own with a lock file in `state_dir`. `setting` is the mode to begin with, `attach` how
    pods hang on the node; `network` makes sandboxes in another way than that; `underlay` is what there is between the
    nodes.
    """

    def __init__(
        self, client: Client, node_name: str, node_ns: Namespace, node_address: IPv4Address, cluster_cidr:
        IPv4Network, state_dir: Path, ledger: Ledger, *, cluster: str = "", iptables: IPTables | None = None,
        setting: Setting = VXLAN, attach: Attach = Attach.BRIDGE, network: NodePods | None = None,
        underlay: Underlay = ONE_LINK,
    ) -> None:  # fmt: skip
        self._client = client
        self._name = node_name
        self._ns = node_ns
        self._address = node_address
        self._cluster_cidr = cluster_cidr
        cluster = cluster or node_ns.name.partition(".")[0] or "node"
        self._attach = attach
        self._iptables = iptables or IPTables(node_ns, lock_file=state_dir / "xtables.lock")
        self.network: NodePods = network or PodNetwork(
            cluster, node_ns, node_address, state_dir, ledger, attach, self._iptables
        )
        self._nodes = Informer(client, NODE)
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._setting = setting
        self._underlay = underlay
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._tunnels = Tunnels(node_ns, node_address, cluster_cidr, state_dir, ledger)
        self._tunnel_watch = TunnelWatch(node_name, self._tunnels, self._turn, self._look_now)
        self._range: IPv4Network | None = None
        self._uplink: device.Uplink | None = None
        self._tidy = False
        self._paths: Paths | None = None
        self._refused: tuple[NoWay, ...] = ()
        self._rules = ""
        self._look_at = 0.0

    @property
    def _routes_are_ours(self) -> bool:
        """Whether the ways to other nodes are this agent's affair, and not that of plug-ins of others."""
        return self._setting.mode is not NetworkMode.EXTERNAL or self._setting.node_routes

    @property
    def setting(self) -> Setting:
        """The mode at work."""
        return self._setting

    @property
    def encryption(self) -> str:
        """Who encrypts packets to other nodes, "" while nobody does."""
        return self._tunnels.implementation

    async def ready(self) -> None:
        """Return when pods can be added and are reached from the nodes known by then."""
        await self._ready.wait()

    async def use(self, setting: Setting) -> None:
        """Change over to the mode; returns when the kernel has all of it, and knows all nodes that it must know for it.
        Packets flow meanwhile.

        Raises RouteNowhere for a mode that cannot reach a node (nothing is changed then), KernelError, StatusError and
        ConnectionFailed; the mode before is put back then at once, or by the loop.
        """
        async with self._turn:
            before = self._setting
            if setting == before:
                return
            await self._refuse_dead_ends(setting)
            self._setting, self._paths, self._tidy = setting, None, False
            try:
                await self._sync()
                await self._hear_of_all()
                await self._tunnel_watch.open_sessions()
            except BaseException:
                self._setting = before
                self._forget()
                self._changed.set()
                raise
        log.info("%s: from mode %s to %s", self._name, before, setting)

    async def run(self) -> None:
        """Work until cancelled. Raises kernel.errors.Unsupported when the kernel lacks what pods need."""
        uplink = await asyncio.to_thread(device.uplink, self._ns, self._address)
        await asyncio.to_thread(device.prepare_node, self._ns, uplink.name, self._attach)
        self._nodes.on_change(self._on_node)
        with NetworkEvents(self._ns) as events:
            helping = [
                asyncio.create_task(self._nodes.run()), asyncio.create_task(self._watch_kernel(events))
            ]  # fmt: skip
            try:
                await self._nodes.synced()
                await self._sync_for_ever()
            finally:
                for task in helping:
                    task.cancel()
                await asyncio.gather(*helping, return_exceptions=True)
                await self._tunnel_watch.close()
                self._tunnels.close()
                await self.network.close()

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        """Wake up for what concerns the network; heartbeats change the status only."""
        if old is None or new is None or _concerns(old) != _concerns(new):
            self._news.set()
            self._changed.set()

    async def _watch_kernel(self, events: NetworkEvents) -> None:
        """Look at the kernel as soon as somebody else changes what is ours in it."""
        while True:
            try:
                found = await events.next()
            except EventsLost:
                self._look_now()
                continue
            except KernelError as error:
                log.error(
                    "%s: changes by others are seen every %.0f s only: %s", self._name, RESYNC_SECONDS, error
                )
                return
            async with self._turn:
                kept = self._kept()
                concerned = [event for event in found if kept and trespass.concerns(event, kept)]
                if concerned and not await self._own_doing(concerned):
                    log.info("%s: somebody changed the pod network in the kernel", self._name)
                    self._look_now()
            await asyncio.sleep(_CALM_SECONDS if self._changed.is_set() else 0)

    async def _own_doing(self, concerned: Sequence[Event]) -> bool:
        """Whether it is only what an encrypted tunnel goes through while it is begun: late news, if it is right now."""
        if not all(isinstance(event, LinkEvent) and event.name == wireguard.DEVICE for event in concerned):
            return False
        try:
            return await asyncio.to_thread(self._tunnels.encrypted_is_right)
        except KernelError:
            return False

    def _look_now(self) -> None:
        self._look_at = 0.0
        self._changed.set()

    def _kept(self) -> trespass.Kept | None:
        """What the kernel is known to hold; None while that is not certain."""
        if self._paths is None or self._uplink is None or not self._routes_are_ours:
            return None
        network = self.network
        bridge = self._attach is Attach.BRIDGE and self._setting.mode is not NetworkMode.EXTERNAL
        return trespass.Kept(
            self._paths, self._devices(self._uplink), self._cluster_cidr, network.mtu, network.routes, bridge=bridge,
            tunnels=self._tunnels.standing,
        )  # fmt: skip

    def _devices(self, uplink: device.Uplink) -> Devices:
        standing = self._tunnels.standing
        tunnel, encrypted = (standing.get(name) for name in (overlay.DEVICE, wireguard.DEVICE))
        return Devices(uplink.index, tunnel.index if tunnel else 0, encrypted.index if encrypted else 0)

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
            refresh = time.monotonic() >= self._look_at
            if refresh:
                self._look_at = time.monotonic() + RESYNC_SECONDS
            try:
                async with self._turn:
                    if refresh:
                        self._paths, self._rules, self._tidy = None, "", False
                        await self._refresh()
                    await self._sync()
            except (KernelError, StatusError, ConnectionFailed, OSError) as error:
                wait = backoff.next()
                self._forget()
                log.warning("%s: pod network: %s; again in %.1f s", self._name, error, wait)
            else:
                backoff.reset()
                wait = RESYNC_SECONDS

    async def _refresh(self) -> None:
        """Set right what events do not tell of: settings, cni0's address, pods' own links."""
        if self._uplink is not None:
            await asyncio.to_thread(device.prepare_node, self._ns, self._uplink.name, self._attach)
            await self.network.refresh()

    def _forget(self) -> None:
        """The kernel may hold anything now, or have lost a device: begin with what is there."""
        self._range, self._paths, self._rules, self._tidy = None, None, "", False

    async def _sync(self) -> None:
        """One round: from the Nodes as they are now to devices, entries and rules.

        On a change of mode, tunnel and small packets come first, and large ones last.
        """
        own = self._nodes.get("", self._name)
        own_range = pod_range(own) if own is not None else None
        if own is None or own_range is None:
            log.debug("%s: no pod range yet", self._name)
            return
        mode = backend(self._setting, self._underlay)
        joined = peers(self._nodes.items(), self._name)
        uplink, fresh = self._uplink, own_range != self._range
        if fresh or uplink is None:
            uplink = await asyncio.to_thread(device.uplink, self._ns, self._address)
        # What of the link's MTU pods do without.
        overhead = uplink.mtu - mtu_of(self._setting, self._underlay, uplink.mtu)
        if fresh or self._uplink is None:
            self._uplink = uplink
            least = overhead if self._range is None else max(overhead, self.network.overhead)
            await self.network.configure(own_range, uplink.mtu, least)
            self._range, self._paths, self._rules = own_range, None, ""
        if overhead > self.network.overhead:
            await self.network.set_overhead(overhead)
        if self._paths is None:
            way_mtu = self._underlay.mtu(uplink.mtu)
            for name in mode.tunnels:
                await asyncio.to_thread(self._tunnels.ensure, name, own_range, uplink, way_mtu)
            self._tunnel_watch.watch()
        await self._publish(own, mode.annotations(self._address, self._tunnels.public_key))
        if self._routes_are_ours:
            await self._sync_paths(mode.wanted(joined, uplink.network), uplink, len(joined))
        if self._setting.mode is not NetworkMode.EXTERNAL:
            await self._sync_rules(own_range, joined)
        if not self._tidy:
            removed = await asyncio.to_thread(self._tunnels.remove_others, mode.tunnels, _SETTLE_SECONDS)
            if removed:
                log.info("%s: %s removed", self._name, " and ".join(removed))
        self._tidy = True
        if overhead < self.network.overhead:
            await self.network.set_overhead(overhead)
        self._ready.set()

    async def _refuse_dead_ends(self, setting: Setting) -> None:
        uplink = await asyncio.to_thread(device.uplink, self._ns, self._address)
        joined = peers(self._nodes.items(), self._name)
        refused = backend(setting, self._underlay).wanted(joined, uplink.network).refused
        if lasting := [way for way in refused if not way.passing]:
            raise RouteNowhere(lasting)

    async def _hear_of_all(self) -> None:
        """Wait until the other nodes have told what the mode needs. Raises RouteNowhere when one does not in time."""
        deadline = asyncio.get_running_loop().time() + _NEWS_SECONDS
        while missing := [way for way in self._refused if way.passing]:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                raise RouteNowhere(missing) from None
            self._news.clear()
            await self._sync()

    async def _publish(self, own: Object, wanted: dict[str, str]) -> None:
        """Tell the others how this node is reached, and the scheduler that the node's network is there."""
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

    async def _sync_paths(self, wanted: Wanted, uplink: device.Uplink, count: int) -> None:
        if wanted.refused != self._refused:
            for way in wanted.refused:
                expected = way.passing and self._setting.both is not None
                log.log(logging.INFO if expected else logging.ERROR, "%s: %s", self._name, way)
            self._refused = wanted.refused
        if wanted.paths == self._paths:
            return
        began = time.perf_counter()
        changed = await asyncio.to_thread(self._change_paths, wanted.paths, self._devices(uplink))
        if self._paths is None or wanted.paths.keys != self._paths.keys:
            self._tunnel_watch.greet_soon()
        self._paths = wanted.paths
        took = (time.perf_counter() - began) * 1000
        if changed:
            log.info("%s: %d nodes joined, %d changes, synced in %.1f ms", self._name, count, changed, took)

    def _change_paths(self, wanted: Paths, devices: Devices) -> int:
        current = self._paths
        if current is None:
            found = device.read_paths(self._ns, devices, self._cluster_cidr)
            current = replace(found, keys=self._tunnels.keys())
        messages = paths.changes(current, wanted, devices)
        later = paths.leftovers(current, wanted, devices)
        added = wireguard.additions(current.keys, wanted.keys, self._tunnels.public_key)
        gone = wireguard.removals(current.keys, wanted.keys)
        self._tunnels.apply(added)
        if messages or later or gone:
            with Rtnl(self._ns) as links:
                links.apply(*messages)
                if later or gone:
                    time.sleep(_SETTLE_SECONDS)
                    links.apply(*later)
                    self._tunnels.apply(gone)
        return len(messages) + len(later) + len(added.peers) + len(gone.removed)

    async def _sync_rules(self, own_range: IPv4Network, joined: tuple[Peer, ...]) -> None:
        nodes = [(self._name, self._address), *((peer.name, peer.address) for peer in joined)]
        random_fully = await asyncio.to_thread(lambda: self._iptables.random_fully)
        text = masquerade.rules(own_range, self._cluster_cidr, nodes, random_fully=random_fully)
        if text == self._rules:
            return
        await self._iptables.restore(text)
        for table, chain, rule in masquerade.JUMPS:
            await self._iptables.ensure_rule(table, chain, rule, prepend=False)
        self._rules = text


def _concerns(node: Object) -> tuple[object, ...]:
    """What of a Node the pod network depends on."""
    spec = node.get("spec") or {}
    notes = node["metadata"].get("annotations") or {}
    ours = sorted(item for item in notes.items() if item[0].startswith(PREFIX))
    return spec.get("podCIDR"), spec.get("podCIDRs"), ours
