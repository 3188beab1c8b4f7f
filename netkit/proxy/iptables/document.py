"""Input of iptables-restore under construction: chains to write and to remove, table by table. Pure.

The order of lines is chosen for the program, which looks chains up in sorted lists: declaring them from the last to
the first name, writing all jumps to KUBE-MARK-MASQ before any other, and filling chains in the order of their names
takes more than a third off the time of a big load. Within a chain the order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netkit.proxy.iptables.chains import MARK_MASQ, Jump

TABLES = ("mangle", "filter", "nat")
"""In the order of writing: a refusal in filter is there before the translation in nat goes."""

_TO_MARK = f" -j {MARK_MASQ}\n"


@dataclass(frozen=True, slots=True)
class Document:
    """Input of `iptables-restore --noflush --counters`. `rules` counts rules written to chains of ours, by table."""

    text: str
    full: bool
    rules: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Table:
    chains: list[tuple[str, str]] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def text(self, table: str) -> str:
        names = [chain for chain, _ in self.chains] + self.deleted
        first, rest = [], []
        for _, rules in sorted(self.chains):
            head, mark, tail = rules.partition(_TO_MARK)
            if mark and "\n" not in head:
                first.append(head + mark)
                rest.append(tail)
            else:
                rest.append(rules)
        return "".join(
            [
                f"*{table}\n",
                *[f":{chain} - [0:0]\n" for chain in sorted(names, reverse=True)],
                *first,
                *rest,
                *[f"-I {jump.source} {jump.rule}\n" for jump in self.jumps],
                *[f"-X {chain}\n" for chain in sorted(self.deleted)],
                "COMMIT\n",
            ]
        )


class Draft:
    """Collects what a document is to do."""

    def __init__(self) -> None:
        self._tables = {table: _Table() for table in TABLES}

    def write(self, table: str, chain: str, rules: str) -> None:
        """Make or empty the chain and fill it with `rules`."""
        self._tables[table].chains.append((chain, rules))

    def delete(self, table: str, chains: Iterable[str]) -> None:
        """Empty and remove chains, which nothing may jump to afterwards."""
        self._tables[table].deleted += chains

    def jump(self, jump: Jump) -> None:
        """Put a jump at the top of a built-in chain."""
        self._tables[jump.table].jumps.append(jump)

    def document(self, *, full: bool) -> Document | None:
        """What was collected; None if that is nothing."""
        written = {
            name: table
            for name, table in self._tables.items()
            if table.chains or table.jumps or table.deleted
        }
        if not written:
            return None
        return Document(
            "".join([table.text(name) for name, table in written.items()]),
            full,
            {name: sum(rules.count("\n") for _, rules in table.chains) for name, table in written.items()},
        )
