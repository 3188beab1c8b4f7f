"""The sum of all ports' plans in IPVS mode, and what differs between it and the kernel.

`Book` counts who wants what: several service ports may need one entry of a set or one address, and two Services may
claim one address and port, which the older one keeps. The loop's changes go in, a `Delta` of only what changed comes
out; compared with a `Standing` read from the kernel it gives the delta of a full sync. Pure: it never runs anything.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from netkit.kernel.ipvs_values import RealServer, ServerKey, Target, VirtualServer
from netkit.proxy.addresses import Address, Family
from netkit.proxy.choice import NodeView, choose
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.ipvs import sets
from netkit.proxy.ipvs.chains import JUMPS, ChainSettings, KeptFromNode, Place, chains
from netkit.proxy.ipvs.plan import NodeNetwork, PortPlan, ServerPlan, plan_port
from netkit.proxy.ipvs.sets import SetKind
from netkit.proxy.services import ServicePort, ServicePortName
from netkit.proxy.state import ProxyState

Order = tuple[str, ServicePortName]
SetEntry = tuple[SetKind, str]
Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StandingServer:
    """A virtual server in the kernel, and its real servers by target."""

    server: VirtualServer
    reals: Mapping[Target, RealServer] = field(default_factory=dict)

    @property
    def weights(self) -> Mapping[Target, int]:
        return {target: real.weight for target, real in self.reals.items()}


@dataclass(frozen=True, slots=True)
class Standing:
    """What of ours is in the kernel. `sets` misses those that are not there; `chains` too.

    `jumps` are the rules of built-in chains that lead into our chains.
    """

    servers: Mapping[ServerKey, StandingServer] = field(default_factory=dict)
    sets: Mapping[SetKind, frozenset[str]] = field(default_factory=dict)
    device: bool = False
    bound: frozenset[Address] = frozenset()
    chains: Mapping[Place, Rules] = field(default_factory=dict)
    jumps: frozenset[tuple[Place, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class ServerChange:
    """A virtual server before and after: before as weights of real servers, after as a plan. None: not there."""

    key: ServerKey
    before: VirtualServer | None
    weights: Mapping[Target, int]
    after: ServerPlan | None


@dataclass(frozen=True, slots=True)
class Delta:
    """What has to be done. False when that is nothing."""

    servers: tuple[ServerChange, ...] = ()
    added: tuple[SetEntry, ...] = ()
    removed: tuple[SetEntry, ...] = ()
    bound: tuple[Address, ...] = ()
    unbound: tuple[Address, ...] = ()
    chains: Mapping[Place, Rules] = field(default_factory=dict)
    missing_sets: tuple[SetKind, ...] = ()
    missing_device: bool = False
    missing_jumps: tuple[tuple[Place, str], ...] = ()

    def rules_in(self, table: str) -> Delta:
        """The same, of the rules only those of one table."""
        return replace(
            self,
            chains={place: rules for place, rules in self.chains.items() if place[0] == table},
            missing_jumps=tuple(jump for jump in self.missing_jumps if jump[0][0] == table),
        )

    def __bool__(self) -> bool:
        return any(
            (
                self.servers,
                self.added,
                self.removed,
                self.bound,
                self.unbound,
                self.chains,
                self.missing_sets,
                self.missing_device,
                self.missing_jumps,
            )
        )


class Book:
    """What all service ports of one address family need on one node, under settings that do not change."""

    def __init__(
        self, family: Family, settings: ChainSettings, scheduler: str, node: NodeView, network: NodeNetwork
    ) -> None:
        self.family = family
        self.settings = settings
        self.scheduler = scheduler
        self.node = node
        self.network = network
        self._plans: dict[ServicePortName, PortPlan] = {}
        self._planned_from: dict[ServicePortName, tuple[ServicePort, tuple[Endpoint, ...]]] = {}
        self._claims: dict[ServerKey, list[tuple[Order, ServerPlan]]] = {}
        self._entries: dict[SetKind, Counter[str]] = {kind: Counter() for kind in sets.SETS}
        self._bound: Counter[Address] = Counter()
        self._kept: list[tuple[Order, tuple[KeptFromNode, ...]]] = []
        self.chains = self._render_chains()

    @property
    def basis(self) -> tuple[object, ...]:
        """What the book was made for; another book is needed when it differs."""
        return (self.settings, self.scheduler, self.node, self.network)

    @property
    def servers(self) -> Mapping[ServerKey, ServerPlan]:
        """All virtual servers."""
        return {key: claims[0][1] for key, claims in self._claims.items()}

    @property
    def bound(self) -> frozenset[Address]:
        """The addresses that belong on kube-ipvs0."""
        return frozenset(self._bound)

    def server(self, key: ServerKey) -> ServerPlan | None:
        """The virtual server with this key."""
        claims = self._claims.get(key)
        return claims[0][1] if claims else None

    def entries(self, kind: SetKind) -> frozenset[str]:
        """The entries of a set."""
        return frozenset(self._entries[kind])

    def plan(self, name: ServicePortName) -> PortPlan:
        """The plan of one port; empty if there is none of that name."""
        return self._plans.get(name, PortPlan())

    def learn(self, state: ProxyState) -> None:
        """Take in all of `state`, which has collected."""
        for name in {port.name for port in state.ports()} | self._plans.keys():
            self._replace(state, name, None)
        self.chains = self._render_chains()

    def partial(self, state: ProxyState, names: Iterable[ServicePortName]) -> Delta:
        """Take in the ports of these names; what differs from before."""
        touched = _Touched()
        for name in sorted(names):
            self._replace(state, name, touched)
        servers = []
        for key, before in touched.servers.items():
            after = self.server(key)
            if before != after:
                weights = dict.fromkeys(before.targets, 1) if before else {}
                servers.append(ServerChange(key, before.server if before else None, weights, after))
        before_chains, self.chains = self.chains, self._render_chains()
        now = {entry: entry[1] in self._entries[entry[0]] for entry in touched.entries}
        return Delta(
            servers=tuple(servers),
            added=tuple(entry for entry, there in now.items() if there and not touched.entries[entry]),
            removed=tuple(entry for entry, there in now.items() if not there and touched.entries[entry]),
            bound=tuple(
                address for address, was in touched.bound.items() if address in self._bound and not was
            ),
            unbound=tuple(
                address for address, was in touched.bound.items() if address not in self._bound and was
            ),
            chains={place: rules for place, rules in self.chains.items() if before_chains[place] != rules},
        )

    def against(self, standing: Standing) -> Delta:
        """What has to be done to bring the kernel from `standing` here. Real servers of weight 0 that nobody wants
        are on their way out already, and are no difference.
        """
        added: list[SetEntry] = []
        removed: list[SetEntry] = []
        for kind in sets.SETS:
            there, wanted = standing.sets.get(kind, frozenset()), self._entries[kind]
            added += [(kind, entry) for entry in wanted if entry not in there]
            removed += [(kind, entry) for entry in there if entry not in wanted]
        return Delta(
            servers=tuple(self._server_changes(standing)),
            added=tuple(added),
            removed=tuple(removed),
            bound=tuple(address for address in self._bound if address not in standing.bound),
            unbound=tuple(address for address in standing.bound if address not in self._bound),
            chains={
                place: rules for place, rules in self.chains.items() if standing.chains.get(place) != rules
            },
            missing_sets=tuple(kind for kind in sets.SETS if kind not in standing.sets),
            missing_device=not standing.device,
            missing_jumps=tuple(jump for jump in JUMPS if jump not in standing.jumps),
        )

    def _server_changes(self, standing: Standing) -> Iterable[ServerChange]:
        for key, claims in self._claims.items():
            plan, found = claims[0][1], standing.servers.get(key)
            if found is None:
                yield ServerChange(key, None, {}, plan)
                continue
            weights = found.weights
            as_wanted = all(weights.get(target) == 1 for target in plan.targets)
            leaving = all(weight == 0 for target, weight in weights.items() if target not in plan.targets)
            if found.server != plan.server or not as_wanted or not leaving:
                yield ServerChange(key, found.server, weights, plan)
        for key, found in standing.servers.items():
            if key not in self._claims:
                yield ServerChange(key, found.server, found.weights, None)

    def _replace(self, state: ProxyState, name: ServicePortName, touched: _Touched | None) -> None:
        """Plan one port anew if it differs from last time (or drop it), noting in `touched` what was before."""
        port, endpoints = state.port(name), state.endpoints(name)
        source = self._planned_from.get(name)
        if source == (port, endpoints):
            return
        before = self._plans.pop(name, PortPlan())
        after = PortPlan()
        if port is not None:
            choice = choose(port, endpoints, self.node)
            after = plan_port(port, endpoints, choice, self.node, self.network, self.scheduler)
        if touched is not None:
            self._note(touched, before)
            self._note(touched, after)
        if source is not None:
            del self._planned_from[name]
            self._forget(source[0], before)
        if port is not None:
            self._plans[name] = after
            self._planned_from[name] = (port, endpoints)
            self._remember(port, after)

    def _note(self, touched: _Touched, plan: PortPlan) -> None:
        for one in plan.servers:
            touched.servers.setdefault(one.server.key, self.server(one.server.key))
        for entry in plan.entries:
            touched.entries.setdefault(entry, entry[1] in self._entries[entry[0]])
        for address in plan.bound:
            touched.bound.setdefault(address, address in self._bound)
            entry = (sets.IPVS_IPS, str(address))
            touched.entries.setdefault(entry, entry[1] in self._entries[sets.IPVS_IPS])

    def _forget(self, port: ServicePort, plan: PortPlan) -> None:
        for one in plan.servers:
            claims = self._claims[one.server.key]
            claims[:] = [claim for claim in claims if claim[0] != port.order]
            if not claims:
                del self._claims[one.server.key]
        for kind, entry in plan.entries:
            _uncount(self._entries[kind], entry)
        for address in plan.bound:
            _uncount(self._bound, address)
            _uncount(self._entries[sets.IPVS_IPS], str(address))
        if plan.kept_from_node:
            self._kept[:] = [kept for kept in self._kept if kept[0] != port.order]

    def _remember(self, port: ServicePort, plan: PortPlan) -> None:
        for one in plan.servers:
            claims = self._claims.setdefault(one.server.key, [])
            bisect.insort(claims, (port.order, one), key=lambda claim: claim[0])
        for kind, entry in plan.entries:
            self._entries[kind][entry] += 1
        for address in plan.bound:
            self._bound[address] += 1
            self._entries[sets.IPVS_IPS][str(address)] += 1
        if plan.kept_from_node:
            kept = tuple(KeptFromNode(address, port.protocol, port.port) for address in plan.kept_from_node)
            bisect.insort(self._kept, (port.order, kept), key=lambda item: item[0])

    def _render_chains(self) -> Mapping[Place, Rules]:
        filled = {kind for kind, entries in self._entries.items() if entries}
        kept = [one for _, group in self._kept for one in group]
        return chains(self.family, self.settings, filled, kept)


@dataclass(slots=True)
class _Touched:
    """What may have changed, as it was before."""

    servers: dict[ServerKey, ServerPlan | None] = field(default_factory=dict)
    entries: dict[SetEntry, bool] = field(default_factory=dict)
    bound: dict[Address, bool] = field(default_factory=dict)


def _uncount(counter: Counter[Any], item: Any) -> None:
    counter[item] -= 1
    if not counter[item]:
        del counter[item]
