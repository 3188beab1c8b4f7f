"""Builds the emulated hardware: the switch, the machines' namespaces, their cables, and the one cable to the
host.

Called by the supervisor at `netkit up`, and again after its restart: what stands is adopted, what is missing
is made, what differs from the spec is set right. Changes of the machine's own network: the one veth
`host_link` with its address (and the connected route that comes with it), nothing else. Removal is
`kernel.teardown`'s business.

Packets of machines cross br0 as on a dumb switch: bridge-nf-call is off there, or they would run through the
switch's own iptables and conntrack, which no real switch has.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType
from typing import Final

from netkit.fabric.host import networks_in_use
from netkit.fabric.spec import (
    BRIDGE,
    HOST_PORT,
    SWITCH,
    FabricSpec,
    MachineSpec,
    namespace_name,
    port_name,
)
from netkit.kernel import netns, rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Entry, EntryKind, Ledger
from netkit.kernel.netns import HOST, Namespace
from netkit.kernel.rtnl import Message, Rtnl

log = logging.getLogger(__name__)

UPLINK: Final = "eth0"
_DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")
_AT_BIRTH: Final = {
    # Links are made after this, so that none gets an IPv6 address or sends router solicitations.
    "net.ipv6.conf.default.disable_ipv6": "1",
    # A new namespace copies these from the machine, whose values are not ours to rely on.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.ip_forward": "0",
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
            bridge = _bridge(port_side, spec, fresh=fresh)
            _host_link(port_side, switch, bridge, spec, ledger)
            for machine in spec.machines:
                name = namespace_name(spec.cluster, machine.name)
                ns, fresh = _namespace(name, ledger, opened)
                machines[machine.name] = _plug_in(port_side, bridge, ns, machine, spec, fresh=fresh)
    except BaseException:
        for ns in opened:
            ns.close()
        raise
    took = (time.perf_counter() - began) * 1000
    log.info("%s: switch and %d machines on %s in %.1f ms", spec.cluster, len(machines), spec.segment, took)
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


def _bridge(switch: Rtnl, spec: FabricSpec, *, fresh: bool) -> int:
    """Index of the switch's bridge, made when missing."""
    index = None if fresh else switch.link_index(BRIDGE)
    if index is None:
        switch.apply(rtnl.link_up("lo"), rtnl.bridge(BRIDGE, mtu=spec.mtu))
        index = switch.link_index(BRIDGE)
        assert index is not None
    else:
        switch.apply(rtnl.link_up(index, mtu=spec.mtu))
    return index


def _host_link(switch_side: Rtnl, switch: Namespace, bridge: int, spec: FabricSpec, ledger: Ledger) -> None:
    """The one cable between the machine's own network and the switch."""
    entry = Entry(EntryKind.LINK, spec.host_link)
    ours = ledger.holds(*entry.key)
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
                rtnl.veth(spec.host_link, HOST_PORT, switch, mac=mac, mtu=spec.mtu, up=False),
                rtnl.no_ipv6_addresses(spec.host_link),
            )
            index = host.link_index(spec.host_link)
            assert index is not None
        else:
            host.apply(*_stale_addresses(HOST, index, spec.host_address))
        host.apply(rtnl.link_up(index, mtu=spec.mtu), rtnl.address_add(spec.host_address, index))
    switch_side.apply(rtnl.link_master(HOST_PORT, bridge), rtnl.link_up(HOST_PORT, mtu=spec.mtu))


def _refuse_overlap(spec: FabricSpec) -> None:
    """Two clusters that come up at once may have chosen the same segment."""
    clash = [str(network) for network in networks_in_use() if network.overlaps(spec.segment)]
    if clash:
        raise KernelError(
            f"ip address add {spec.host_address} dev {spec.host_link}",
            errno=errno.EADDRINUSE,
            stderr=f"this machine uses {', '.join(sorted(clash))} already",
            hint="choose another segment",
        )


def _plug_in(
    switch: Rtnl, bridge: int, ns: Namespace, machine: MachineSpec, spec: FabricSpec, *, fresh: bool
) -> Machine:
    """Cable between a machine's eth0 and its port; the machine's address and default route."""
    port = port_name(machine.name)
    mac = rtnl.mac_of(machine.address.ip)
    plugged = machine.name not in spec.unplugged
    with Rtnl(ns) as inside:
        uplink = None if fresh else inside.link_index(UPLINK)
        repair: list[Message] = []
        if uplink is None or switch.link_index(port) is None:
            # An end whose other end was in a deleted namespace is on its way out, or goes now.
            for side, name in ((switch, port), (inside, UPLINK)):
                if side.link_index(name) is not None:
                    side.apply(rtnl.link_delete(name).allowing(errno.ENODEV))
            switch.apply(rtnl.veth(port, UPLINK, ns, peer_mac=mac, mtu=spec.mtu, master=bridge, up=plugged))
            uplink = inside.link_index(UPLINK)
            assert uplink is not None
        else:
            set_state = rtnl.link_up(port, mtu=spec.mtu) if plugged else rtnl.link_down(port)
            switch.apply(rtnl.link_master(port, bridge), set_state)
            repair = [rtnl.link_address(uplink, mac), *_stale_addresses(ns, uplink, machine.address)]
        inside.apply(
            rtnl.link_up("lo"),
            *repair,
            rtnl.link_up(uplink, mtu=spec.mtu),
            rtnl.address_add(machine.address, uplink),
            rtnl.route_replace(_DEFAULT_ROUTE, uplink, via=IPv4Address(spec.host_address.ip)),
        )
    return Machine(machine.name, ns, machine.address, mac)


def _stale_addresses(ns: Namespace, index: int, wanted: IPv4Interface) -> list[Message]:
    """Removal of the IPv4 addresses an earlier spec gave to the link, but not of the LoadBalancers' /32."""
    return [
        rtnl.address_delete(entry.address, index)
        for entry in rtnl_read.addresses(ns, index)
        if isinstance(entry.address, IPv4Interface)
        and entry.address != wanted
        and entry.address.network.prefixlen < 32
    ]
