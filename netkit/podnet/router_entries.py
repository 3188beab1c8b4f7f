"""What a router's kernel should hold of ways to pods and segments, what for, and where it differs. Pure.

Static routes are known to the next hop. Of those that a BGP daemon learns only the targets are: which way is best is
the daemon's to say, and it may be several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from controlplane.errors import Object
from netkit.kernel import rtnl_read
from netkit.kernel.rtnl_read import Route
from netkit.podnet.bgp import Session
from netkit.podnet.entries import Entry, Kind
from netkit.podnet.router_routes import Router, purposes, ways

LEARNED: Final = "by BGP"
_KERNEL = 2


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """What decides about a router's routes. `segments` are all networks by their segments' names; `know` is whether
    it shall know pods, `learned` whether by BGP; `neighbours` are those it shall speak with: addresses and names.
    """

    router: Router
    cluster_cidr: IPv4Network
    segments: Mapping[IPv4Network, str]
    nodes: Sequence[Object] = ()
    know: bool = True
    learned: bool = False
    neighbours: Mapping[IPv4Address, str] = field(default_factory=dict)


def expected(facts: RouterFacts) -> list[Entry]:
    """The routes and sessions of a router that is as it should be."""
    entries = []
    pods = purposes(facts.nodes)
    for network, name in facts.segments.items():
        if network in facts.router.networks:
            continue
        via = facts.router.beyond.get(network)
        if via is not None:
            value = LEARNED if facts.learned else f"via {via}"
            entries.append(Entry(Kind.ROUTE, str(network), value, f"segment {name}"))
    if facts.know:
        for target, via in ways(facts.router, facts.nodes).items():
            value = LEARNED if facts.learned else f"via {via}"
            entries.append(Entry(Kind.ROUTE, str(target), value, pods[target]))
    if facts.learned:
        entries += [
            Entry(Kind.SESSION, str(address), "Established", name)
            for address, name in facts.neighbours.items()
        ]
    return entries


def found(routes: Iterable[Route], links: Mapping[int, str], sessions: Iterable[Session]) -> list[Entry]:
    """What a router has, in the same words: its routes but those of its own segments, and its sessions."""
    entries = [
        Entry(
            Kind.ROUTE, str(route.target), LEARNED if route.protocol == rtnl_read.BIRD else _way(route, links)
        )
        for route in routes
        if route.protocol != _KERNEL
    ]
    entries += [Entry(Kind.SESSION, str(session.neighbour), session.state) for session in sessions]
    return entries


def _way(route: Route, links: Mapping[int, str]) -> str:
    return f"via {route.via}" if route.via is not None else f"dev {links.get(route.index, '?')}"


@dataclass(frozen=True, slots=True)
class RouterRoute:
    """A route of a router: where to, the next hops (several: packets are spread), who made it, and what it is for."""

    target: str
    hops: tuple[str, ...]
    source: str
    purpose: str


_SOURCES = {_KERNEL: "connected", rtnl_read.BIRD: "bgp", 4: "static"}


def described(facts: RouterFacts, routes: Iterable[Route], links: Mapping[int, str]) -> list[RouterRoute]:
    """All routes of a router with what they are for ("" for those that nobody asked for), pods' first."""
    pods = purposes(facts.nodes)
    result = []
    for route in routes:
        hops = route.hops or ((route.via, route.index),)
        texts = tuple(
            f"via {via} dev {links.get(index, '?')}" if via is not None else f"dev {links.get(index, '?')}"
            for via, index in hops
        )
        segment = facts.segments.get(route.target)
        purpose = pods.get(route.target, f"segment {segment}" if segment else "")
        source = _SOURCES.get(route.protocol, f"protocol {route.protocol}")
        result.append(
            (segment is not None, route.target, RouterRoute(str(route.target), texts, source, purpose))
        )
    return [each for _, _, each in sorted(result, key=lambda item: item[:2])]
