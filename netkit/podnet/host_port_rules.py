"""Keeps the rules of host ports in a node's kernel. Called by `network` when a pod with ports comes or goes.

Nothing is in the kernel as long as no pod has such ports. The programs are iptables', in the variant that the node
uses: on a kernel without the legacy tables that is iptables-nft, and the same rules stand in nf_tables.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Sequence

from netkit.kernel import sysctl
from netkit.kernel.conntrack import Conntrack
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables, chains_in
from netkit.kernel.netns import Namespace
from netkit.podnet import host_port
from netkit.podnet.device import BRIDGE
from netkit.podnet.host_port import Forwarded

log = logging.getLogger(__name__)


class HostPortRules:
    """The rules of one node. `iptables` must be the node's one driver."""

    def __init__(self, ns: Namespace, iptables: IPTables) -> None:
        self._ns = ns
        self._iptables = iptables
        self._applied: tuple[Forwarded, ...] | None = None

    async def apply(self, pods: Sequence[Forwarded], *, afresh: bool = False) -> None:
        """Make these pods' ports, and no others, lead to them. Raises KernelError.

        `afresh`: somebody may have changed what stands.
        """
        wanted = tuple(pods)
        if wanted == self._applied and not afresh:
            return
        before, self._applied = self._applied, None
        standing = chains_in(await self._iptables.save("nat"), "nat")
        ours = [chain for chain in standing if host_port.is_ours(chain)]
        if wanted or ours:
            await self._write(wanted, ours)
        await asyncio.to_thread(self._forget_flows, _changed(before or (), wanted))
        self._applied = wanted

    async def _write(self, wanted: tuple[Forwarded, ...], ours: Sequence[str]) -> None:
        if not wanted:
            for chain, rule, _ in host_port.JUMPS:
                if rule[-1] in ours:
                    await self._iptables.delete_rule("nat", chain, rule)
        await self._iptables.restore(host_port.document(wanted, ours))
        if wanted:
            for chain, rule, prepend in host_port.JUMPS:
                await self._iptables.ensure_rule("nat", chain, rule, prepend=prepend)
        await asyncio.to_thread(route_localhost, self._ns, frozenset(pod.device for pod in wanted))

    def _forget_flows(self, ports: frozenset[int]) -> None:
        """Drop what is remembered of datagrams to these ports: flows without end would miss the rules for ever."""
        if not ports:
            return
        table = Conntrack(self._ns)
        try:
            entries = table.dump(4, socket.IPPROTO_UDP)
            table.delete([entry for entry in entries if entry.original.destination_port in ports])
        except KernelError as error:
            log.warning("%s: flows to host ports may go on as before: %s", self._ns.name or "node", error)


def route_localhost(ns: Namespace, devices: frozenset[str]) -> None:
    """Let packets from 127.0.0.1 leave by these links, once they are translated, and no longer by cni0 when it is not
    among them (cables end with their pods). Raises KernelError.
    """
    sysctl.write_all(ns, {setting(device): 1 for device in devices})
    if BRIDGE not in devices and sysctl.present(ns, setting(BRIDGE)):
        sysctl.write(ns, setting(BRIDGE), 0)


def setting(device: str) -> str:
    """The kernel setting by which a link takes part in host ports of 127.0.0.1."""
    return f"net/ipv4/conf/{device}/route_localnet"


def _changed(before: Iterable[Forwarded], after: Iterable[Forwarded]) -> frozenset[int]:
    """UDP ports whose pod came, went or changed."""
    different = set(before) ^ set(after)
    return frozenset(port for pod in different for port in pod.udp_ports)
