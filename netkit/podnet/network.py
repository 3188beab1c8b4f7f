"""`PodNetwork`: what the node's kubelet part asks for pods' sandboxes - what a CNI plug-in is to a kubelet.

Made by `agent.PodNetworkAgent`, which configures it when the node's pod range is known. Kernel work runs in a
thread, one sandbox at a time (the kernel's own lock would serialise them anyway).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, TypeVar

from netkit.kernel import netns, rtnl, rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import EntryKind, Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.rtnl_read import Link
from netkit.podnet import device, sandbox
from netkit.podnet.address import gateway
from netkit.podnet.attach import Attach, Cable, gateway_interface, pod_interface
from netkit.podnet.host_port import Forwarded, forwarded
from netkit.podnet.host_port_rules import HostPortRules
from netkit.podnet.ipam import Lease, Leases
from netkit.podnet.overlay import OVERHEAD
from netkit.podnet.pod import NO_WISHES, PodRef, PortMapping, RuntimeConfig, Sandbox, sandbox_name

__all__ = ["NetworkNotReady", "PodNetwork", "PodRef", "Sandbox"]

log = logging.getLogger(__name__)

LEASE_FILE: Final = "pod-addresses.json"
_LINGER_SECONDS: Final = 2.0
_FORWARDS_SECONDS: Final = 2.0
_FORWARDS_AGAIN_SECONDS: Final = 0.001
_T = TypeVar("_T")


class NetworkNotReady(Exception):
    """The node has no pod range yet; try again later. Pods on the node's own network do not wait for it."""


class PodNetwork:
    """The pod network of one node. `state_dir` holds the file of given addresses and must survive restarts."""

    def __init__(
        self, cluster: str, node_ns: Namespace, node_address: IPv4Address, state_dir: Path, ledger: Ledger,
        attach: Attach = Attach.BRIDGE, iptables: IPTables | None = None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._ns = node_ns
        self._node_address = node_address
        self._attach = attach
        self._ledger = ledger
        state_dir.mkdir(parents=True, exist_ok=True)
        self._leases = Leases(state_dir / LEASE_FILE)
        driver = iptables or IPTables(node_ns, lock_file=state_dir / "xtables.lock")
        self._host_ports = HostPortRules(node_ns, driver)
        self._links = Rtnl(node_ns)
        self._lock = asyncio.Lock()
        self._range: IPv4Network | None = None
        self._bridge = 0
        self._routes: dict[IPv4Network, Cable] = {}
        self._underlay_mtu, self._overhead = 1500, OVERHEAD
        self._lingering: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def gateway(self) -> IPv4Address | None:
        """The pods' gateway (cni0's address), None until the node has a pod range."""
        return gateway(self._range).ip if self._range else None

    @property
    def mtu(self) -> int:
        """MTU of pods' links, in bytes."""
        return self._underlay_mtu - self._overhead

    @property
    def overhead(self) -> int:
        """What of the underlay's MTU the pods' links do without, in bytes."""
        return self._overhead

    @property
    def routes(self) -> Mapping[IPv4Network, Cable]:
        """The routes to the node's own pods, and their range's as a whole; none when a bridge has them."""
        return self._routes

    async def configure(self, node_range: IPv4Network, underlay_mtu: int, overhead: int = OVERHEAD) -> None:
        """Make cni0 for the range, if pods hang on it, and adopt the sandboxes that stand; broken ones are removed.

        `overhead` is what the mode takes of the underlay's MTU, in bytes. Called by the agent, again when the range
        changes. Raises KernelError.
        """
        async with self._lock:
            self._overhead = overhead
            await asyncio.to_thread(self._configure, node_range, underlay_mtu)
            await self._host_ports.apply(self._forwarded(), afresh=True)

    async def refresh(self) -> None:
        """Set right what others may have changed of cni0 and of the sandboxes that stand. Raises KernelError."""
        async with self._lock:
            if self._range is not None:
                await asyncio.to_thread(self._refresh, self._range)
                await self._host_ports.apply(self._forwarded(), afresh=True)

    async def set_overhead(self, overhead: int) -> None:
        """Give all pods' links, and cni0, the MTU that remains. Raises KernelError; what was reached by then stays."""
        async with self._lock:
            await _uncancelled(lambda: self._set_overhead(overhead))

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox:
        """The pod's sandbox, made unless it stands, with the node's ports that shall lead to it. About 2 ms.

        `host_network`: the node's own namespace, nothing is made. Raises NetworkNotReady,
        address.PoolExhausted, KernelError; nothing is left behind then.
        """
        if host_network:
            return Sandbox(self._ns.name, (str(self._node_address),), self._underlay_mtu)
        async with self._lock:
            made = await _uncancelled(lambda: self._add(pod, config.ports))
            if config.ports:
                try:
                    await self._host_ports.apply(self._forwarded())
                except KernelError:
                    await _uncancelled(lambda: self._remove_of(pod.uid))
                    raise
        await self._until_it_forwards(made)
        return made

    async def _until_it_forwards(self, made: Sandbox) -> None:
        """Wait until packets pass the pod's cable, and cni0 when it is the first there: the kernel lets them a moment
        after a link was set up, and drops those that come before. A busy machine takes tens of milliseconds.
        """
        deadline = time.monotonic() + _FORWARDS_SECONDS
        for name in (made.link, device.BRIDGE):
            while (link := self._links.link(name)) is not None and not link.forwards:
                if time.monotonic() > deadline:
                    log.warning("%s: nothing passes %s yet", made.netns, name)
                    return
                await asyncio.sleep(_FORWARDS_AGAIN_SECONDS)

    async def remove(self, uid: str) -> None:
        """Remove the pod's sandbox and free its address; fine when there is none. Does not wait for the
        kernel.

        Everything that runs in the sandbox must have ended: the namespace lives as long as a process in it.
        """
        async with self._lock:
            lease = self._leases.get(uid)
            if lease is None:
                return
            if lease.ports:
                await self._host_ports.apply(self._forwarded(without=uid))
            await _uncancelled(lambda: self._remove(lease))
        task = asyncio.create_task(self._cut_off(lease))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def list(self) -> dict[str, Sandbox]:
        """The sandboxes that stand, by pod uid; also those an earlier process made."""
        async with self._lock:
            return await asyncio.to_thread(self._standing)

    async def close(self) -> None:
        """Close handles; the sandboxes stay, and what is left of removed ones goes now."""
        self._closing.set()
        await asyncio.gather(*self._lingering, return_exceptions=True)
        async with self._lock:
            self._links.close()

    def _refresh(self, node_range: IPv4Network) -> None:
        self._ensure_devices(node_range, node_range)
        links = rtnl_read.links(self._ns)
        for lease in self._leases.all():
            if not self._adopt(lease, links):
                log.warning("%s: sandbox %s is broken", lease.pod, lease.netns)
        self._keep_addresses(node_range)

    def _set_overhead(self, overhead: int) -> None:
        """Whoever sends is made modest first and generous last: a veth drops what its other end may not hold."""
        shrinking = overhead > self._overhead
        self._overhead = overhead
        plans = [self._plan(lease) for lease in self._leases.all()]
        if shrinking:
            sandbox.set_inner_mtu(plans)
        bridge = self._attach is Attach.BRIDGE
        device.set_mtu(self._links, [plan.link for plan in plans], self.mtu, bridge=bridge)
        if not shrinking:
            sandbox.set_inner_mtu(plans)
        log.info("%s: MTU of %d pods is %d now", self._ns.name or "node", len(plans), self.mtu)

    def _configure(self, node_range: IPv4Network, underlay_mtu: int) -> None:
        self._underlay_mtu = underlay_mtu
        self._ensure_devices(node_range, self._range)
        self._range = node_range
        links = rtnl_read.links(self._ns)
        adopted = 0
        for lease in self._leases.all():
            if lease.address in node_range and self._adopt(lease, links):
                adopted += 1
                continue
            log.warning("%s: sandbox %s is broken, removed", lease.pod, lease.netns)
            self._remove(lease)
        self._keep_addresses(node_range)
        self._drop_orphans()
        log.info("%s: pod range %s, %d sandboxes adopted", self._ns.name or "node", node_range, adopted)

    def _ensure_devices(self, node_range: IPv4Network, before: IPv4Network | None) -> None:
        if self._attach is Attach.BRIDGE:
            self._bridge = device.ensure_bridge(self._ns, self._links, node_range, self.mtu)
            return
        self._forget_route(before)
        device.ensure_range(self._links, node_range, before)
        self._keep_route(node_range, Cable())

    def _adopt(self, lease: Lease, links: Mapping[str, Link]) -> bool:
        plan = self._plan(lease)
        index = sandbox.adopt(plan, self._links, links)
        if index and not plan.bridge:
            self._keep_route(plan.target, Cable(plan.link, index))
        return index > 0

    def _keep_addresses(self, node_range: IPv4Network) -> None:
        if cables := {cable.index for cable in self._routes.values() if cable.link}:
            device.keep_only(self._ns, self._links, gateway_interface(self._attach, node_range), cables)

    def _keep_route(self, target: IPv4Network, cable: Cable) -> None:
        """Replaces the table: the loop reads it in another thread."""
        self._routes = {**self._routes, target: cable}

    def _forget_route(self, target: IPv4Network | None) -> None:
        self._routes = {known: cable for known, cable in self._routes.items() if known != target}

    def _drop_orphans(self) -> None:
        """Sandboxes on our ledger without a lease (the file was lost): their addresses will be given again."""
        leased = {lease.netns for lease in self._leases.all()}
        for entry in self._ledger.entries():
            ours = entry.kind is EntryKind.NAMESPACE and entry.detail.startswith(sandbox.LABEL)
            if ours and entry.name not in leased:
                log.warning("%s: sandbox without an address on record, removed", entry.name)
                netns.delete(entry.name, self._ledger)

    def _add(self, pod: PodRef, ports: tuple[PortMapping, ...]) -> Sandbox:
        if self._range is None:
            raise NetworkNotReady(f"{self._ns.name or 'node'}: the node has no pod range yet")
        known = self._leases.get(pod.uid)
        if known is not None:
            if self._adopt(known, rtnl_read.links(self._ns)):
                return self._sandbox(known)
            self._remove(known)
        lease = self._leases.take(self._range, pod, sandbox_name(self._cluster, pod), ports)
        plan = self._plan(lease)
        try:
            index = sandbox.create(plan, self._links, self._ledger, f"{pod} {pod.uid}")
        except BaseException:
            self._leases.release(pod.uid)
            raise
        if not plan.bridge:
            self._keep_route(plan.target, Cable(plan.link, index))
        log.info("%s: sandbox %s with %s", pod, lease.netns, lease.address)
        return self._sandbox(lease)

    def _remove(self, lease: Lease) -> None:
        plan = self._plan(lease)
        self._forget_route(plan.target)
        sandbox.destroy(plan, self._links, self._ledger)
        self._leases.release(lease.uid)

    def _remove_of(self, uid: str) -> None:
        lease = self._leases.get(uid)
        if lease is not None:
            self._remove(lease)

    def _forwarded(self, without: str = "") -> Sequence[Forwarded]:
        """The pods with ports of the node, but for one."""
        return forwarded(
            self._attach, self._range, [lease for lease in self._leases.all() if lease.uid != without]
        )

    def _standing(self) -> dict[str, Sandbox]:
        return {lease.uid: self._sandbox(lease) for lease in self._leases.all() if netns.exists(lease.netns)}

    async def _cut_off(self, lease: Lease) -> None:
        """Delete the cable of a sandbox that a forgotten process keeps alive: its address will be given
        again.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._closing.wait()
        async with self._lock:
            if self._links.link_index(lease.link) is not None:
                if not self._closing.is_set():
                    log.warning("%s: a process keeps %s alive; its link is cut", lease.pod, lease.netns)
                await asyncio.to_thread(
                    self._links.apply, rtnl.link_delete(lease.link).allowing(errno.ENODEV)
                )

    def _plan(self, lease: Lease) -> sandbox.Plan:
        node_range = self._range or IPv4Network((lease.address, 24), strict=False)
        address = pod_interface(self._attach, node_range, lease.address)
        way = gateway_interface(self._attach, node_range)
        return sandbox.Plan(lease.netns, lease.link, address, way, self._bridge, self.mtu)

    def _sandbox(self, lease: Lease) -> Sandbox:
        return Sandbox(lease.netns, (str(lease.address),), self.mtu, lease.link)


async def _uncancelled(work: Callable[[], _T]) -> _T:
    """Run `work` in a thread and wait for its end also when cancelled: half done kernel work must not go
    unwatched.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
