"""Routing by BGP: who speaks with whom, the daemons' configuration, and what they say of their sessions. Pure.

Every router and every node runs a BIRD of its own (`kernel.bird`). A node speaks with the routers of its segment and
announces its pods' range to them; routers speak with each other and with whoever is a node on their segments, and pass
on the pods' ranges and the networks of the segments they are on. Every machine is an autonomous system of its own, as
in the fabrics of data centres (RFC 7938), so that paths show who passed a route on. Of several ways of equal length all
are used.

BFD notices within a second that a neighbour is gone, where the link says nothing: on a segment only the cable of the
one that went is down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

_FIRST_NODE_ASN: Final = 4200000000
"""The first of the private AS numbers of four bytes (RFC 6996)."""

BFD_MILLISECONDS: Final = 300
BFD_MULTIPLIER: Final = 3
_HOLD_SECONDS: Final = 9


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody a machine speaks with. `address` is a network for whoever calls from there (the nodes of a segment)."""

    name: str
    local: IPv4Address
    address: IPv4Address | IPv4Network
    asn: int = 0


@dataclass(frozen=True, slots=True)
class Speaker:
    """A machine that speaks BGP. `segments` are the networks that it tells of, none for a node."""

    name: str
    address: IPv4Address
    asn: int
    neighbours: tuple[Neighbour, ...]
    segments: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the daemon tells of it. `state` is BGP's (`Established`, `Active`, ...)."""

    name: str
    neighbour: IPv4Address
    asn: int
    state: str
    since: str
    imported: int
    exported: int

    @property
    def established(self) -> bool:
        return self.state == "Established"


def node_asn(address: IPv4Address) -> int:
    """A node's AS number: fixed by its address, and nobody else's in a network of that size."""
    return _FIRST_NODE_ASN + (int(address) & 0xFFFFFF)


def configuration(
    speaker: Speaker,
    cluster_cidr: IPv4Network,
    segments: Iterable[IPv4Network],
    pods: IPv4Network | None = None,
) -> str:
    """The daemon's configuration. `segments` are all of the cluster; `pods` is a node's own range, None before it has
    one and for routers.
    """
    known = ", ".join([f"{cluster_cidr}+", *(str(network) for network in segments)])
    lines = [
        f"router id {speaker.address};",
        "log stderr { info, remote, warning, error, auth, fatal, bug };",
        "protocol device { scan time 10; }",
    ]
    if speaker.segments:
        lines.append('protocol direct segments { ipv4; interface "eth*"; }')
    if pods is not None:
        # It is never put into the kernel, which has the range on cni0.
        lines.append(f"protocol static pods {{ ipv4; route {pods} blackhole; }}")
    lines += [
        "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths on; }",
        'protocol bfd { interface "eth*" {'
        f" min rx interval {BFD_MILLISECONDS} ms; min tx interval {BFD_MILLISECONDS} ms;"
        f" multiplier {BFD_MULTIPLIER}; }}; }}",
        f"template bgp neighbour {{ bfd on; hold time {_HOLD_SECONDS}; connect retry time 1; connect delay time 1;"
        " error wait time 1, 5; }",
    ]
    lines += [_protocol(each, speaker, cluster_cidr, known) for each in speaker.neighbours]
    return "\n".join(lines) + "\n"


def _protocol(neighbour: Neighbour, speaker: Speaker, cluster_cidr: IPv4Network, known: str) -> str:
    identifier = _identifier(neighbour.name)
    pods = f"where net ~ [ {cluster_cidr}+ ]"
    if isinstance(neighbour.address, IPv4Network):
        who = f'neighbor range {neighbour.address} external; dynamic name "{identifier}_"'
        passed = f"import {pods}; export {pods}"
    else:
        who = f"neighbor {neighbour.address} as {neighbour.asn}"
        everything = f"where net ~ [ {known} ]"
        passed = (
            f"import {everything}; export {everything}"
            if speaker.segments
            else f"import {pods}; export where source = RTS_STATIC"
        )
    return (
        f"protocol bgp {identifier} from neighbour {{ local {neighbour.local} as {speaker.asn}; {who};"
        f" ipv4 {{ {passed}; }}; }}"
    )


def sessions(answer: Iterable[str]) -> list[Session]:
    """The sessions in the answer to `show protocols all`, those with a neighbour only, by address."""
    found: list[dict[str, str]] = []
    for line in answer:
        words = line.split()
        if line[:1] not in ("", " ", "\t") and len(words) >= 5 and words[1] == "BGP":
            info = words[5] if len(words) > 5 else words[3]
            found.append({"name": words[0], "since": words[4], "state": info})
        elif line[:1] not in ("", " ", "\t"):
            found.append({})
        elif found:
            key, colon, value = line.strip().partition(":")
            if colon:
                found[-1].setdefault(key, value.strip())
    known = [_session(each) for each in found if "Neighbor address" in each]
    return sorted(known, key=lambda session: session.neighbour)


def _session(told: dict[str, str]) -> Session:
    numbers = {
        word: int(count) for count, word in re.findall(r"(\d+) (imported|exported)", told.get("Routes", ""))
    }
    return Session(
        name=told.get("name", ""),
        neighbour=IPv4Address(told["Neighbor address"].partition("%")[0]),
        asn=int(told.get("Neighbor AS", "0") or 0),
        state=told.get("BGP state", told.get("state", "")),
        since=told.get("since", ""),
        imported=numbers.get("imported", 0),
        exported=numbers.get("exported", 0),
    )


def _identifier(name: str) -> str:
    """A name that BIRD takes: letters, digits and underscores."""
    return "to_" + re.sub(r"[^a-z0-9]", "_", name)
