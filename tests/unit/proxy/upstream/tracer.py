"""Follows one packet through rules as nft lists and iptables-save prints them, to every endpoint it may be sent to.

Independent of the proxy: it reads the text and knows of hooks and matches what the kernel's manuals say. Random
choices are taken all; connections are always new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Final

from unit.proxy.upstream.iptables_tables import meaning
from unit.proxy.upstream.world import LOCAL

END: Final = frozenset({"ACCEPT", "DROP", "REJECT"})


@dataclass(frozen=True)
class Packet:
    """A packet of a new connection, as far as rules look at it. `output` is where it was sent, or its verdict."""

    source: str
    target: str
    port: int
    protocol: str = "tcp"
    marked: bool = False
    output: str = ""

    @property
    def from_node(self) -> bool:
        return self.source in LOCAL

    @property
    def to_node(self) -> bool:
        return self.target in LOCAL


@dataclass(frozen=True)
class Fate:
    """All outputs there are, and whether the source of any of them is rewritten."""

    outputs: frozenset[str]
    masqueraded: bool

    @classmethod
    def of(cls, packets: Sequence[Packet]) -> Fate:
        outputs = frozenset(packet.output for packet in packets)
        sent = [packet for packet in packets if packet.output and packet.output not in END]
        return cls(outputs, any(packet.marked for packet in sent))


Hooks = Sequence[str]
"""Base chains, in the order in which a packet comes to them."""


@dataclass
class Tracer:
    """Base: goes from chain to chain. A subclass says what a rule does."""

    chains: Mapping[str, Sequence[str]]

    def trace(self, packet: Packet) -> Fate:
        """What becomes of the packet."""
        left, done = [packet], []
        for hook in self.hooks(packet):
            left = [after for before in left for after, _ in self.chain(hook, before)]
            done += [one for one in left if one.output]
            left = [one for one in left if not one.output]
        return Fate.of([*done, *left])

    def hooks(self, packet: Packet) -> Hooks:
        raise NotImplementedError

    def rule(self, text: str, packet: Packet) -> Iterator[tuple[Packet, str]]:
        """The packets that a rule makes of one, each with the chain or verdict it goes to ("" for the next rule)."""
        raise NotImplementedError

    def chain(self, name: str, packet: Packet) -> Iterator[tuple[Packet, bool]]:
        """The packets at the end of a chain; whether they are finished in this hook."""
        yield from self._from(name, 0, packet)

    def _from(self, name: str, index: int, packet: Packet) -> Iterator[tuple[Packet, bool]]:
        rules = self.chains.get(name, ())
        if index == len(rules):
            yield packet, False
            return
        for after, way in self.rule(rules[index], packet):
            verb, _, target = way.partition(" ")
            if after.output:
                yield after, True
            elif verb == "":
                yield from self._from(name, index + 1, after)
            elif verb == "return":
                yield after, False
            else:
                for inner, finished in self._from(target, 0, after):
                    if finished or verb == "goto":
                        yield inner, finished
                    else:
                        yield from self._from(name, index + 1, inner)


def _inside(address: str, what: str) -> bool:
    """Whether the address is one of `what`: an address, a range, or several of them in braces."""
    items = [item.strip() for item in what.strip("{} ").split(",")]
    return any(
        ip_address(address) in ip_network(item) if "/" in item else ip_address(address) == ip_address(item)
        for item in items
    )


_STATEMENTS: Final = (
    ("ct", re.compile(r"ct state new ?")),
    ("comment", re.compile(r'comment "[^"]*" ?')),
    ("vmap", re.compile(r"(ip6? daddr \. )?meta l4proto \. th dport vmap @(\S+) ?")),
    ("choice", re.compile(r"numgen random mod \d+ vmap \{ (.*?) \} ?")),
    ("address", re.compile(r"ip6? (saddr|daddr) (!= )?(\{ .*? \}|\S+) ?")),
    ("fib", re.compile(r"fib (saddr|daddr) type local ?")),
    ("protocol", re.compile(r"meta l4proto (\w+) ?")),
    ("mark", re.compile(r"meta mark set meta mark \| 0x00004000 ?")),
    ("update", re.compile(r"update @\S+ \{ ip6? saddr \} ?")),
    ("dnat", re.compile(r"dnat to (\S+) ?")),
    ("verdict", re.compile(r"(jump|goto) (\S+) ?")),
    ("end", re.compile(r"(drop|reject|accept) ?")),
)


@dataclass
class NftTracer(Tracer):
    """Through the table of the nftables mode; `sets` are its sets and maps."""

    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def hooks(self, packet: Packet) -> Hooks:
        if packet.from_node:
            return ["filter-output-pre-dnat", "nat-output", "filter-output"]
        last = "filter-input" if packet.to_node else "filter-forward"
        return ["filter-prerouting-pre-dnat", "nat-prerouting", last]

    def rule(self, text: str, packet: Packet) -> Iterator[tuple[Packet, str]]:
        while text:
            kind, found = next(
                (kind, found) for kind, pattern in _STATEMENTS if (found := pattern.match(text)) is not None
            )
            text = text[found.end() :]
            match kind:
                case "address" if not self._address(found, packet):
                    break
                case "fib" if not (packet.from_node if found[1] == "saddr" else packet.to_node):
                    break
                case "protocol" if found[1] != packet.protocol:
                    break
                case "mark":
                    packet = replace(packet, marked=True)
                case "dnat":
                    yield replace(packet, output=found[1]), ""
                    return
                case "vmap":
                    yield self._verdict(self._looked_up(found, packet), packet)
                    return
                case "choice":
                    for item in found[1].split(", "):
                        yield self._verdict(item.partition(" : ")[2], packet)
                    return
                case "verdict":
                    yield packet, f"{found[1]} {found[2]}"
                    return
                case "end":
                    yield self._verdict(found[1], packet)
                    return
        yield packet, ""

    def _address(self, found: re.Match[str], packet: Packet) -> bool:
        address = packet.source if found[1] == "saddr" else packet.target
        known = self.sets.get(found[3].removeprefix("@"))
        matches = address in known if known is not None else _inside(address, found[3])
        return matches != bool(found[2])

    def _looked_up(self, found: re.Match[str], packet: Packet) -> str:
        key = f"{packet.protocol} . {packet.port}"
        if found[1]:
            key = f"{packet.target} . {key}"
        for element in self.sets.get(found[2], ()):
            name, _, verdict = element.rpartition(" : ")
            if re.sub(r' comment ".*"$', "", name) == key:
                return verdict
        return ""

    @staticmethod
    def _verdict(verdict: str, packet: Packet) -> tuple[Packet, str]:
        if verdict.upper() in END:
            return replace(packet, output=verdict.upper()), ""
        return packet, verdict


@dataclass
class IPTablesTracer(Tracer):
    """Through the tables of iptables; chains are named `table CHAIN`."""

    def hooks(self, packet: Packet) -> Hooks:
        if packet.from_node:
            return ["nat OUTPUT", "filter OUTPUT", *(["filter INPUT"] if packet.to_node else [])]
        return ["nat PREROUTING", "filter INPUT" if packet.to_node else "filter FORWARD"]

    def chain(self, name: str, packet: Packet) -> Iterator[tuple[Packet, bool]]:
        self._table = name.split(" ")[0]
        yield from super().chain(name, packet)

    def rule(self, text: str, packet: Packet) -> Iterator[tuple[Packet, str]]:
        matches, action = meaning(text)
        options = {name.lstrip("!"): (name[0] == "!", values) for name, *values in matches}
        if not all(self._matches(name, values, packet) != no for name, (no, values) in options.items()):
            yield packet, ""
            return
        if "--probability" in options or "--rcheck" in options:
            # Both ways are open.
            yield packet, ""
        match action:
            case []:
                yield packet, ""
            case ["-j", "DNAT", "--to-destination", output]:
                yield replace(packet, output=output), ""
            case ["-j", "MARK", "--set-xmark", "0x4000/0x4000"]:
                yield replace(packet, marked=True), ""
            case ["-j", verdict, *_] if verdict in END:
                yield replace(packet, output=verdict), ""
            case ["-j", target]:
                yield packet, f"jump {self._table} {target}"

    def _matches(self, name: str, values: Sequence[str], packet: Packet) -> bool:
        match name:
            case "-s":
                return _inside(packet.source, values[0])
            case "-d":
                return _inside(packet.target, values[0])
            case "-p":
                return values[0] == packet.protocol
            case "--dport":
                return int(values[0]) == packet.port
            case "--dst-type":
                return packet.to_node
            case "--src-type":
                return packet.from_node
            case "--ctstate":
                return "NEW" in values[0].split(",")
            case "--mark":
                return packet.marked
            case _:
                # Comments, counters, chances, memories: they match.
                return True
