"""Rules of the iptables mode as listings: what a document would leave in a kernel, and what iptables-save shows.

Both come out in the same words (see `canonical`), so that they can be compared. Called by `backend`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from netkit.proxy.addresses import Family
from netkit.proxy.iptables.canonical import canonical
from netkit.proxy.iptables.chains import (
    CANARY,
    EXTERNAL_SERVICES,
    FIREWALL,
    FORWARD,
    MARK_MASQ,
    NODE_PORTS,
    POSTROUTING,
    PROXY_FIREWALL,
    SERVICES,
    is_ours,
)
from netkit.proxy.iptables.rules import PortRules
from netkit.proxy.iptables.standing import Where
from netkit.proxy.listing import Listing, Section, listing

_TARGET = re.compile(r" -[jg] (\S+)")
_CHAIN_OF = re.compile(r"-A (\S+) ")

_TABLES = ("nat", "filter", "mangle")
_READ_FIRST = (
    "PREROUTING",
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "POSTROUTING",
    SERVICES,
    EXTERNAL_SERVICES,
    NODE_PORTS,
)
_READ_LAST = (MARK_MASQ, POSTROUTING, PROXY_FIREWALL, FIREWALL, FORWARD, CANARY)


def listing_of(text: str, family: Family) -> Listing:
    """Our chains, and the jumps into them, of restore input or of the output of iptables-save.

    Rules of others in built-in chains are not ours to list; whatever is in our chains is.
    """
    chains = _chains(text)
    ranks = {chain: rank for rank, chain in enumerate(_READ_FIRST, -len(_READ_FIRST))}
    ranks |= {chain: rank for rank, chain in enumerate(_READ_LAST, 1)}
    order = sorted(chains, key=lambda where: (_TABLES.index(where[0]), ranks.get(where[1], 0)))
    return listing(_section(where, chains[where], family) for where in order)


def serving_sections(
    rules: PortRules, node_port_dispatch: str, tail: Iterable[tuple[Where, str]], family: Family
) -> tuple[Section, ...]:
    """The rules of one service port in the order in which its packets meet them.

    `node_port_dispatch` are the rules that lead to NodePorts, `tail` chains that a translated packet meets
    afterwards.
    """
    dispatch = node_port_dispatch if rules.nat_node_ports else ""
    met: list[tuple[Where, str]] = [
        (("nat", SERVICES), rules.nat_services + dispatch),
        (("nat", NODE_PORTS), rules.nat_node_ports),
    ]
    met += [(("nat", chain), rules.own[chain]) for chain in sorted(rules.own, key=_depth)]
    met += [
        (("filter", PROXY_FIREWALL), rules.filter_firewall),
        (("filter", SERVICES), rules.filter_services),
        (("filter", EXTERNAL_SERVICES), rules.filter_external),
        (("filter", NODE_PORTS), rules.filter_node_ports),
    ]
    if rules.own:
        met += tail
    return tuple(_section(where, _rules_in(text), family) for where, text in met if text)


def _depth(chain: str) -> int:
    """How far from KUBE-SERVICES a packet meets a chain of a service port."""
    order = ("KUBE-FW-", "KUBE-EXT-", "KUBE-SVL-", "KUBE-SVC-", "KUBE-SEP-")
    return next((rank for rank, prefix in enumerate(order) if chain.startswith(prefix)), len(order))


def _section(where: Where, rules: Sequence[str], family: Family) -> Section:
    return Section(" ".join(where), tuple(canonical(rule, family) for rule in rules))


def _chains(text: str) -> dict[Where, list[str]]:
    """Rules by table and chain, without `-A CHAIN`: of ours all, of others what jumps to ours."""
    found: dict[Where, list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table not in _TABLES:
            continue
        elif line.startswith(":"):
            chain = line[1:].split(" ", 1)[0]
            if is_ours(chain):
                found[table, chain] = []
        elif line.startswith(("-A ", "-I ")):
            _, chain, rule = (*line.split(" ", 2), "")[:3]
            if not is_ours(chain):
                target = _TARGET.search(line)
                if target is None or not is_ours(target[1]):
                    continue
            rules = found.setdefault((table, chain), [])
            rules.insert(len(rules) if line.startswith("-A") else 0, rule)
        elif line.startswith("-X "):
            found.pop((table, line[3:]), None)
    return found


def _rules_in(text: str) -> list[str]:
    return list(_without_chain(text.splitlines()))


def _without_chain(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        match = _CHAIN_OF.match(line)
        yield line[match.end() :] if match else line
