"""Text for iptables-restore and from iptables-save in IPVS mode. Pure; called by `backend`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netkit.proxy import leftover_rules
from netkit.proxy.ipvs.book import Delta, Rules
from netkit.proxy.ipvs.chains import CHAINS, JUMPS, Place, canonical
from netkit.proxy.leftover_rules import NOTHING, Kept

_OURS = frozenset(CHAINS)
_JUMPS = frozenset(JUMPS)

OURS = Kept.of(CHAINS, JUMPS)
"""What the clean-up of other modes, which use some of the names too, spares while this mode is at work."""


def restore_document(delta: Delta) -> str:
    """Input of `iptables-restore --noflush` that writes the changed chains and the missing jumps; may be empty."""
    text = ""
    for table in ("nat", "filter"):
        changed = {place: rules for place, rules in delta.chains.items() if place[0] == table}
        jumps = [(place, rule) for place, rule in delta.missing_jumps if place[0] == table]
        if not changed and not jumps:
            continue
        lines = [f"*{table}", *(f":{chain} - [0:0]" for _, chain in changed)]
        lines += [f"-I {chain} {rule}" for (_, chain), rule in jumps]
        lines += [f"-A {chain} {rule}" for (_, chain), rules in changed.items() for rule in rules]
        text += "\n".join([*lines, "COMMIT", ""])
    return text


def cleanup_document(saved: str, keep: Kept = NOTHING) -> str:
    """Input of `iptables-restore --noflush` that removes our chains and every rule that leads into one."""
    return leftover_rules.cleanup_document(saved, _OURS.__contains__, keep)


@dataclass(frozen=True, slots=True)
class SavedRules:
    """What iptables-save says of us."""

    chains: Mapping[Place, Rules] = field(default_factory=dict)
    jumps: frozenset[tuple[Place, str]] = frozenset()


def read_saved(saved: str) -> SavedRules:
    """Our chains, and our jumps in built-in chains, each rule in one spelling."""
    found: dict[Place, Rules] = {}
    jumps: set[tuple[Place, str]] = set()
    for table, chains in read_tables(saved).items():
        for chain, rules in chains.items():
            place = (table, chain)
            if place in _OURS:
                found[place] = tuple(canonical(rule) for rule in rules)
            else:
                jumps.update(_JUMPS.intersection(_spelled(place, rules)))
    return SavedRules(found, frozenset(jumps))


def read_tables(saved: str) -> Mapping[str, Mapping[str, list[str]]]:
    """The chains of each table and their rules as iptables-save prints them."""
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains[chain].append(rule)
    return tables


def _spelled(place: Place, rules: Iterable[str]) -> Iterable[tuple[Place, str]]:
    return ((place, canonical(rule)) for rule in rules if " -j KUBE-" in f" {rule}")
