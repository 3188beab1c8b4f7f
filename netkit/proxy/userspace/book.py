"""The whole rule set of the userspace mode, and the shortest document that brings the kernel to it.

`RuleBook` keeps the rules of every service port in their order. It answers with input for iptables-restore, full or
of what changed only, or with None when not one rule would differ. Pure: it never runs anything. All rules are
written as iptables-save prints them, so that wish and kernel are compared as text.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from netkit.proxy.listing import Listing, Section, listing
from netkit.proxy.services import Protocol, ServicePort, ServicePortName
from netkit.proxy.userspace.chains import CHAINS, JUMPS, PORTALS_CONTAINER
from netkit.proxy.userspace.rules import PortRules

_REWRITTEN = 0.25
"""Share of the service ports from which on a change writes whole chains: single rules are searched one by one."""

_TARGET = re.compile(r" -j (\S+)")
_TO_PROXY = re.compile(
    r'-p (\S+) -m comment --comment "([^"]+)" .*-j (?:REDIRECT --to-ports |DNAT --to-destination \S+:)(\d+)$'
)

Standing = Mapping[str, tuple[str, ...]]
"""What of ours is in the kernel: the rules of our chains, and of built-in chains (`nat PREROUTING`) our jumps."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The rules of a service port, and what decides which of two ports is met first."""

    order: tuple[str, ServicePortName]
    rules: PortRules


@dataclass(frozen=True, slots=True)
class Document:
    """Input of `iptables-restore --noflush`. `rules` counts the rules it writes, by table."""

    text: str
    full: bool
    rules: Mapping[str, int] = field(default_factory=dict)


class RuleBook:
    """Rules of one address family on one node."""

    def __init__(self) -> None:
        self._placed: dict[ServicePortName, Placed] = {}
        self._order: list[tuple[str, ServicePortName]] = []
        self._totals = dict.fromkeys(("nat", "filter"), 0)

    @property
    def rule_totals(self) -> Mapping[str, int]:
        """How many rules of service ports there are, by table."""
        return dict(self._totals)

    @classmethod
    def of(cls, placed: Mapping[ServicePortName, Placed]) -> RuleBook:
        """A book of these service ports."""
        book = cls()
        book._placed = dict(placed)
        book._order = sorted(rules.order for rules in placed.values())
        for rules in placed.values():
            book._add_to_totals(rules, 1)
        return book

    def change(self, changes: Mapping[ServicePortName, Placed | None]) -> Document | None:
        """Take in new rules of service ports (None: gone), and return the document for the difference."""
        before = {name: self._placed.get(name) for name in changes}
        touched = [name for name, placed in changes.items() if before[name] != placed]
        if not touched:
            return None
        for name in touched:
            self._put(name, changes[name])
        if len(touched) > _REWRITTEN * max(len(self._order), 1):
            return self._document(CHAINS, full=False)
        tables: dict[str, list[str]] = {}
        for old in filter(None, (before[name] for name in touched)):
            for chain, rules in old.rules.items():
                tables.setdefault(CHAINS[chain], []).extend(f"-D {chain} {rule}\n" for rule in rules)
        for chain, number, rule in self._positions(frozenset(touched)):
            tables.setdefault(CHAINS[chain], []).append(f"-I {chain} {number} {rule}\n")
        return _document(tables, full=False)

    def full(self, standing: Standing) -> Document | None:
        """Everything, chains that are right already left out; None if all of them are."""
        lines = self._lines()
        wrong = [chain for chain in CHAINS if standing.get(_where(chain)) != tuple(lines[chain])]
        jumps: dict[str, list[str]] = {}
        for jump in JUMPS:
            if jump.rule not in standing.get(f"{jump.table} {jump.source}", ()):
                command = "-I" if jump.first else "-A"
                jumps.setdefault(jump.table, []).append(f"{command} {jump.source} {jump.rule}\n")
        if not wrong and not jumps:
            return None
        return self._document(wrong, full=True, jumps=jumps)

    def listing(self) -> Listing:
        """What all of it leaves in the kernel."""
        found: dict[str, tuple[str, ...]] = {}
        for jump in JUMPS:
            where = f"{jump.table} {jump.source}"
            found[where] = (*found.get(where, ()), jump.rule)
        found |= {_where(chain): tuple(lines) for chain, lines in self._lines().items()}
        return listing_of(found)

    def sections_of(self, name: ServicePortName) -> tuple[Section, ...]:
        """The rules of one service port, chain by chain."""
        placed = self._placed.get(name)
        if placed is None:
            return ()
        return tuple(Section(_where(chain), placed.rules[chain]) for chain in CHAINS if chain in placed.rules)

    def _put(self, name: ServicePortName, placed: Placed | None) -> None:
        old = self._placed.pop(name, None)
        if old is not None:
            del self._order[bisect.bisect_left(self._order, old.order)]
            self._add_to_totals(old, -1)
        if placed is not None:
            self._placed[name] = placed
            bisect.insort(self._order, placed.order)
            self._add_to_totals(placed, 1)

    def _add_to_totals(self, placed: Placed, sign: int) -> None:
        for chain, rules in placed.rules.items():
            self._totals[CHAINS[chain]] += sign * len(rules)

    def _in_order(self) -> Iterator[Placed]:
        return (self._placed[name] for _, name in self._order)

    def _lines(self) -> dict[str, list[str]]:
        lines: dict[str, list[str]] = {chain: [] for chain in CHAINS}
        for placed in self._in_order():
            for chain, rules in placed.rules.items():
                lines[chain].extend(rules)
        return lines

    def _positions(self, names: frozenset[ServicePortName]) -> Iterator[tuple[str, int, str]]:
        """The rules of `names` with their chains and numbers (from 1), each right when those before it are there."""
        counts = dict.fromkeys(CHAINS, 0)
        for order in self._order:
            rules_of = self._placed[order[1]].rules
            wanted = order[1] in names
            for chain, rules in rules_of.items():
                if wanted:
                    for number, rule in enumerate(rules, counts[chain] + 1):
                        yield chain, number, rule
                counts[chain] += len(rules)

    def _document(
        self, chains: Iterable[str], *, full: bool, jumps: Mapping[str, list[str]] | None = None
    ) -> Document:
        """The contents of `chains`, made or emptied before, and `jumps` into them by table."""
        lines = self._lines()
        tables: dict[str, list[str]] = {}
        for chain in chains:
            table = tables.setdefault(CHAINS[chain], [])
            table.insert(0, f":{chain} - [0:0]\n")
            table.extend(f"-A {chain} {rule}\n" for rule in lines[chain])
        for name, commands in (jumps or {}).items():
            tables.setdefault(name, []).extend(commands)
        return _document(tables, full=full)


def read_standing(saved: str) -> Standing:
    """What the output of iptables-save, of all tables, says of us."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain = line[1:].split(" ", 1)[0]
            if CHAINS.get(chain) == table:
                found.setdefault(f"{table} {chain}", [])
        elif line.startswith("-A "):
            _, chain, rule = (*line.split(" ", 2), "")[:3]
            target = _TARGET.search(line)
            leads_here = target is not None and CHAINS.get(target[1]) == table
            if CHAINS.get(chain) == table or leads_here:
                found.setdefault(f"{table} {chain}", []).append(rule)
    return {where: tuple(rules) for where, rules in found.items()}


def listing_of(standing: Standing) -> Listing:
    """What stands in the order in which packets meet it."""
    order = [
        *dict.fromkeys(f"{jump.table} {jump.source}" for jump in JUMPS),
        *(_where(chain) for chain in CHAINS),
    ]
    return listing(Section(where, standing[where]) for where in order if where in standing)


def standing_proxy_ports(standing: Standing) -> Mapping[tuple[str, Protocol], int]:
    """The proxy ports that rules in the kernel lead to, by text and protocol of the service port."""
    found: dict[tuple[str, Protocol], int] = {}
    for rule in standing.get(_where(PORTALS_CONTAINER), ()):
        match = _TO_PROXY.search(rule)
        if match and match[1].upper() in Protocol.__members__:
            found.setdefault((match[2], Protocol(match[1].upper())), int(match[3]))
    return found


def removal(saved: str) -> str:
    """Restore input that removes everything of ours that iptables-save shows; empty if there is nothing."""
    tables: dict[str, list[str]] = {}
    last: dict[str, list[str]] = {}
    for where, rules in read_standing(saved).items():
        table, chain = where.split(" ")
        commands = tables.setdefault(table, [])
        if chain in CHAINS:
            commands.insert(0, f":{chain} - [0:0]\n")
            last.setdefault(table, []).append(f"-X {chain}\n")
        else:
            commands.extend(f"-D {chain} {rule}\n" for rule in rules)
    return "".join(
        f"*{table}\n{''.join(commands)}{''.join(last.get(table, ()))}COMMIT\n"
        for table, commands in tables.items()
    )


def placed(port: ServicePort, rules: PortRules) -> Placed:
    """The rules of a port, placed so that the oldest Service is met first."""
    return Placed(port.order, rules)


def _where(chain: str) -> str:
    return f"{CHAINS[chain]} {chain}"


def _document(tables: Mapping[str, list[str]], *, full: bool) -> Document:
    text = "".join(f"*{table}\n{''.join(commands)}COMMIT\n" for table, commands in tables.items())
    written = {
        table: sum(command.startswith(("-A ", "-I ")) for command in commands)
        for table, commands in tables.items()
    }
    return Document(text, full, written)
