"""The whole rule set of the iptables mode, and the shortest document that brings the kernel to it.

`RuleBook` keeps the rendered text of every service port. The loop hands it a state; it answers with a
`Document` for iptables-restore that writes what differs from the kernel (full) or from the last time (partial), or
with None when not one rule would differ. Pure: it never runs anything. A document that failed to load is mended by
asking for a full one.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence

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
    MARK_MASQ,
    NODE_PORTS,
    POSTROUTING,
    PROXY_FIREWALL,
    SERVICES,
)
from netkit.proxy.iptables.document import Document, Draft
from netkit.proxy.iptables.fixed import fixed_rules, node_port_dispatch
from netkit.proxy.iptables.inspection import serving_sections
from netkit.proxy.iptables.rules import LARGE_CLUSTER_ENDPOINTS, IPTablesSettings, PortRules, render_port
from netkit.proxy.iptables.standing import Standing, Where
from netkit.proxy.listing import Section
from netkit.proxy.services import ServicePort, ServicePortName
from netkit.proxy.state import Changes, ProxyState

_SHARED: Mapping[Where, str] = {
    ("filter", SERVICES): "filter_services",
    ("filter", EXTERNAL_SERVICES): "filter_external",
    ("filter", PROXY_FIREWALL): "filter_firewall",
    ("filter", NODE_PORTS): "filter_node_ports",
    ("nat", SERVICES): "nat_services",
    ("nat", NODE_PORTS): "nat_node_ports",
}
"""Chains that all service ports share, and the block of `PortRules` each is made of."""

_NO_RULES = PortRules()

_Rank = tuple[str, str, str, str, str]


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
        self._fixed = fixed_rules(settings)
        self._dispatch = node_port_dispatch(family, settings, node_port_ips)
        self._rules: dict[ServicePortName, PortRules] = {}
        self._rendered_from: dict[ServicePortName, tuple[ServicePort, tuple[Endpoint, ...]]] = {}
        self._order: list[tuple[_Rank, ServicePortName]] = []
        self._comments = True
        self._counts = {"filter": 0, "nat": self._dispatch.count("\n")}
        for (table, _), text in self._fixed.items():
            self._counts[table] += text.count("\n")

    @property
    def rule_totals(self) -> Mapping[str, int]:
        """How many rules of ours stand in each table, jumps from built-in chains not counted."""
        return dict(self._counts)

    def same_as(self, other: RuleBook) -> bool:
        """Whether the other book would write the same rules for every service port."""
        mine = (self.family, self.settings, self.node, self.node_port_ips)
        return mine == (other.family, other.settings, other.node, other.node_port_ips)

    def outgrown(self, state: ProxyState) -> bool:
        """Whether the number of endpoints passed the limit for comments, so that a full document is due."""
        return self._comments != _comments(state)

    def full(self, state: ProxyState, standing: Standing) -> Document | None:
        """All that `standing` lacks: chains, jumps, and the removal of chains that belong to nothing."""
        self._render_all(state)
        return self._difference(standing)

    def intact(self, standing: Standing) -> bool:
        """Whether `standing` is just what was rendered last."""
        return self._difference(standing) is None

    def partial(self, state: ProxyState, changes: Changes) -> Document | None:
        """Only chains whose rules differ from the last document's; None when none does."""
        draft = Draft()
        touched: set[Where] = set()
        for name in sorted(changes.updated | changes.removed):
            place = self._place(name)
            before, after = self._replace(state, name)
            if before is after:
                continue
            moved = place != self._place(name)
            touched.update(
                where
                for where, block in _SHARED.items()
                if getattr(before, block) != getattr(after, block) or (moved and getattr(after, block))
            )
            draft.delete("nat", [chain for chain in before.own if chain not in after.own])
            for chain, rules in after.own.items():
                if before.own.get(chain) != rules:
                    draft.write("nat", chain, rules)
        for where in _SHARED:
            if where in touched:
                draft.write(*where, self._shared_text(where))
        return draft.document(full=False)

    def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """What of all rules serves one service port, in the order in which its packets meet it."""
        port = state.port(name)
        if port is None:
            return ()
        tail = [
            (where, self._fixed[where])
            for where in (("nat", MARK_MASQ), ("filter", FORWARD), ("nat", POSTROUTING))
        ]
        rules = self._render(port, state.endpoints(name), comments=_comments(state))
        return serving_sections(rules, self._dispatch, tail, self.family)

    # what is wanted

    def _difference(self, standing: Standing) -> Document | None:
        draft = Draft()
        for table in CANARY_TABLES:
            if (table, CANARY) not in standing.chains:
                draft.write(table, CANARY, "")
        for where, rules in self._chains(standing):
            if not standing.holds(where, rules, self.family):
                draft.write(*where, rules)
        wanted = {chain for rules in self._rules.values() for chain in rules.own}
        draft.delete("nat", standing.service_chains - wanted)
        for jump in JUMPS:
            if jump not in standing.jumps:
                draft.jump(jump)
        return draft.document(full=True)

    def _chains(self, standing: Standing) -> Iterator[tuple[Where, str]]:
        """All chains but the canaries, and what is to be in them."""
        for where in _SHARED:
            yield where, self._shared_text(where)
        yield from self._fixed.items()
        firewall = ("filter", FIREWALL)
        # Where it is of no use to us, it may still be the kubelet's.
        if firewall not in self._fixed and not (standing.kubelet and firewall in standing.chains):
            yield firewall, ""
        for _, name in self._order:
            for chain, rules in self._rules[name].own.items():
                yield ("nat", chain), rules

    def _shared_text(self, where: Where) -> str:
        block = _SHARED[where]
        text = "".join([getattr(self._rules[name], block) for _, name in self._order])
        return text + self._dispatch if where == ("nat", SERVICES) else text

    # rendering

    def _render_all(self, state: ProxyState) -> None:
        """Render what differs from last time; cheaper than one by one, since the order is made once."""
        if self.outgrown(state):
            self._comments = _comments(state)
            self._rendered_from.clear()
        ports = list(state.ports())
        for name in self._rules.keys() - {port.name for port in ports}:
            self._put(name, _NO_RULES)
            self._rendered_from.pop(name, None)
        for port in ports:
            source = (port, state.endpoints(port.name))
            if self._rendered_from.get(port.name) != source:
                self._put(port.name, self._render(*source, comments=self._comments))
                self._rendered_from[port.name] = source
        self._order = [(port.rank, port.name) for port in ports]

    def _replace(self, state: ProxyState, name: ServicePortName) -> tuple[PortRules, PortRules]:
        """Render one port anew if it differs from last time (or drop it); the rules before and after."""
        port, endpoints = state.port(name), state.endpoints(name)
        before = self._rules.get(name, _NO_RULES)
        source = self._rendered_from.get(name)
        if source is not None:
            if (port, endpoints) == source:
                return before, before
            del self._order[bisect.bisect_left(self._order, (source[0].rank, name))]
            del self._rendered_from[name]
        after = _NO_RULES
        if port is not None:
            after = self._render(port, endpoints, comments=self._comments)
            self._rendered_from[name] = (port, endpoints)
            bisect.insort(self._order, (port.rank, name))
        self._put(name, after)
        return before, after

    def _place(self, name: ServicePortName) -> _Rank | None:
        """What decides where in shared chains the port's rules stand; it differs when a Service was made anew."""
        source = self._rendered_from.get(name)
        return source[0].rank if source is not None else None

    def _render(self, port: ServicePort, endpoints: tuple[Endpoint, ...], *, comments: bool) -> PortRules:
        return render_port(
            port, choose(port, endpoints, self.node), self.node, self.settings, comments=comments
        )

    def _put(self, name: ServicePortName, after: PortRules) -> None:
        """Have the port's rules be `after`, and count."""
        before = self._rules.pop(name, _NO_RULES)
        if after is not _NO_RULES:
            self._rules[name] = after
        for rules, sign in ((before, -1), (after, 1)):
            if rules is not _NO_RULES:
                in_filter, in_nat = rules.count()
                self._counts["filter"] += sign * in_filter
                self._counts["nat"] += sign * in_nat


def _comments(state: ProxyState) -> bool:
    return state.endpoint_count <= LARGE_CLUSTER_ENDPOINTS
