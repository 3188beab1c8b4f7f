"""What is wrong with a topology that has the right form: names, addresses, and whether everything is joined. Pure.

Paths are those of the topology file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import combinations

from netkit.cluster.topology import CONTROL_PLANE, HOST, Interface, Machine, Role, Topology
from netkit.cluster.topology_fields import Fault
from netkit.fabric.spec import HOST_PORT, SWITCH

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_RESERVED = {SWITCH, HOST_PORT, HOST, CONTROL_PLANE}
_LISTS = {Role.ROUTER: "routers", Role.CLIENT: "clients", Role.NODE: "nodes"}
MAX_NODES = 200


def check(topology: Topology) -> list[Fault]:
    """All faults, in the order of the file; none for a topology that can be built."""
    faults = [*_segments(topology), *_zones(topology), *_machines(topology), *_addresses(topology)]
    if len(topology.of(Role.NODE)) > MAX_NODES:
        faults.append(Fault("nodes", f"{len(topology.of(Role.NODE))} are more than {MAX_NODES}"))
    # A graph with holes would only repeat what is said already.
    return faults or list(_joined(topology))


def paths(topology: Topology) -> Iterator[tuple[str, Machine]]:
    """Every machine with its path in the file."""
    seen: Counter[Role] = Counter()
    for machine in topology.machines:
        if machine.role in _LISTS:
            yield f"{_LISTS[machine.role]}[{seen[machine.role]}]", machine
            seen[machine.role] += 1
        else:
            yield ("controlPlane" if machine.role is Role.CONTROL_PLANE else "host"), machine


def _interfaces(topology: Topology) -> Iterator[tuple[str, Machine, Interface]]:
    for path, machine in paths(topology):
        for number, interface in enumerate(machine.interfaces):
            inner = f"{path}.interfaces[{number}]" if machine.role in _LISTS else path
            yield inner, machine, interface


def _segments(topology: Topology) -> Iterator[Fault]:
    yield from _names("segments", [segment.name for segment in topology.segments])
    for number, segment in enumerate(topology.segments):
        subnet = segment.subnet
        if subnet is None:
            continue
        if subnet.prefixlen > 29:
            yield Fault(f"segments[{number}].subnet", f"{subnet} is too small, at least a /29 is needed")
        if (
            subnet.is_loopback
            or subnet.is_multicast
            or subnet.is_link_local
            or not int(subnet.network_address)
        ):
            yield Fault(f"segments[{number}].subnet", f"{subnet} cannot be used for a segment")
    for (_, one), (number, other) in combinations(enumerate(topology.segments), 2):
        if one.subnet and other.subnet and one.subnet.overlaps(other.subnet):
            yield Fault(
                f"segments[{number}].subnet", f"{other.subnet} overlaps {one.subnet} of segment {one.name}"
            )


def _zones(topology: Topology) -> Iterator[Fault]:
    yield from _names("zones", [zone.name for zone in topology.zones])
    for number, zone in enumerate(topology.zones):
        if not _VALUE.fullmatch(zone.region):
            yield Fault(f"zones[{number}].region", f"{zone.region!r} cannot be a label's value")


def _machines(topology: Topology) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    zones = {zone.name for zone in topology.zones}
    segments = {segment.name for segment in topology.segments}
    for path, machine in paths(topology):
        name = machine.name
        if machine.role in _LISTS:
            if not _LABEL.fullmatch(name):
                yield Fault(f"{path}.name", f"{name!r}: lower-case letters, digits and dashes, at most 63")
            elif name in _RESERVED:
                yield Fault(f"{path}.name", f"{name} is a name the cluster uses itself")
            elif name in seen:
                yield Fault(f"{path}.name", f"{name} is the name of {seen[name]} as well")
            seen.setdefault(name, path)
        if machine.zone and machine.zone not in zones:
            yield Fault(f"{path}.zone", f"there is no zone {machine.zone}")
        for key, value in machine.labels:
            if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
                yield Fault(f"{path}.labels.{key}", f"{key}={value} cannot be a label")
        if machine.role is Role.ROUTER and len(machine.interfaces) < 2:
            yield Fault(f"{path}.interfaces", f"router {name} joins nothing: it needs two interfaces")
    for path, machine, interface in _interfaces(topology):
        if interface.segment not in segments:
            known = ", ".join(sorted(segments))
            yield Fault(f"{path}.segment", f"there is no segment {interface.segment!r}; there are: {known}")
        elif [each.segment for each in machine.interfaces].count(interface.segment) > 1:
            yield Fault(f"{path}.segment", f"{machine.name} is on segment {interface.segment} twice")


def _addresses(topology: Topology) -> Iterator[Fault]:
    owners: dict[IPv4Address, str] = {}
    subnets = {segment.name: segment.subnet for segment in topology.segments}
    for path, machine, interface in _interfaces(topology):
        address, subnet = interface.address, subnets.get(interface.segment)
        if interface.link.jitter > interface.link.delay:
            yield Fault(f"{path}.link.jitter", "is more than link.delay: no packet comes before it was sent")
        if machine.role is Role.HOST and interface.link.shaped:
            yield Fault(
                f"{path}.link", "this machine's own network is left as it is: mtu is all that can be set"
            )
        if address is None:
            continue
        if address in owners:
            yield Fault(f"{path}.address", f"{address} is the address of {owners[address]} as well")
        owners.setdefault(address, machine.name)
        if interface.segment in subnets and subnet is None:
            yield Fault(
                f"{path}.address", f"{address} is given, but segment {interface.segment} has no subnet"
            )
        elif subnet is not None and address not in subnet:
            yield Fault(f"{path}.address", f"{address} is not in {subnet} of segment {interface.segment}")
        elif subnet is not None and address in (subnet.network_address, subnet.broadcast_address):
            yield Fault(f"{path}.address", f"{address} is the network or broadcast address of {subnet}")
    for number, segment in enumerate(topology.segments):
        room = segment.subnet.num_addresses - 2 if segment.subnet is not None else 254
        count = len(topology.on(segment.name))
        if count > room:
            yield Fault(f"segments[{number}].subnet", f"has room for {room} machines, and {count} are on it")


def _joined(topology: Topology) -> Iterator[Fault]:
    """Whether routers join every segment to the control plane's."""
    center = topology.of(Role.CONTROL_PLANE)[0].interfaces[0].segment
    reached = {center}
    routers = [{each.segment for each in router.interfaces} for router in topology.of(Role.ROUTER)]
    while grown := [joins for joins in routers if joins & reached and not joins <= reached]:
        for joins in grown:
            reached |= joins
    for path, machine, interface in _interfaces(topology):
        if machine.role is Role.NODE and not any(each.segment in reached for each in machine.interfaces):
            yield Fault(
                f"{path}.segment",
                f"{machine.name} cannot reach the control plane: no router joins {interface.segment} and {center}",
            )
    for number, segment in enumerate(topology.segments):
        if segment.name not in reached:
            yield Fault(f"segments[{number}]", f"no router joins segment {segment.name} and segment {center}")


def _names(path: str, names: list[str]) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if not _LABEL.fullmatch(name):
            yield Fault(
                f"{path}[{number}].name", f"{name!r}: lower-case letters, digits and dashes, at most 63"
            )
        elif name in names[:number]:
            yield Fault(
                f"{path}[{number}].name", f"{name} is the name of {path}[{names.index(name)}] as well"
            )
