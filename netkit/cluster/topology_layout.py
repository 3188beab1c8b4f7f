"""Gives a topology its addresses, and says which way leads where. Pure.

Addresses that the file leaves open are the segment's next free ones, in the order of the roles: routers and the host
from .1, the control plane from .2, clients from .9, nodes from .11.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.cluster.topology import Interface, Machine, Role, Segment, Topology
from netkit.fabric.spec import (
    FabricSpec,
    InterfaceSpec,
    MachineSpec,
    RouteSpec,
    SegmentSpec,
    host_link_name,
)
from netkit.podnet.router_routes import Router

_FIRST: Final = {Role.ROUTER: 1, Role.HOST: 1, Role.CONTROL_PLANE: 2, Role.CLIENT: 9, Role.NODE: 11}
_EVERYTHING: Final = IPv4Network("0.0.0.0/0")
_FIRST_PRIVATE_ASN: Final = 64512


class NoRoom(ValueError):
    """A range that is too small for what shall be in it."""


@lru_cache(maxsize=8)
def place(topology: Topology, base: IPv4Network) -> Topology:
    """The topology with every subnet, address and AS number filled in; segments without a subnet get a /24 of `base`,
    or all of it if there is one segment only. Raises NoRoom.
    """
    placed = replace(topology, segments=_subnets(topology.segments, base))
    given = {each.address for machine in placed.machines for each in machine.interfaces} - {None}
    taken: set[IPv4Address] = {address for address in given if address is not None}
    asns = {machine.asn for machine in placed.machines}
    machines = []
    for machine in placed.machines:
        interfaces = []
        for each in machine.interfaces:
            address = each.address or _next_free(placed.segment(each.segment), _FIRST[machine.role], taken)
            taken.add(address)
            interfaces.append(replace(each, address=address))
        asn = machine.asn
        if machine.role is Role.ROUTER and not asn:
            asn = next(n for n in range(_FIRST_PRIVATE_ASN, _FIRST_PRIVATE_ASN + 1000) if n not in asns)
            asns.add(asn)
        machines.append(replace(machine, interfaces=tuple(interfaces), asn=asn))
    return replace(placed, machines=tuple(machines))


def with_nodes(topology: Topology, nodes: Mapping[str, IPv4Address]) -> Topology:
    """A placed topology with these nodes, by name and address, instead of its own. One that it does not know is on the
    segment of its address, in the zone that all nodes of that segment are in.
    """
    known = {machine.name: machine for machine in topology.of(Role.NODE)}
    made = [
        _at(known[name], address) if name in known else _newcomer(topology, name, address)
        for name, address in nodes.items()
    ]
    others = [machine for machine in topology.machines if machine.role is not Role.NODE]
    return replace(topology, machines=(*others, *made))


def _at(machine: Machine, address: IPv4Address) -> Machine:
    first, *more = machine.interfaces
    return replace(machine, interfaces=(replace(first, address=address), *more))


def _newcomer(topology: Topology, name: str, address: IPv4Address) -> Machine:
    segment = next(each.name for each in topology.segments if address in subnet(topology, each.name))
    zones = {machine.zone for machine in topology.of(Role.NODE) if machine.interfaces[0].segment == segment}
    zone = zones.pop() if len(zones) == 1 else ""
    return Machine(name, Role.NODE, (Interface(segment, address),), zone)


def needs_base(topology: Topology) -> bool:
    """Whether a range has to be chosen for segments that have none."""
    return any(segment.subnet is None for segment in topology.segments)


def _subnets(segments: tuple[Segment, ...], base: IPv4Network) -> tuple[Segment, ...]:
    if len(segments) == 1:
        return (replace(segments[0], subnet=segments[0].subnet or base),)
    used = [segment.subnet for segment in segments if segment.subnet is not None]
    free = (
        network
        for network in base.subnets(new_prefix=max(24, base.prefixlen))
        if network.network_address != base.network_address and not any(network.overlaps(n) for n in used)
    )
    placed = []
    for segment in segments:
        subnet = segment.subnet or next(free, None)
        if subnet is None:
            raise NoRoom(f"{base} has no room for a /24 for segment {segment.name}")
        placed.append(replace(segment, subnet=subnet))
    return tuple(placed)


def _next_free(segment: Segment, first: int, taken: set[IPv4Address]) -> IPv4Address:
    network = segment.subnet
    assert network is not None
    last = network.num_addresses - 2
    for number in (*range(first, last + 1), *range(1, min(first, last + 1))):
        if network[number] not in taken:
            return network[number]
    raise NoRoom(f"{network} of segment {segment.name} has no room for all its machines")


def subnet(topology: Topology, name: str) -> IPv4Network:
    """The segment's range, of a placed topology."""
    found = topology.segment(name).subnet
    assert found is not None
    return found


def address_of(machine: Machine) -> IPv4Address:
    """What the machine is known by: its first interface's address."""
    found = machine.interfaces[0].address
    assert found is not None
    return found


def routers_on(topology: Topology, segment: str) -> list[tuple[Machine, IPv4Address]]:
    """The routers of a segment and their addresses on it."""
    return [
        (router, each.address)
        for router in topology.of(Role.ROUTER)
        for each in router.interfaces
        if each.segment == segment and each.address is not None
    ]


def gateway(topology: Topology, machine: Machine) -> IPv4Address | None:
    """The router that a machine sends to what is not on its segment, None where there is none."""
    return next((address for _, address in routers_on(topology, machine.interfaces[0].segment)), None)


def ways(topology: Topology, router: Machine) -> dict[str, tuple[IPv4Address, ...]]:
    """For every segment the router is not on: the next routers on the shortest ways to it."""
    return {
        segment.name: tuple(address for _, address in _next(topology, router, segment.name))
        for segment in topology.segments
        if not _is_on(router, segment.name)
    }


def router_ways(topology: Topology, router: Machine) -> Router:
    """The router as routes see it: of ways of equal length the first one."""
    return Router(
        router.name,
        tuple(subnet(topology, each.segment) for each in router.interfaces),
        {subnet(topology, name): vias[0] for name, vias in ways(topology, router).items() if vias},
    )


def _next(topology: Topology, router: Machine, target: str) -> list[tuple[Machine, IPv4Address]]:
    far = _distances(topology, target)
    return [
        (other, address)
        for each in router.interfaces
        for other, address in routers_on(topology, each.segment)
        if other.name in far and router.name in far and far[other.name] == far[router.name] - 1
    ]


def _distances(topology: Topology, target: str) -> Mapping[str, int]:
    """How many routers are between each router and the segment; those that are not joined to it are left out."""
    far = {router.name: 0 for router, _ in routers_on(topology, target)}
    frontier = list(far)
    while frontier:
        beyond = []
        for name in frontier:
            for each in topology.machine(name).interfaces:
                for other, _ in routers_on(topology, each.segment):
                    if other.name not in far:
                        far[other.name] = far[name] + 1
                        beyond.append(other.name)
        frontier = beyond
    return far


def path_mtu(topology: Topology, node: Machine) -> int:
    """The largest packet, in bytes, that gets from the node to every other node, and from there to it."""
    own = _mtu(topology, node.interfaces[0])
    others = [other for other in topology.of(Role.NODE) if other.name != node.name]
    return min((_mtu_between(topology, node, other) for other in others), default=own)


def _mtu_between(topology: Topology, one: Machine, other: Machine) -> int:
    ends = min(_mtu(topology, one.interfaces[0]), _mtu(topology, other.interfaces[0]))
    start, target = one.interfaces[0].segment, other.interfaces[0].segment
    if start == target:
        return ends
    return min(
        [ends, *(_mtu_onward(topology, router, start, target) for router, _ in routers_on(topology, start))]
    )


def _mtu_onward(topology: Topology, router: Machine, came: str, target: str) -> int:
    """The smallest MTU of all shortest ways from a router, which packets reach through the segment `came`."""
    mtu = _mtu_on(topology, router, came)
    if _is_on(router, target):
        return min(mtu, _mtu_on(topology, router, target))
    for other, address in _next(topology, router, target):
        shared = next(s.name for s in topology.segments if s.subnet is not None and address in s.subnet)
        mtu = min(mtu, _mtu_on(topology, router, shared), _mtu_onward(topology, other, shared, target))
    return mtu


def _mtu_on(topology: Topology, machine: Machine, segment: str) -> int:
    return _mtu(topology, next(each for each in machine.interfaces if each.segment == segment))


def _mtu(topology: Topology, interface: Interface) -> int:
    mtu = topology.segment(interface.segment).mtu
    return min(mtu, interface.link.mtu) if interface.link.mtu else mtu


def _is_on(machine: Machine, segment: str) -> bool:
    return any(each.segment == segment for each in machine.interfaces)


def fabric(topology: Topology, cluster: str, *, learned: bool = False) -> FabricSpec:
    """The hardware of a placed topology. `learned`: routers learn from each other which way leads where, so they get
    no routes here.
    """
    host = topology.of(Role.HOST)[0]
    return FabricSpec(
        cluster=cluster,
        segments=tuple(SegmentSpec(s.name, subnet(topology, s.name), s.mtu) for s in topology.segments),
        machines=tuple(
            MachineSpec(
                machine.name,
                tuple(_interface(topology, each) for each in machine.interfaces),
                _routes(topology, machine, learned),
                forwards=machine.role is Role.ROUTER,
            )
            for machine in _in_order(topology)
        ),
        host=_interface(topology, host.interfaces[0]),
        host_link=host_link_name(cluster),
        host_routes=_host_routes(topology, host),
    )


def _in_order(topology: Topology) -> Iterable[Machine]:
    return (machine for machine in topology.machines if machine.role is not Role.HOST)


def _interface(topology: Topology, interface: Interface) -> InterfaceSpec:
    network = subnet(topology, interface.segment)
    assert interface.address is not None
    return InterfaceSpec(
        interface.segment, IPv4Interface((interface.address, network.prefixlen)), interface.link
    )


def _routes(topology: Topology, machine: Machine, learned: bool) -> tuple[RouteSpec, ...]:
    if machine.role is Role.ROUTER:
        if learned:
            return ()
        return tuple(
            RouteSpec(subnet(topology, name), vias[0])
            for name, vias in ways(topology, machine).items()
            if vias
        )
    via = gateway(topology, machine)
    if via is None:
        # Where there is no router, the host is what a router would be: the first address of the segment.
        host = topology.of(Role.HOST)[0]
        same = host.interfaces[0].segment == machine.interfaces[0].segment
        via = address_of(host) if same else None
    return (RouteSpec(_EVERYTHING, via),) if via is not None else ()


def _host_routes(topology: Topology, host: Machine) -> tuple[RouteSpec, ...]:
    """The host reaches the other segments through its router: routes of its one link, to the cluster's ranges only."""
    via = gateway(topology, host)
    if via is None:
        return ()
    own = host.interfaces[0].segment
    return tuple(
        RouteSpec(subnet(topology, segment.name), via) for segment in topology.segments if segment.name != own
    )
