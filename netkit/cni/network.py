"""`ExternalNetwork`: pods' sandboxes by plug-ins of others - what a container runtime is to a kubelet.

Takes the place of `netkit.podnet.network.PodNetwork` in the mode `external`. It makes the pod's namespace and has the
list's plug-ins do the rest, in the node's namespace; what they gave is kept in a file per pod (`cache`). Kernel work
and programs run in threads, some pods at a time, and one call at a time for each pod.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from netkit.cni.cache import Cache, Cached
from netkit.cni.chain import Runtime
from netkit.cni.conflist import Conflist, capability_args, for_node, unheeded
from netkit.cni.errors import CniError, PluginFailed
from netkit.cni.request import Attachment
from netkit.cni.result import parse
from netkit.kernel import netns, rtnl, rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import EntryKind, Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.netns_directory import NETNS_DIRECTORY
from netkit.kernel.rtnl import Rtnl
from netkit.podnet.attach import Cable
from netkit.podnet.network import NetworkNotReady
from netkit.podnet.pod import NO_WISHES, PodRef, RuntimeConfig, Sandbox, SandboxFailed, sandbox_name
from netkit.podnet.sandbox import LABEL, UPLINK

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
_AT_BIRTH: Final = {"net.ipv4.ip_unprivileged_port_start": "0"}
_T = TypeVar("_T")


def cache_directory(state_dir: Path) -> Path:
    """Where a node keeps what plug-ins gave."""
    return state_dir / "cni" / "results"


def data_directory(state_dir: Path) -> Path:
    """Where a node's plug-ins for addresses keep theirs, unless they are told otherwise."""
    return state_dir / "cni" / "networks"


class ExternalNetwork:
    """The pods of one node. `path` are the directories of plug-ins, `lock_file` that of the node's iptables."""

    def __init__(
        self, cluster: str, node_ns: Namespace, node_address: IPv4Address, state_dir: Path, ledger: Ledger,
        conflist: Conflist, path: tuple[str, ...], lock_file: Path,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._ns = node_ns
        self._node_address = node_address
        self._ledger = ledger
        self._state_dir = state_dir
        self._list = conflist
        self._runtime = Runtime(node_ns, path, {"XTABLES_LOCKFILE": str(lock_file)})
        self._cache = Cache(cache_directory(state_dir))
        self._known: dict[str, Cached] = {}
        self._broken: set[str] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._range: IPv4Network | None = None
        self._mtu = 1500

    @property
    def mtu(self) -> int:
        """The underlay's MTU, in bytes: what pods' links have is the plug-ins' affair."""
        return self._mtu

    @property
    def overhead(self) -> int:
        return 0

    @property
    def routes(self) -> Mapping[IPv4Network, Cable]:
        """None that this node has to keep."""
        return {}

    async def configure(self, node_range: IPv4Network, underlay_mtu: int, overhead: int = 0) -> None:
        """Adopt what stands; what is broken, or was never finished, is given back to the plug-ins."""
        self._mtu = underlay_mtu
        if self._range is None:
            self._known = {cached.pod.uid: cached for cached in await asyncio.to_thread(self._cache.all)}
        self._range = node_range
        broken = [
            cached
            for cached in self._known.values()
            if cached.result is None or not netns.exists(cached.netns)
        ]
        for cached in broken:
            log.warning("%s: sandbox %s is broken, removed", cached.pod, cached.netns)
            self._broken.add(cached.pod.uid)
        await self.refresh()
        await asyncio.to_thread(self._drop_orphans)
        await asyncio.to_thread(self._collect, node_range)
        log.info("%s: pod range %s, %d sandboxes adopted", self._ns.name, node_range, len(self._known))

    async def refresh(self) -> None:
        """Try again to give back what is broken. What stands, others may have wanted to change."""
        for uid in tuple(self._broken):
            try:
                await self.remove(uid)
            except (SandboxFailed, KernelError) as error:
                log.warning("pod %s: %s; again with the next look", uid, error)

    async def set_overhead(self, overhead: int) -> None:
        """No mode that goes with this takes anything."""

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox:
        """The pod's sandbox, made unless it stands.

        Raises NetworkNotReady, SandboxFailed with the plug-in's words, KernelError; what had been made by then is given
        back.
        """
        if host_network:
            return Sandbox(self._ns.name, (str(self._node_address),), self._mtu)
        if self._range is None:
            raise NetworkNotReady(f"{self._ns.name}: the node has no pod range yet")
        async with self._turn(pod.uid):
            known = self._known.get(pod.uid)
            if known is not None and known.result is not None and netns.exists(known.netns):
                return await asyncio.to_thread(self._sandbox, known)
            if known is not None:
                await self._remove(known)
            return await self._add(pod, config, self._range)

    async def remove(self, uid: str) -> None:
        """Have the plug-ins take the pod off, then remove its namespace; fine when there is none.

        Raises SandboxFailed and KernelError: then it is to be tried again.
        """
        async with self._turn(uid):
            known = self._known.get(uid)
            if known is not None:
                await self._remove(known)

    async def list(self) -> dict[str, Sandbox]:
        """The sandboxes that stand, by pod uid; also those an earlier process made."""
        standing = [cached for cached in self._known.values() if cached.result and netns.exists(cached.netns)]
        return {cached.pod.uid: await asyncio.to_thread(self._sandbox, cached) for cached in standing}

    async def close(self) -> None:
        """Sandboxes stay."""

    def _turn(self, uid: str) -> _Turn:
        return _Turn(self._locks.setdefault(uid, asyncio.Lock()), self._turns)

    async def _add(self, pod: PodRef, config: RuntimeConfig, node_range: IPv4Network) -> Sandbox:
        container = secrets.token_hex(32)
        capabilities = capability_args(config)
        if ignored := unheeded(self._list, capabilities):
            log.warning("%s: no plug-in of %s heeds %s", pod, self._list.name, " and ".join(ignored))
        arguments = (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name};"
            f"K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={pod.uid}"
        )
        cached = Cached(
            pod, sandbox_name(self._cluster, pod), Attachment(container, UPLINK),
            for_node(self._list, node_range, data_directory(self._state_dir)), arguments, capabilities,
        )  # fmt: skip
        self._known[pod.uid] = cached
        try:
            made = await _to_its_end(lambda: self._make(cached))
        except (CniError, KernelError) as error:
            with suppress(SandboxFailed, KernelError):
                await self._remove(cached)
            if isinstance(error, KernelError):
                raise
            raise SandboxFailed(f'failed to setup network for sandbox "{container}": {error}') from error
        self._known[pod.uid] = made
        sandbox = await asyncio.to_thread(self._sandbox, made)
        log.info("%s: sandbox %s with %s", pod, made.netns, ", ".join(sandbox.addresses))
        return sandbox

    def _make(self, cached: Cached) -> Cached:
        self._cache.keep(cached)
        with netns.create(
            cached.netns, self._ledger, _AT_BIRTH, wanted_by=f"{LABEL}{cached.pod} {cached.pod.uid}"
        ) as ns:
            with Rtnl(ns) as inside:
                inside.apply(rtnl.link_up("lo"))
            result = self._runtime.add(cached, ns.path)
            if not parse(result).addresses_in(ns.path, UPLINK):
                raise CniError(100, f"the plug-ins of {cached.conflist.name} gave {UPLINK} no address")
        made = replace(cached, result=result)
        self._cache.keep(made)
        return made

    async def _remove(self, cached: Cached) -> None:
        try:
            await _to_its_end(lambda: self._unmake(cached))
        except PluginFailed as error:
            raise SandboxFailed(
                f'failed to destroy network for sandbox "{cached.attachment.container}": {error}'
            ) from error
        self._known.pop(cached.pod.uid, None)
        self._broken.discard(cached.pod.uid)

    def _unmake(self, cached: Cached) -> None:
        there = netns.exists(cached.netns)
        self._runtime.delete(cached, f"{NETNS_DIRECTORY}/{cached.netns}" if there else "")
        netns.delete(cached.netns, self._ledger)
        self._cache.forget(cached)

    def _drop_orphans(self) -> None:
        """Sandboxes on our ledger that no file tells of."""
        known = {cached.netns for cached in self._known.values()}
        for entry in self._ledger.entries():
            ours = entry.kind is EntryKind.NAMESPACE and entry.detail.startswith(LABEL)
            if ours and entry.name not in known:
                log.warning("%s: sandbox without a result on record, removed", entry.name)
                netns.delete(entry.name, self._ledger)

    def _collect(self, node_range: IPv4Network) -> None:
        """Let plug-ins that can (CNI 1.1) give back what no file tells of."""
        conflist = for_node(self._list, node_range, data_directory(self._state_dir))
        try:
            self._runtime.collect(conflist, [cached.attachment for cached in self._known.values()])
        except* PluginFailed as group:
            for error in group.exceptions:
                log.warning("%s: %s", self._ns.name, error)

    def _sandbox(self, cached: Cached) -> Sandbox:
        """As the result says; MTU and cable as the kernel does."""
        path = f"{NETNS_DIRECTORY}/{cached.netns}"
        addresses = tuple(str(ip.address.ip) for ip in parse(cached.result).addresses_in(path, UPLINK))
        mtu, link = self._mtu, ""
        with suppress(KernelError), netns.open_namespace(cached.netns) as ns:
            uplink = rtnl_read.links(ns).get(UPLINK)
            if uplink is not None:
                mtu = uplink.mtu
                outer = rtnl_read.links(self._ns).values() if uplink.peer else ()
                link = next((other.name for other in outer if other.index == uplink.peer), "")
        return Sandbox(cached.netns, addresses, mtu, link)


class _Turn:
    """One call at a time for a pod, and a few at a time for the node."""

    def __init__(self, lock: asyncio.Lock, turns: asyncio.Semaphore) -> None:
        self._lock, self._turns = lock, turns

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        try:
            await self._turns.acquire()
        except BaseException:
            self._lock.release()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._turns.release()
        self._lock.release()


async def _to_its_end(work: Callable[[], _T]) -> _T:
    """Run `work` in a thread and wait for its end also when cancelled: a plug-in half way must not go unwatched."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
