"""The network of a table: nodes, their pods, and the machine outside, in namespaces that go with it.

One node has rules at a time. Everybody's packets for Services are led to it, and so is all that the pods of other nodes
send: an answer to a connection that kept its source would otherwise not come back through the node that translated.

The machine outside is the client that is no node and no pod. It is also the nodes' way out and takes every address for
its own: a packet to a Service that a node leaves alone ends there and is answered by a RST, so that "nothing happened
to it" is something that can be seen. Pods have a /32 (/128) and a link of their own, or hang on the bridge `cni0` of
their node; neighbours are permanent, so that no packet waits for a resolution.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from itertools import chain, cycle
from pathlib import Path

from netkit.kernel import netns, rtnl
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.proxy.services import Protocol
from rows import links
from rows.format import Address, NodePlan, Plan, PodPlan

OUTSIDE = "outside"
CROWD = (ip_network("198.18.0.0/24"), ip_network("fd00:198:18::/120"))
"""Further addresses of the machine outside, for tests that need many clients."""

_FROM_PODS = 100
_GATEWAYS = (ip_address("169.254.1.1"), ip_address("fe80::1"))
_EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_SETTINGS = {
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/rp_filter": 0,
    # Refusals must come however many there are. The masks say which kinds are limited: none, one that nobody sends.
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratelimit": 0,
    "net/ipv6/icmp/ratemask": 200,
    # What the kernel takes for itself must not be what a test asks for.
    "net/ipv4/ip_local_port_range": "61000 65000",
}
_NODE_SETTINGS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/bridge/bridge-nf-call-iptables": 1,
    "net/bridge/bridge-nf-call-ip6tables": 1,
}
_OUTSIDE_SETTINGS = {
    "net/ipv4/conf/all/accept_local": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/all/arp_ignore": 1,
    "net/ipv4/conf/all/route_localnet": 1,
    "net/ipv6/ip_nonlocal_bind": 1,
}
_serial = iter(range(1_000_000))


class World:
    """The network. Use `World.built` as a context manager."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.prefix = f"nkrows{os.getpid()}x{next(_serial)}"
        self.ledger = Ledger(directory, "rows")
        self.machines: dict[str, Namespace] = {}
        self._netlink: dict[str, Rtnl] = {}
        self._macs: dict[str, str] = {}
        self._uplinks: dict[str, int] = {}
        self._count = 0
        self._ports: dict[tuple[str, int, Protocol], Iterator[int]] = {}
        self.services_at = ""

    def lock_file(self, node: str) -> Path:
        """Where iptables of a node take their lock: not the machine's, which others may hold."""
        return self.directory / f"{node}.lock"

    @classmethod
    @contextlib.contextmanager
    def built(cls, plan: Plan, directory: Path) -> Iterator[World]:
        """Build the network, take it down again, and check that nothing is left of it."""
        world = cls(plan, directory)
        try:
            world._build()
            yield world
        finally:
            for netlink in world._netlink.values():
                netlink.close()
            failed = netns.delete_all([space.name for space in world.machines.values()])
            for space in world.machines.values():
                netns.delete(space.name, world.ledger)
                space.close()
            left = [name for name in netns.names() if name.startswith(f"{world.prefix}-")]
            assert not left, f"namespaces left behind: {left} {failed}"

    def node(self, name: str) -> NodePlan:
        """The plan of one node."""
        return next(node for node in self.plan.nodes if node.name == name)

    def source_port(self, machine: str, version: int, protocol: Protocol) -> int:
        """A port for a client that was not used for long, whoever asked, and that is no node port."""
        ports = self._ports.setdefault(
            (machine, version, protocol), cycle(chain(range(10000, 30000), range(33000, 61000)))
        )
        return next(ports)

    def serve_at(self, node_name: str) -> None:
        """Lead everybody's packets for Services to this node; there they meet its rules, or leave it by its way out."""
        if self.services_at == node_name:
            return
        node, mac = self.node(node_name), self._macs[node_name]
        for machine, index in self._uplinks.items():
            messages = []
            for address in self.plan.service_addresses:
                if machine == node_name:
                    messages.append(links.no_route(address, index))
                else:
                    # As if the address were on the segment, at that node: no gateway that the kernel could refuse.
                    messages.append(links.route(address, index))
                    messages.append(links.neighbour(address, mac, index))
            if machine == OUTSIDE:
                for address in self.plan.loopback:
                    messages.append(links.route(address, index))
                    messages.append(links.neighbour(address, mac, index))
            for everything in _EVERYTHING if machine != OUTSIDE else ():
                gateway = _of_version(node.addresses, everything.version)
                if machine == node_name:
                    messages.append(links.no_route(everything, index, _FROM_PODS))
                elif gateway is not None:
                    messages.append(links.route(everything, index, via=gateway, table=_FROM_PODS))
            self._netlink[machine].apply(*messages)
        self.services_at = node_name

    def settle(self, node_name: str) -> None:
        """Undo what rules of before may have set in the node's kernel, and that no cleanup takes back."""
        with netns.entered(self.machines[node_name]):
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("0")

    def _build(self) -> None:
        self._machine(
            "switch", {"net/bridge/bridge-nf-call-iptables": 0, "net/bridge/bridge-nf-call-ip6tables": 0}
        )
        self._netlink["switch"].apply(rtnl.bridge("br0"))
        for node in self.plan.nodes:
            self._machine(node.name, _NODE_SETTINGS)
            self._uplink(node.name, node.addresses)
            self._netlink[node.name].apply(
                *(links.address(address, 1, chosen=False) for address in node.owned)
            )
        self._machine(OUTSIDE, _OUTSIDE_SETTINGS)
        self._uplink(OUTSIDE, self.plan.outside)
        for node in self.plan.nodes:
            self._pods(node, [pod for pod in self.plan.pods if pod.node == node.name])
        self._routes()

    def _machine(self, name: str, settings: Mapping[str, object]) -> Namespace:
        label = name.replace("/", "-").replace(" ", "-").replace(":", "-")
        space = netns.create(f"{self.prefix}-{label}", self.ledger)
        self.machines[name] = space
        with netns.entered(space):
            for key, value in {**_SETTINGS, **settings}.items():
                path = Path("/proc/sys") / key
                if path.exists():
                    path.write_text(str(value))
        self._netlink[name] = Rtnl(space)
        self._netlink[name].apply(rtnl.link_up("lo"))
        return space

    def _mac(self) -> str:
        self._count += 1
        return f"02:00:00:00:{self._count >> 8:02x}:{self._count & 255:02x}"

    def _uplink(self, name: str, addresses: tuple[Address, ...]) -> None:
        switch, machine = self._netlink["switch"], self._netlink[name]
        bridge = switch.link_index("br0")
        assert bridge is not None
        self._macs[name] = self._mac()
        port = f"port{len(self._uplinks)}"
        switch.apply(rtnl.veth(port, "eth0", self.machines[name], peer_mac=self._macs[name], master=bridge))
        machine.apply(rtnl.link_up("eth0"))
        index = machine.link_index("eth0")
        assert index is not None
        self._uplinks[name] = index
        machine.apply(*(links.address(address, index) for address in addresses))

    def _pods(self, node: NodePlan, pods: list[PodPlan]) -> None:
        """The pods of one node, each on a link of its own or all on a bridge."""
        netlink = self._netlink[node.name]
        bridge_mac = self._mac()
        master = 0
        if node.bridge:
            netlink.apply(rtnl.bridge("cni0", mac=bridge_mac))
            master = netlink.link_index("cni0") or 0
        macs: dict[str, tuple[str, str]] = {}
        for number, pod in enumerate(pods):
            space = self._machine(pod.name, {})
            macs[pod.name] = mac, peer_mac = self._mac(), self._mac()
            netlink.apply(
                rtnl.veth(f"veth{number}", "eth0", space, mac=mac, peer_mac=peer_mac, master=master)
            )
            if node.bridge:
                netlink.apply(rtnl.hairpin(f"veth{number}"))
            gateway_mac = bridge_mac if node.bridge else mac
            self._pod(pod, gateway_mac)
            index = master or netlink.link_index(f"veth{number}")
            assert index
            netlink.apply(
                *(links.address(address, index) for address in node.gateways),
                *(links.route(address, index) for address in pod.addresses),
                *(links.neighbour(address, peer_mac, index) for address in pod.addresses),
            )

    def _pod(self, pod: PodPlan, gateway_mac: str) -> None:
        netlink = self._netlink[pod.name]
        netlink.apply(rtnl.link_up("eth0"))
        index = netlink.link_index("eth0")
        assert index is not None
        versions = {address.version for address in pod.addresses}
        netlink.apply(*(links.address(address, index) for address in pod.addresses))
        for gateway, everything in zip(_GATEWAYS, _EVERYTHING, strict=True):
            if gateway.version in versions:
                netlink.apply(
                    links.neighbour(gateway, gateway_mac, index), links.route(everything, index, via=gateway)
                )

    def _routes(self) -> None:
        """Between the machines of the segment, to pods of other nodes, and out."""
        owners = {node.name: node.addresses for node in self.plan.nodes} | {OUTSIDE: self.plan.outside}
        for name, own in owners.items():
            index = self._uplinks[name]
            messages = []
            for other, addresses in owners.items():
                if other == name:
                    continue
                for address in addresses:
                    source = _of_version(own, address.version)
                    messages.append(links.route(address, index, source=source))
                    messages.append(links.neighbour(address, self._macs[other], index))
            for pod in self.plan.pods:
                if pod.node == name:
                    continue
                for address in pod.addresses:
                    via = _of_version(owners[pod.node], address.version)
                    source = _of_version(own, address.version)
                    if via is not None:
                        messages.append(links.route(address, index, via=via, source=source))
            for everything in _EVERYTHING:
                if name != OUTSIDE:
                    version = everything.version
                    messages.append(links.rule(version, 10, links.MAIN, interface="lo"))
                    messages.append(links.rule(version, 11, links.MAIN, interface="eth0"))
                    messages.append(links.rule(version, 12, _FROM_PODS))
                if name == OUTSIDE:
                    # What it sends itself follows the routes below, whatever arrives is for itself.
                    messages.append(links.local_route(everything))
                    messages.append(links.rule(everything.version, 10, links.MAIN, interface="lo"))
                    messages.append(links.rule(everything.version, 20, links.LOCAL))
                    messages.append(links.no_rule(everything.version, 0, links.LOCAL))
                elif (gateway := _of_version(self.plan.outside, everything.version)) is not None:
                    source = _of_version(own, everything.version)
                    messages.append(links.route(everything, index, via=gateway, source=source))
            self._netlink[name].apply(*messages)


def _of_version(addresses: tuple[Address, ...], version: int) -> Address | None:
    return next((address for address in addresses if address.version == version), None)
