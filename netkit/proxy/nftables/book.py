"""What of the table must be written, for whatever changed: `RuleBook` turns renderings into transactions.

Called by the backend. It keeps what each service port was last rendered from, not the renderings, and who claims
which element of a shared map: of two claims on one address the older Service's counts. Pure. Transactions are
rendered while they are taken, and committed one after the other; if one fails, only a full sync mends it.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from netkit.kernel.nft.objects import Contents, Element
from netkit.proxy.addresses import Address
from netkit.proxy.choice import choose
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.nftables import names
from netkit.proxy.nftables.frame import TABLE_COMMENT
from netkit.proxy.nftables.layout import NOTHING, Layout, Part
from netkit.proxy.nftables.standing import Standing
from netkit.proxy.nftables.transaction import Load, Transaction
from netkit.proxy.services import ServicePort, ServicePortName
from netkit.proxy.state import Changes, ProxyState

PORTS_PER_TRANSACTION = 100
PORTS_PER_LOAD = 500

STALE_SECONDS = 1.0
"""For how long an emptied chain is kept: kernels before 6.2 forget only after a while that a map led to it."""

_NUMBER_BYTES = 4

_Order = tuple[str, ServicePortName]
_Source = tuple[ServicePort, tuple[Endpoint, ...]]
_Key = tuple[str, bytes]
_Claim = tuple[_Order, Element]


class RuleBook:
    """The table of one family on one node, in one layout, under settings that do not change."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.monotonic) -> None:
        self.layout = layout
        self.stale: dict[str, float] = {}
        """Chains that are empty and led to by nothing, and since when."""
        self.outgrown: dict[str, int] = {}
        """Chains whose old rules stand behind so many new ones, by the transactions given so far."""
        self.later: list[bytes] = []
        """What is to go together with these old rules, but after them."""
        self._moved: dict[_Key, Element] = {}
        """Elements that stand in another set as well by now, and are to leave this one."""
        self.written = 0
        """How many rules the transactions write that the last call of `full` or `partial` has given so far."""
        self._clock = clock
        self._frame = layout.frame()
        self._sources: dict[ServicePortName, _Source] = {}
        self._claims: dict[_Key, list[_Claim]] = {}
        self.rules = self._frame.rules

    # full

    def full(self, state: ProxyState, contents: Contents | None) -> Iterator[list[bytes]]:
        """All transactions that bring a table with these contents (None: no table) to the state; maybe none.

        They are rendered while they are taken.
        """
        self._forget()
        self.written = 0
        standing = None if contents is None or self._unusable(contents) else Standing(contents)
        if standing is not None:
            yield from self._repair(state, standing)
            return
        if contents is not None:
            yield [self.layout.writer.delete_table()]
        yield from self._load(state, state.ports())

    def alone(self, state: ProxyState, name: ServicePortName) -> Iterator[list[bytes]]:
        """The transactions that would load an empty kernel with one port, less what belongs to other ports.

        That is: addresses and node ports which an older Service claims as well.
        """
        self._forget()
        port = state.port(name)
        assert port is not None
        mine = {(where, element.key) for where, element in self._part(port, state.endpoints(name)).elements}
        rivals = [other for other in state.ports() if other.order < port.order and _may_clash(other, port)]
        lost = {
            (where, element.key)
            for other in rivals
            for where, element in self._part(other, state.endpoints(other.name)).elements
        }
        yield from self._load(
            state, [port], without=mine & lost - {(names.CLUSTER_IPS, port.cluster_ip.packed)}
        )

    def _load(
        self, state: ProxyState, ports: Iterable[ServicePort], without: Collection[_Key] = ()
    ) -> Iterator[list[bytes]]:
        """Fill an empty kernel. Nothing leads to the chains from a hook before the last transaction, so the kernel
        has no paths to check while they come in.
        """
        writer = self.layout.writer
        inner = [(chain, rules) for chain, rules in self._frame.chains if chain.hook is None]
        yield [
            writer.add_table(TABLE_COMMENT),
            *(writer.add_set(spec) for spec in self._frame.sets),
            *(writer.add_chain(chain) for chain, _ in inner),
            *(rules for _, rules in inner if rules),
        ]
        load = Load(writer)
        for port in ports:
            part = self._render(state, port.name)
            self._claim_all(part, port.order)
            load.add(part)
            if load.ports >= PORTS_PER_LOAD:
                yield from load.transactions()
                load = Load(writer)
        yield from load.transactions()
        for key in without:
            del self._claims[key]
        self.written = self.rules
        yield self._switch()

    def _switch(self) -> list[bytes]:
        """The last transaction of a load: all elements, and the base chains. With it everything takes effect."""
        writer = self.layout.writer
        found: list[bytes] = []
        for name, elements in self._wanted_elements().items():
            found += writer.add_elements(name, elements.values())
        for chain, rules in self._frame.chains:
            if chain.hook is not None:
                found += [writer.add_chain(chain), rules]
        return found

    def _repair(self, state: ProxyState, standing: Standing) -> Iterator[list[bytes]]:
        """Only what differs. Chains are written before the elements that lead to them.

        What is there of the frame changes last, together with the elements: the frame of another layout would not
        find its own elements any sooner, and nothing would be served in between.
        """
        tx = Transaction(self.layout.writer)
        self._add_to_frame(tx, standing)
        wanted = self._frame_names()
        for port in state.ports():
            part = self._render(state, port.name)
            self._claim_all(part, port.order)
            wanted.update(part.chains)
            wanted.update(part.sets)
            if tx.ports >= PORTS_PER_TRANSACTION or not tx.takes(part):
                yield from self._taken(tx)
                tx = Transaction(self.layout.writer)
            self._repair_part(tx, part, standing)
        yield from self._taken(tx)
        tx = Transaction(self.layout.writer)
        self._mend_frame(tx, standing)
        for name, elements in self._wanted_elements().items():
            found = {element.key: element for element in standing.contents.elements.get(name, ())}
            tx.elements_gone[name] = [
                element for key, element in found.items() if elements.get(key) != element
            ]
            tx.elements[name] = [element for key, element in elements.items() if found.get(key) != element]
        self._remove_unknown(tx, standing, wanted)
        yield from self._taken(tx)

    def _taken(self, tx: Transaction) -> Iterator[list[bytes]]:
        """The transaction, counted, and what it leaves for later."""
        self.written += tx.rules
        self.outgrown |= tx.outgrown
        self.later += tx.later
        yield from tx.all()

    def _frame_names(self) -> set[str]:
        """The names of all that does not depend on Services."""
        return {chain.name for chain, _ in self._frame.chains} | {spec.name for spec in self._frame.sets}

    def _add_to_frame(self, tx: Transaction, standing: Standing) -> None:
        """Make what is missing of the frame and has no effect before something leads to it."""
        for chain, rules in self._frame.chains:
            if chain.hook is None and chain.name not in standing.contents.chains:
                tx.add_chain(chain, rules)
        for spec in self._frame.sets:
            if spec.name not in standing.contents.sets:
                tx.add_set(spec)

    def _mend_frame(self, tx: Transaction, standing: Standing) -> None:
        """Write the rules of the frame that differ, and the base chains that are missing."""
        for chain, rules in self._frame.chains:
            if chain.name in standing.contents.chains:
                if not standing.holds(chain.name, rules):
                    tx.rewrite_chain(chain.name, rules)
            elif chain.hook is not None:
                tx.add_chain(chain, rules)

    def _repair_part(self, tx: Transaction, part: Part, standing: Standing) -> None:
        known = standing.contents
        changed = {name for name, spec in part.sets.items() if known.sets.get(name, spec) != spec}
        before: dict[str, bytes] = {}
        for chain, rules in part.chains.items():
            if chain in known.chains:
                # Unequal bytes stand for rules that must be written anew.
                before[chain] = rules if not changed and standing.holds(chain, rules) else b""
        sets = {name: known.sets[name] for name in part.sets if name in known.sets}
        anonymous = {
            number: chain
            for number, chain in part.anonymous.items()
            if before.get(chain) == b""
            and known.rules[chain]
            and not standing.has_any_set(part.chains[chain])
        }
        tx.move(Part(before, sets, (), anonymous), part)

    def _remove_unknown(self, tx: Transaction, standing: Standing, wanted: set[str]) -> None:
        """Chains and sets in our table that nobody asked for: ours of Services that are gone, or somebody's."""
        for name, chain in standing.contents.chains.items():
            if name in wanted:
                continue
            if chain.hook is not None:
                tx.remove_base_chain(name)
            else:
                tx.empty_chain(name, known_empty=not standing.contents.rules[name])
                self.stale[name] = self._clock()
        # Old rules that go later may still use them.
        self.later += [
            self.layout.writer.delete_set(name) for name in standing.named_sets() if name not in wanted
        ]

    def _unusable(self, contents: Contents) -> bool:
        """Whether something that cannot be changed in place is not as it must be."""
        if contents.comment != TABLE_COMMENT:
            return True
        chains = any(
            chain.name in contents.chains and contents.chains[chain.name] != chain
            for chain, _ in self._frame.chains
        )
        return chains or any(contents.sets.get(spec.name, spec) != spec for spec in self._frame.sets)

    # partial

    def partial(self, state: ProxyState, changes: Changes) -> Iterator[list[bytes]]:
        """The transactions for what changed since the last one; none when no rule differs."""
        self.written = 0
        tx = Transaction(self.layout.writer)
        touched: dict[_Key, Element | None] = {}
        for name in sorted(changes.updated | changes.removed):
            source = self._sources.get(name)
            port = state.port(name)
            if source is not None and (port, state.endpoints(name)) == source:
                continue
            before = NOTHING if source is None else self._part(*source)
            if source is not None:
                self.rules -= before.rules
                del self._sources[name]
            after = NOTHING if port is None else self._render(state, name)
            order = port.order if port is not None else source[0].order if source is not None else ("", name)
            old_order = source[0].order if source is not None else order
            if tx.ports >= PORTS_PER_TRANSACTION or not tx.takes(after):
                yield from self._closed(tx, touched)
                tx = Transaction(self.layout.writer)
            self._release_all(before, old_order, touched)
            tx.move(before, after)
            self._claim_all(after, order, touched)
        yield from self._closed(tx, touched)

    def _closed(self, tx: Transaction, touched: dict[_Key, Element | None]) -> Iterator[list[bytes]]:
        """The transaction, with the elements whose winner is another than before."""
        layout = self.layout
        moved = {
            key
            for (name, key), before in touched.items()
            if name in layout.alternatives and before is None and (name, key) in self._claims
        }
        for (name, key), before in touched.items():
            claims = self._claims.get((name, key))
            after = claims[0][1] if claims else None
            self._moved.pop((name, key), None)
            if before == after:
                continue
            if before is not None:
                called = key[:-_NUMBER_BYTES] if name in layout.numbered else key
                if after is None and called in moved and _passed(layout, name):
                    # A packet that has passed by where it is to be next looks here a moment later.
                    self._moved[name, key] = before
                else:
                    tx.elements_gone.setdefault(name, []).append(before)
            if after is not None:
                tx.elements.setdefault(name, []).append(after)
        touched.clear()
        now = self._clock()
        self.stale.update((chain, now) for chain in tx.stale)
        for chain in tx.made:
            self.stale.pop(chain, None)
        yield from self._taken(tx)

    def tidied(self, handles: Callable[[str], list[int]]) -> list[bytes]:
        """The transaction that takes away the rules which have others before them now, and with them what only they
        used. Empty when there is nothing to do. `handles` gives those of a chain's rules, in order.
        """
        delete = self.layout.writer.delete_rule
        found = [
            delete(chain, handle) for chain, kept in self.outgrown.items() for handle in handles(chain)[kept:]
        ]
        found += self.later
        for (name, _), element in self._moved.items():
            found += self.layout.writer.delete_elements(name, [element])
        self.outgrown, self.later = {}, []
        self._moved.clear()
        return found

    def expired(self) -> list[str]:
        """Chains that have been empty for long enough to be deleted."""
        limit = self._clock() - STALE_SECONDS
        return [chain for chain, since in self.stale.items() if since <= limit]

    # rendering and claims

    def _forget(self) -> None:
        self._sources.clear()
        self._claims.clear()
        self._moved.clear()
        self.stale.clear()
        self.rules = self._frame.rules

    def _render(self, state: ProxyState, name: ServicePortName) -> Part:
        """Render a port from the state and remember from what."""
        port = state.port(name)
        assert port is not None
        source = (port, state.endpoints(name))
        self._sources[name] = source
        part = self._part(*source)
        self.rules += part.rules
        return part

    def _part(self, port: ServicePort, endpoints: tuple[Endpoint, ...]) -> Part:
        return self.layout.port(port, choose(port, endpoints, self.layout.settings.node))

    def _claim_all(
        self, part: Part, order: _Order, touched: dict[_Key, Element | None] | None = None
    ) -> None:
        for name, element in part.elements:
            key = (name, element.key)
            claims = self._claims.get(key)
            if touched is not None and key not in touched:
                touched[key] = claims[0][1] if claims else None
            if claims is None:
                self._claims[key] = [(order, element)]
            else:
                insort(claims, (order, element), key=lambda claim: claim[0])

    def _release_all(self, part: Part, order: _Order, touched: dict[_Key, Element | None]) -> None:
        for name, element in part.elements:
            key = (name, element.key)
            claims = self._claims[key]
            touched.setdefault(key, claims[0][1])
            claims.remove((order, element))
            if not claims:
                del self._claims[key]

    def _wanted_elements(self) -> Mapping[str, Mapping[bytes, Element]]:
        """What the frame's sets must hold, by set and key."""
        found: dict[str, dict[bytes, Element]] = {spec.name: {} for spec in self._frame.sets}
        for name, element in self._frame.elements:
            found[name][element.key] = element
        for (name, key), claims in self._claims.items():
            found[name][key] = claims[0][1]
        return found


def _passed(layout: Layout, name: str) -> bool:
    """Whether packets come to this set by way of another of its kind."""
    return name in layout.alternatives or name in layout.numbered


def _may_clash(one: ServicePort, other: ServicePort) -> bool:
    """Whether two ports may claim the same address or node port."""
    if one.protocol is not other.protocol:
        return False
    if one.node_port and one.node_port == other.node_port:
        return True
    return one.port == other.port and not _addresses(one).isdisjoint(_addresses(other))


def _addresses(port: ServicePort) -> set[Address]:
    return {port.cluster_ip, *port.external_ips, *port.load_balancer_ips}
