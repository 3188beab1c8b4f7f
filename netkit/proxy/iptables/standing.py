"""What of ours stands in a kernel, read from the output of iptables-save. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from netkit.proxy.addresses import Family
from netkit.proxy.iptables.canonical import canonical
from netkit.proxy.iptables.chains import JUMPS, Jump, is_ours, is_service_chain

KUBELET_CHAINS = frozenset({"KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"})
"""Chains a kubelet keeps in the mangle table."""

Where = tuple[str, str]
"""Table and chain."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Our chains with their rules, as iptables-save printed them, and which of the jumps are there.

    `kubelet`: a kubelet keeps chains here too, and shares KUBE-FIREWALL with us.
    """

    chains: Mapping[Where, str] = field(default_factory=dict)
    jumps: frozenset[Jump] = frozenset()
    kubelet: bool = False

    @property
    def service_chains(self) -> set[str]:
        """Chains of single service ports."""
        return {chain for table, chain in self.chains if table == "nat" and is_service_chain(chain)}

    def holds(self, where: Where, rules: str, family: Family) -> bool:
        """Whether the chain is there with exactly these rules, which are in the form of iptables-save.

        Programs of other versions print some rules differently, so what is not the same text is taken apart.
        """
        found = self.chains.get(where)
        if found is None or found == rules:
            return found is not None
        return found.count("\n") == rules.count("\n") and _canonical(found, where[1], family) == rules


def read_standing(saved: str) -> Standing:
    """What `saved`, the output of iptables-save for all tables, shows of us."""
    chains: dict[Where, str] = {}
    jumps: set[Jump] = set()
    kubelet = False
    for name, text in _tables(saved):
        lines = text.splitlines(keepends=True)
        declared = [line[1 : line.index(" ")] for line in lines if line[0] == ":"]
        kubelet = kubelet or (name == "mangle" and not KUBELET_CHAINS.isdisjoint(declared))
        chains.update(((name, chain), "") for chain in declared if is_ours(chain))
        rules = [line for line in lines if line.startswith("-A ")]
        for chain, group in groupby(rules, key=_chain_of):
            if is_ours(chain):
                chains[name, chain] = "".join(group)
            else:
                jumps.update(_jumps_in(name, chain, "".join(group)))
    return Standing(chains, frozenset(jumps), kubelet)


def _tables(saved: str) -> list[tuple[str, str]]:
    """Name and lines of each table in the output."""
    found = []
    for part in ("\n" + saved).split("\n*")[1:]:
        name, _, rest = part.partition("\n")
        lines, _, _ = rest.partition("COMMIT\n")
        found.append((name, lines))
    return found


def _chain_of(line: str) -> str:
    return line.split(" ", 2)[1]


def _jumps_in(table: str, chain: str, rules: str) -> set[Jump]:
    """Which of our jumps a built-in chain holds."""
    wanted = {jump.rule: jump for jump in JUMPS if (jump.table, jump.source) == (table, chain)}
    head = f"-A {chain} "
    found = set()
    for line in rules.splitlines():
        rule = line.removeprefix(head)
        jump = wanted.get(rule)
        if jump is None and " KUBE-" in rule:
            jump = wanted.get(canonical(rule, Family.IPV4))
        if jump is not None:
            found.add(jump)
    return found


def _canonical(rules: str, chain: str, family: Family) -> str:
    head = f"-A {chain} "
    return "".join(f"{head}{canonical(line.removeprefix(head), family)}\n" for line in rules.splitlines())
