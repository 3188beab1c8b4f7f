"""Who speaks BGP with whom in a topology, and where the daemons' files are."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile
from netkit.cluster.topology import Machine, Role, Topology
from netkit.cluster.topology_layout import address_of, routers_on, subnet
from netkit.kernel import bird
from netkit.kernel.errors import Unsupported
from netkit.podnet.bgp import Neighbour, Speaker, node_asn


def speaker(topology: Topology, machine: Machine) -> Speaker:
    """The machine of a placed topology, a router or a node, as a speaker of BGP."""
    address = address_of(machine)
    asn = machine.asn or node_asn(address)
    if machine.role is not Role.ROUTER:
        return Speaker(machine.name, address, asn, tuple(_routers(topology, machine)))
    callers = [
        Neighbour(f"nodes-{each.segment}", _address(each.address), subnet(topology, each.segment))
        for each in machine.interfaces
        if any(other.role is Role.NODE for other in topology.on(each.segment))
    ]
    networks = tuple(subnet(topology, each.segment) for each in machine.interfaces)
    return Speaker(machine.name, address, asn, (*_routers(topology, machine), *callers), networks)


def speakers(topology: Topology) -> dict[str, Speaker]:
    """All of a placed topology by name."""
    machines = (*topology.of(Role.ROUTER), *topology.of(Role.NODE))
    return {machine.name: speaker(topology, machine) for machine in machines}


def segments(topology: Topology) -> tuple[IPv4Network, ...]:
    """The networks of all segments of a placed topology."""
    return tuple(subnet(topology, segment.name) for segment in topology.segments)


def _routers(topology: Topology, machine: Machine) -> list[Neighbour]:
    """The routers that are on the machine's segments too."""
    return [
        Neighbour(f"{router.name}-{each.segment}", _address(each.address), address, router.asn)
        for each in machine.interfaces
        for router, address in routers_on(topology, each.segment)
        if router.name != machine.name
    ]


def _address(address: IPv4Address | None) -> IPv4Address:
    assert address is not None
    return address


def configuration_file(profile: Profile, machine: str) -> Path:
    return profile.run / f"{machine}.bird"


def control_socket(profile: Profile, machine: str) -> Path:
    return profile.run / f"{machine}.bgp"


def require_daemon() -> None:
    """Raises ClusterError, naming the package, when there is no BGP daemon."""
    try:
        bird.program()
    except Unsupported as error:
        raise ClusterError(
            f"network.routes: bgp needs the daemon BIRD 2: {error.stderr}", error.hint
        ) from None
