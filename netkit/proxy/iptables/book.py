"""The whole rule set of the iptables mode, and the shortest document that brings the kernel to it.

`RuleBook` keeps the rendered text of every service port. The loop hands it a state; it answers with a
`Document` for iptables-restore, full or of the changed chains only, or with None when not one rule would
differ. Pure: it never runs anything. A document that failed to load is mended by asking for a full one.
"""

from __future__ import annotations

import bisect
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netkit.proxy.addresses import Address, Family
from netkit.proxy.choice import NodeView, choose
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.iptables.chains import (
    CANARY,
    CANARY_TABLES,
    EXTERNAL_SERVICES,
    FIREWALL,
    FORWARD,
    JUMPS,
    LOCALNET_JUMPS,
    MARK_MASQ,
    NODE_PORTS,
    POSTROUTING,
    PROXY_FIREWALL,
    SERVICES,
    Jump,
    is_service_chain,
)
from netkit.proxy.iptables.inspection import serving_sections
from netkit.proxy.iptables.rules import LARGE_CLUSTER_ENDPOINTS, IPTablesSettings, PortRules, render_port
from netkit.proxy.listing import Section
from netkit.proxy.services import ServicePort, ServicePortName
from netkit.proxy.state import Changes, ProxyState

_SHARED: Mapping[tuple[str, str], str] = {
    ("filter", SERVICES): "filter_services",
    ("filter", EXTERNAL_SERVICES): "filter_external",
    ("filter", PROXY_FIREWALL): "filter_firewall",
    ("filter", NODE_PORTS): "filter_node_ports",
    ("nat", SERVICES): "nat_services",
    ("nat", NODE_PORTS): "nat_node_ports",
}
"""Chains that all service ports share, and the block of `PortRules` each is made of."""

_NO_RULES = PortRules()


@dataclass(frozen=True, slots=True)
class Standing:
    """What of ours is in the kernel already, read from iptables-save before a full sync."""

    service_chains: frozenset[str] = frozenset()
    jumps: frozenset[Jump] = frozenset()


@dataclass(frozen=True, slots=True)
class Document:
    """Input of `iptables-restore --noflush --counters`. `rules` counts the rules it writes, by table."""

    text: str
    full: bool
    rules: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Table:
    """One table of a document under construction."""

    chains: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def text(self, table: str) -> str:
        declared = "".join(f":{chain} - [0:0]\n" for chain in (*self.chains, *self.deleted))
        gone = "".join(f"-X {chain}\n" for chain in self.deleted)
        return f"*{table}\n{declared}{''.join(self.rules)}{gone}COMMIT\n"

    def __bool__(self) -> bool:
        return bool(self.chains or self.rules or self.deleted)


class RuleBook:
    """Rules of one address family on one node, under settings that do not change (make another book then).

    `node_port_ips` are the local addresses NodePorts answer on; None means all of them.
    """

    def __init__(
        self,
        family: Family,
        settings: IPTablesSettings,
        node: NodeView,
        node_port_ips: Sequence[Address] | None = None,
    ) -> None:
        self.family = family
        self.settings = settings
        self.node = node
        self.node_port_ips = node_port_ips
        self._rules: dict[ServicePortName, PortRules] = {}
        self._order: list[tuple[str, ServicePortName]] = []
        self._rendered_from: dict[ServicePortName, tuple[ServicePort, tuple[Endpoint, ...]]] = {}
        self._counts: dict[str, int] = {"filter": 0, "nat": len(self._node_port_dispatch())}
        for (table, _), text in self._fixed_rules().items():
            self._counts[table] += text.count("\n")

    @property
    def rule_totals(self) -> Mapping[str, int]:
        """How many rules of ours stand in each table, jumps from built-in chains not counted."""
        return dict(self._counts)

    @property
    def localnet(self) -> bool:
        """Whether NodePorts answer on 127.0.0.0/8, which needs route_localnet and a guard against misuse."""
        if self.family is not Family.IPV4 or not self.settings.localhost_node_ports:
            return False
        return self.node_port_ips is None or any(address.is_loopback for address in self.node_port_ips)

    def full(self, state: ProxyState, standing: Standing) -> Document:
        """Everything: all chains, missing jumps, and the removal of chains that belong to nothing."""
        ports = {port.name for port in state.ports()}
        for name in ports | self._rules.keys():
            self._replace(state, name)
        tables = {table: _Table([CANARY]) for table in CANARY_TABLES}
        self._write_jumps(tables, standing)
        fixed = self._fixed_rules()
        for (table, chain), text in fixed.items():
            tables[table].chains.append(chain)
            tables[table].rules.append(text)
        for table, chain in _SHARED:
            tables[table].chains.append(chain)
            tables[table].rules.append(self._shared_text(table, chain))
        nat = tables["nat"]
        active: set[str] = set()
        for _, name in self._order:
            rules = self._rules[name]
            active.update(rules.chains)
            nat.chains.extend(rules.chains)
            nat.rules.append(rules.rules)
        nat.deleted.extend(sorted(standing.service_chains - active))
        return _document(tables, full=True)

    def partial(self, state: ProxyState, changes: Changes) -> Document | None:
        """Only chains whose rules differ from the last document's; None when none does."""
        tables = {"filter": _Table(), "nat": _Table()}
        nat = tables["nat"]
        touched: set[tuple[str, str]] = set()
        for name in sorted(changes.updated | changes.removed):
            before, after = self._replace(state, name)
            if before == after:
                continue
            touched.update(
                where for where, block in _SHARED.items() if getattr(before, block) != getattr(after, block)
            )
            gone = [chain for chain in before.chains if chain not in after.chains]
            nat.deleted.extend(gone)
            if before.rules != after.rules:
                chains, rules = _changed_chains(before, after)
                nat.chains.extend(chains)
                nat.rules.extend(rules)
        for table, chain in _SHARED:
            if (table, chain) in touched:
                tables[table].chains.append(chain)
                tables[table].rules.append(self._shared_text(table, chain))
        return _document(tables, full=False) if any(tables.values()) else None

    def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """What of all rules serves one service port, in the order in which its packets meet it."""
        port = state.port(name)
        if port is None:
            return ()
        fixed = self._fixed_rules()
        tail = [
            (where, fixed[where]) for where in (("nat", MARK_MASQ), ("filter", FORWARD), ("nat", POSTROUTING))
        ]
        rules = self._render(state, port, state.endpoints(name))
        return serving_sections(rules, self._node_port_dispatch(), tail, self.family)

    def _render(self, state: ProxyState, port: ServicePort, endpoints: tuple[Endpoint, ...]) -> PortRules:
        comments = state.endpoint_count <= LARGE_CLUSTER_ENDPOINTS
        choice = choose(port, endpoints, self.node)
        return render_port(port, choice, self.node, self.settings, comments=comments)

    def _replace(self, state: ProxyState, name: ServicePortName) -> tuple[PortRules, PortRules]:
        """Render one port anew if it differs from last time (or drop it); the rules before and after."""
        port, endpoints = state.port(name), state.endpoints(name)
        before = self._rules.get(name, _NO_RULES)
        source = self._rendered_from.get(name)
        if source is not None:
            if (port, endpoints) == source:
                return before, before
            del self._order[bisect.bisect_left(self._order, source[0].order)]
            del self._rules[name], self._rendered_from[name]
        after = _NO_RULES
        if port is not None:
            after = self._render(state, port, endpoints)
            self._rules[name] = after
            self._rendered_from[name] = (port, endpoints)
            bisect.insort(self._order, port.order)
        self._count(before, -1)
        self._count(after, 1)
        return before, after

    def _count(self, rules: PortRules, sign: int) -> None:
        for (table, _), block in _SHARED.items():
            self._counts[table] += sign * getattr(rules, block).count("\n")
        self._counts["nat"] += sign * rules.rules.count("\n")

    def _shared_text(self, table: str, chain: str) -> str:
        block = _SHARED[table, chain]
        text = "".join([getattr(self._rules[name], block) for _, name in self._order])
        if (table, chain) == ("nat", SERVICES):
            text += "".join(self._node_port_dispatch())
        return text

    def _write_jumps(self, tables: Mapping[str, _Table], standing: Standing) -> None:
        for jump in self._jumps():
            if jump not in standing.jumps:
                tables[jump.table].rules.append(f"-I {jump.source} {jump.rule}\n")

    def _jumps(self) -> tuple[Jump, ...]:
        return (*LOCALNET_JUMPS, *JUMPS) if self.localnet else JUMPS

    def _fixed_rules(self) -> dict[tuple[str, str], str]:
        """Chains whose rules depend on the settings only."""
        mark = self.settings.mark
        fully = " --random-fully" if self.settings.random_fully else ""
        invalid = (
            "" if self.settings.tcp_be_liberal else f"-A {FORWARD} -m conntrack --ctstate INVALID -j DROP\n"
        )
        fixed = {
            ("filter", FORWARD): (
                f"{invalid}"
                f'-A {FORWARD} -m comment --comment "kubernetes forwarding rules" '
                f"-m mark --mark {mark}/{mark} -j ACCEPT\n"
                f'-A {FORWARD} -m comment --comment "kubernetes forwarding conntrack rule" '
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
            ),
            ("nat", POSTROUTING): (
                f"-A {POSTROUTING} -m mark ! --mark {mark}/{mark} -j RETURN\n"
                f"-A {POSTROUTING} -j MARK --set-xmark {mark}/0x0\n"
                f'-A {POSTROUTING} -m comment --comment "kubernetes service traffic requiring SNAT" '
                f"-j MASQUERADE{fully}\n"
            ),
            ("nat", MARK_MASQ): f"-A {MARK_MASQ} -j MARK --set-xmark {mark}/{mark}\n",
        }
        if self.localnet:
            fixed["filter", FIREWALL] = (
                f"-A {FIREWALL} ! -s 127.0.0.0/8 -d 127.0.0.0/8 "
                '-m comment --comment "block incoming localnet connections" '
                "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"
            )
        return fixed

    def _node_port_dispatch(self) -> list[str]:
        """The end of KUBE-SERVICES. Earlier it would swallow external IPs that are addresses of the node."""
        note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
        comment = f'-m comment --comment "{note}"'
        if self.node_port_ips is None:
            spared = ""
            if self.family is Family.IPV6:
                spared = "! -d ::1/128 "
            elif not self.settings.localhost_node_ports:
                spared = "! -d 127.0.0.0/8 "
            return [f"-A {SERVICES} {spared}{comment} -m addrtype --dst-type LOCAL -j {NODE_PORTS}\n"]
        return [
            f"-A {SERVICES} -d {address}/{address.max_prefixlen} {comment} -j {NODE_PORTS}\n"
            for address in self.node_port_ips
            if not address.is_loopback or self.localnet
        ]


def read_standing(saved: str) -> Standing:
    """What iptables-save says of us: chains of services, and which of the jumps are there."""
    chains: set[str] = set()
    jumps: set[Jump] = set()
    wanted = {
        (jump.table, jump.source, tuple(shlex.split(jump.rule))): jump for jump in (*LOCALNET_JUMPS, *JUMPS)
    }
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":KUBE-"):
            chain = line[1:].split(" ", 1)[0]
            if table == "nat" and is_service_chain(chain):
                chains.add(chain)
        elif line.startswith("-A ") and not line.startswith("-A KUBE-") and " -j KUBE-" in line:
            _, source, *words = shlex.split(line)
            jump = wanted.get((table, source, tuple(words)))
            if jump is not None:
                jumps.add(jump)
    return Standing(frozenset(chains), frozenset(jumps))


_RULE_CHAIN = re.compile(r"-A (\S+)")


def _changed_chains(before: PortRules, after: PortRules) -> tuple[list[str], list[str]]:
    """Chains of one port that must be written: those whose rules differ. A kept chain keeps its counters."""
    old, new = _by_chain(before.rules), _by_chain(after.rules)
    changed = [
        chain for chain in after.chains if chain not in before.chains or old.get(chain) != new.get(chain)
    ]
    return changed, [new[chain] for chain in changed if chain in new]


def _by_chain(rules: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for line in rules.splitlines(keepends=True):
        match = _RULE_CHAIN.match(line)
        if match:
            found.setdefault(match[1], []).append(line)
    return {chain: "".join(lines) for chain, lines in found.items()}


def _document(tables: Mapping[str, _Table], *, full: bool) -> Document:
    written = {table: contents for table, contents in tables.items() if contents}
    return Document(
        "".join(contents.text(table) for table, contents in written.items()),
        full,
        {table: _rule_count(contents.rules) for table, contents in written.items()},
    )


def _rule_count(blocks: Iterable[str]) -> int:
    return sum(block.count("\n") for block in blocks)
