"""A fake of the iptables driver for tests without root: it keeps rules as the kernel would, and prints them.

Used by tests only. `FakeIPTables` takes the place of `iptables.IPTables`. It refuses what the kernel refuses:
rules in or jumps to chains that do not exist, removal of chains that hold rules or are jumped to.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from netkit.kernel.errors import CommandFailed
from netkit.kernel.iptables import Variant
from netkit.kernel.netns import HOST, Namespace

_BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
}
_TARGETS = frozenset(
    {
        "ACCEPT",
        "DROP",
        "REJECT",
        "RETURN",
        "MARK",
        "MASQUERADE",
        "DNAT",
        "REDIRECT",
        "SNAT",
        "LOG",
        "NOTRACK",
        "CT",
    }
)

_QUOTED = re.compile(r'"[^"]*"')
_TARGET = re.compile(r"(?:^| )-j (\S+)")

Table = dict[str, list[str]]


class FakeIPTables:
    """Rules by table and chain. `documents` are the restore inputs so far; the next `failures` of them fail."""

    def __init__(self, ns: Namespace = HOST, *, version: int = 4, lock_file: Path | None = None) -> None:
        self.ns = ns
        self.version = version
        self.variant = Variant.LEGACY
        self.random_fully = True
        self.lock_file = lock_file
        self.tables: dict[str, Table] = {}
        self.documents: list[str] = []
        self.failures = 0

    async def restore(self, text: str, *, noflush: bool = True, counters: bool = False) -> None:
        """Load rules; all tables change together or none, and CommandFailed names the line."""
        self.documents.append(text)
        if self.failures:
            self.failures -= 1
            raise CommandFailed("iptables-restore", self.ns.name, 1, "line 1 failed", "line 1: injected")
        tables = {name: _copy(table) for name, table in self.tables.items()}
        current: Table | None = None
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.startswith("*"):
                    fresh: Table = {chain: [] for chain in _BUILT_IN[line[1:]]}
                    current = tables.setdefault(line[1:], fresh) if noflush else fresh
                    tables[line[1:]] = current
                elif line == "COMMIT":
                    current = None
                elif line and not line.startswith("#"):
                    if current is None:
                        raise ValueError("not in a table")
                    _apply(current, line)
            except (KeyError, ValueError) as error:
                raise CommandFailed(
                    "iptables-restore",
                    self.ns.name,
                    1,
                    f"line {number} failed: {error}",
                    f"line {number}: {line}",
                ) from error
        if current is not None:
            raise CommandFailed("iptables-restore", self.ns.name, 1, "COMMIT expected at the end")
        self.tables = tables

    def refusal(self, text: str) -> str:
        return ""

    async def save(self, table: str = "") -> str:
        wanted = {table: self._table(table)} if table else self.tables
        return "".join(_printed(name, chains) for name, chains in wanted.items())

    async def chains(self, table: str) -> frozenset[str]:
        return frozenset(self._table(table))

    async def chain_exists(self, table: str, chain: str) -> bool:
        return chain in self._table(table)

    async def ensure_chain(self, table: str, chain: str) -> bool:
        if chain in self._table(table):
            return False
        self._table(table)[chain] = []
        return True

    async def rule_exists(self, table: str, chain: str, rule: Sequence[str]) -> bool:
        return shlex.join(rule) in [shlex.join(shlex.split(line)) for line in self._table(table)[chain]]

    async def ensure_rule(self, table: str, chain: str, rule: Sequence[str], *, prepend: bool = True) -> bool:
        if await self.rule_exists(table, chain, rule):
            return False
        self._table(table)[chain].insert(0 if prepend else len(self._table(table)[chain]), shlex.join(rule))
        return True

    async def delete_rule(self, table: str, chain: str, rule: Sequence[str]) -> bool:
        rules = self._table(table)[chain]
        before = len(rules)
        rules[:] = [line for line in rules if shlex.split(line) != list(rule)]
        return len(rules) != before

    async def flush_chain(self, table: str, chain: str) -> bool:
        if chain not in self._table(table):
            return False
        self._table(table)[chain].clear()
        return True

    async def delete_chain(self, table: str, chain: str) -> bool:
        return self._table(table).pop(chain, None) is not None

    def rules(self, table: str, chain: str) -> list[str]:
        """The rules of a chain, without the chain's name."""
        return list(self._table(table)[chain])

    def standing(self) -> dict[tuple[str, str], list[str]]:
        """Rules by table and chain; built-in chains without any are left out."""
        return {
            (table, chain): list(rules)
            for table, chains in self.tables.items()
            for chain, rules in chains.items()
            if rules or chain not in _BUILT_IN[table]
        }

    def _table(self, table: str) -> Table:
        return self.tables.setdefault(table, {chain: [] for chain in _BUILT_IN[table]})

    def __str__(self) -> str:
        return "".join(_printed(name, chains) for name, chains in self.tables.items())


def _copy(table: Table) -> Table:
    return {chain: list(rules) for chain, rules in table.items()}


def _printed(name: str, table: Table) -> str:
    lines = [f"*{name}"]
    built_in = _BUILT_IN[name]
    lines += [f":{chain} {'ACCEPT' if chain in built_in else '-'} [0:0]" for chain in table]
    lines += [f"-A {chain} {rule}" for chain, rules in table.items() for rule in rules]
    return "\n".join([*lines, "COMMIT", ""])


def _apply(table: Table, line: str) -> None:
    """One line of restore input. Raises KeyError or ValueError for what the kernel would refuse."""
    if line.startswith(":"):
        table[line[1:].split(" ", 1)[0]] = []
        return
    command, chain, rule = (*line.split(" ", 2), "")[:3]
    match command:
        case "-A" | "-I":
            place = len(table[chain]) if command == "-A" else 0
            if command == "-I" and rule.split(" ", 1)[0].isdigit():
                number, rule = rule.split(" ", 1)
                place = int(number) - 1
                if not 0 <= place <= len(table[chain]):
                    raise ValueError(f"no place {number} in chain {chain}")
            _check_target(table, rule)
            table[chain].insert(place, rule)
        case "-D":
            table[chain].remove(rule)
        case "-X":
            if table[chain]:
                raise ValueError(f"chain {chain} is not empty")
            if any(f"-j {chain}" in f"{other} " for rules in table.values() for other in rules):
                raise ValueError(f"chain {chain} is in use")
            del table[chain]
        case _:
            raise ValueError(f"unknown command {command}")


def _check_target(table: Table, rule: str) -> None:
    found = _TARGET.search(_QUOTED.sub("", rule))
    if found and found[1] not in table and found[1] not in _TARGETS:
        raise ValueError(f"no chain {found[1]}")
