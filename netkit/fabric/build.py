"""Builds the emulated hardware: the switch, the machines' namespaces, their cables, and the one cable to the host.

Called by the supervisor at `netkit up`, and again after its restart: what stands is adopted, what is missing
is made, what differs from the spec is set right. Changes of the machine's own network: the one veth
`host_link` with its address, the connected route that comes with it, and through it the routes to the cluster's other
segments; nothing else. Removal is `kernel.teardown`'s business.

All segments' bridges are in one namespace, the switch. Packets cross them as on a dumb switch: bridge-nf-call is off
there, or they would run through the switch's own iptables and conntrack, which no real switch has.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from types import MappingProxyType
from typing import Final

from netkit.fabric.host import networks_in_use
from netkit.fabric.spec import (
    HOST_PORT,
    SWITCH,
    FabricSpec,
    MachineSpec,
    bridge_name,
    device_name,
    namespace_name,
    port_name,
)
from netkit.kernel import netns, rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Entry, EntryKind, Ledger
from netkit.kernel.netns import HOST, Namespace
from netkit.kernel.rtnl import Message, Rtnl

log = logging.getLogger(__name__)

_AT_BIRTH: Final = {
    # Links are made after this, so that none gets an IPv6 address or sends router solicitations.
    "net.ipv6.conf.default.disable_ipv6": "1",
    # A new namespace copies these from the machine, whose values are not ours to rely on.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.ip_forward": "0",
}
_ROUTER: Final = {
    "net.ipv4.ip_forward": "1",
    # Who asks the router for something on its own segment is not taught otherwise: its routes stay as they were made.
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    # Of several ways of equal cost, all packets of a connection take one.
    "net.ipv4.fib_multipath_hash_policy": "1",
}
_BRIDGE_NF: Final = tuple(f"net.bridge.bridge-nf-call-{family}tables" for family in ("ip", "ip6", "arp"))


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that stands: its open namespace, its address on the segment and its hardware address."""

    name: str
    ns: Namespace
    address: IPv4Interface
    mac: str


@dataclass(frozen=True, slots=True)
class Fabric:
    """The hardware that stands. Closing it closes the handles only; the namespaces stay."""

    spec: FabricSpec
    switch: Namespace
    machines: Mapping[str, Machine] = field(default_factory=dict)

    def close(self) -> None:
        for ns in (self.switch, *(machine.ns for machine in self.machines.values())):
            ns.close()

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def build(spec: FabricSpec, ledger: Ledger) -> Fabric:
    """Make everything in `spec`, or adopt and repair what of it stands; about 2 ms a machine.

    Raises KernelError; what was made until then is on the ledger, for `teardown`. A host link of that name
    which no ledger of this owner names is refused as somebody else's.
    """
    began = time.perf_counter()
    opened: list[Namespace] = []
    try:
        switch, fresh = _namespace(namespace_name(spec.cluster, SWITCH), ledger, opened)
        _still_switch(switch)
        machines: dict[str, Machine] = {}
        with Rtnl(switch) as port_side:
            bridges = _bridges(port_side, spec, fresh=fresh)
            _host_link(port_side, switch, bridges[spec.bridge_of(spec.host)], spec, ledger)
            for machine in spec.machines:
                name = namespace_name(spec.cluster, machine.name)
                ns, fresh = _namespace(name, ledger, opened)
                machines[machine.name] = _plug_in(port_side, bridges, ns, machine, spec, fresh=fresh)
    except BaseException:
        for ns in opened:
            ns.close()
        raise
    took = (time.perf_counter() - began) * 1000
    segments = ", ".join(str(segment.network) for segment in spec.segments)
    log.info("%s: switch and %d machines on %s in %.1f ms", spec.cluster, len(machines), segments, took)
    return Fabric(spec, switch, MappingProxyType(machines))


def _namespace(name: str, ledger: Ledger, opened: list[Namespace]) -> tuple[Namespace, bool]:
    """The namespace, open, and whether it was made just now."""
    try:
        ns = netns.open_namespace(name)
        fresh = False
        if not ledger.holds(EntryKind.NAMESPACE, name):
            ns.close()
            raise KernelError(
                f"ip netns add {name}",
                errno=errno.EEXIST,
                hint="it was not made by this cluster; delete it first",
            )
    except KernelError as error:
        if not error.is_not_found:
            raise
        ns = netns.create(name, ledger, _AT_BIRTH)
        fresh = True
    opened.append(ns)
    return ns, fresh


def _still_switch(switch: Namespace) -> None:
    """Keep bridged frames out of iptables. Without br_netfilter there is nothing to switch off."""
    present = [key for key in _BRIDGE_NF if sysctl.present(switch, key)]
    sysctl.write_all(switch, dict.fromkeys(present, 0))


def _bridges(switch: Rtnl, spec: FabricSpec, *, fresh: bool) -> dict[str, int]:
    """Indexes of the segments' bridges by name, made when missing."""
    found = {}
    if fresh:
        switch.apply(rtnl.link_up("lo"))
    for number, segment in enumerate(spec.segments):
        name = bridge_name(number)
        index = None if fresh else switch.link_index(name)
        if index is None:
            switch.apply(rtnl.bridge(name, mtu=segment.mtu))
            index = switch.link_index(name)
            assert index is not None
        else:
            switch.apply(rtnl.link_up(index, mtu=segment.mtu))
        found[name] = index
    return found


def _host_link(switch_side: Rtnl, switch: Namespace, bridge: int, spec: FabricSpec, ledger: Ledger) -> None:
    """The one cable between the machine's own network and the switch."""
    entry = Entry(EntryKind.LINK, spec.host_link)
    ours = ledger.holds(*entry.key)
    mtu = spec.mtu_of(spec.host)
    with Rtnl(HOST) as host:
        index = host.link_index(spec.host_link)
        if index is not None and not ours:
            raise KernelError(
                f"ip link add {spec.host_link} type veth",
                errno=errno.EEXIST,
                hint="another cluster or program has a link of that name",
            )
        if index is not None and switch_side.link_index(HOST_PORT) is None:
            # Its other end was in a switch that is gone: the kernel is still removing it.
            host.apply(rtnl.link_delete(index).allowing(errno.ENODEV))
            index = None
        if index is None:
            _refuse_overlap(spec)
            ledger.intend(entry)
            mac = rtnl.mac_of(spec.host_address.ip)
            host.apply(
                rtnl.veth(spec.host_link, HOST_PORT, switch, mac=mac, mtu=mtu, up=False),
                rtnl.no_ipv6_addresses(spec.host_link),
            )
            index = host.link_index(spec.host_link)
            assert index is not None
        else:
            host.apply(*_stale_addresses(HOST, index, spec.host_address))
        host.apply(
            rtnl.link_up(index, mtu=mtu),
            rtnl.address_add(spec.host_address, index),
            *(rtnl.route_replace(route.target, index, via=route.via) for route in spec.host_routes),
        )
    switch_side.apply(rtnl.link_master(HOST_PORT, bridge), rtnl.link_up(HOST_PORT, mtu=mtu))


def _refuse_overlap(spec: FabricSpec) -> None:
    """Two clusters that come up at once may have chosen the same segment."""
    used = networks_in_use()
    clash = [str(n) for n in used if any(n.overlaps(segment.network) for segment in spec.segments)]
    if clash:
        raise KernelError(
            f"ip address add {spec.host_address} dev {spec.host_link}",
            errno=errno.EADDRINUSE,
            stderr=f"this machine uses {', '.join(sorted(clash))} already",
            hint="choose another segment",
        )


def _plug_in(
    switch: Rtnl, bridges: Mapping[str, int], ns: Namespace, machine: MachineSpec, spec: FabricSpec, *, fresh: bool
) -> Machine:  # fmt: skip
    """A machine's cables, addresses and routes, and whether it forwards."""
    if machine.forwards:
        sysctl.write_all(ns, _ROUTER)
    with Rtnl(ns) as inside:
        if fresh:
            inside.apply(rtnl.link_up("lo"))
        indexes = [
            _cable(
                switch,
                bridges[spec.bridge_of(interface)],
                ns,
                inside,
                machine,
                number,
                spec.mtu_of(interface),
                plugged=machine.name not in spec.unplugged,
            )
            for number, interface in enumerate(machine.interfaces)
        ]
        inside.apply(
            rtnl.link_up("lo"),
            *(
                rtnl.address_add(interface.address, index)
                for interface, index in zip(machine.interfaces, indexes, strict=True)
            ),
            *(
                rtnl.route_replace(route.target, indexes[machine.toward(route)], via=route.via)
                for route in machine.routes
            ),
        )
    return Machine(machine.name, ns, machine.address, rtnl.mac_of(machine.address.ip))


def _cable(
    switch: Rtnl,
    bridge: int,
    ns: Namespace,
    inside: Rtnl,
    machine: MachineSpec,
    number: int,
    mtu: int,
    *,
    plugged: bool = True,
) -> int:
    """Cable between one of a machine's interfaces and its port, both up if it is plugged: the interface's index."""
    port, device = port_name(machine.name, number), device_name(number)
    address = machine.interfaces[number].address
    mac = rtnl.mac_of(address.ip)
    index = inside.link_index(device)
    if index is None or switch.link_index(port) is None:
        # An end whose other end was in a deleted namespace is on its way out, or goes now.
        for side, name in ((switch, port), (inside, device)):
            if side.link_index(name) is not None:
                side.apply(rtnl.link_delete(name).allowing(errno.ENODEV))
        switch.apply(rtnl.veth(port, device, ns, peer_mac=mac, mtu=mtu, master=bridge, up=plugged))
        index = inside.link_index(device)
        assert index is not None
    else:
        state = rtnl.link_up(port, mtu=mtu) if plugged else rtnl.link_down(port)
        switch.apply(rtnl.link_master(port, bridge), state)
        inside.apply(rtnl.link_address(index, mac), *_stale_addresses(ns, index, address))
    inside.apply(rtnl.link_up(index, mtu=mtu))
    return index


def _stale_addresses(ns: Namespace, index: int, wanted: IPv4Interface) -> list[Message]:
    """Removal of the IPv4 addresses an earlier spec gave to the link, but not of the LoadBalancers' /32."""
    return [
        rtnl.address_delete(entry.address, index)
        for entry in rtnl_read.addresses(ns, index)
        if isinstance(entry.address, IPv4Interface)
        and entry.address != wanted
        and entry.address.network.prefixlen < 32
    ]
