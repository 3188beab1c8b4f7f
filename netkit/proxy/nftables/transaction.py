"""Changes gathered for one transaction, and the order in which the kernel takes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netkit.kernel.nft import wire
from netkit.kernel.nft.objects import Chain, Element, SetSpec, TableWriter
from netkit.kernel.nft.template import Template
from netkit.proxy.nftables.layout import NOTHING, Part


class Transaction:
    """Chains come first, empty, because rules and elements lead to them; then rules lose their old contents, sets
    change, rules get their new contents, and elements move. What is unused is emptied or deleted last.

    `ports` counts the parts moved and `rules` the rules written, `made` and `stale` are the chains made and emptied.

    A chain with an anonymous set does not lose its old rules yet: the new ones are put before them. A packet on its way
    through the old ones may ask the set only after the kernel has changed over, and would find it empty; it would pass
    unchanged, and be refused. `outgrown` says how many rules such chains are to keep once all packets of then are
    through: the first ones; `later` holds what else can only go then.
    """

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._templates = _templates(writer)
        self._new_chains: list[bytes] = []
        self._flushed: list[bytes] = []
        self._sets: list[bytes] = []
        self._rules: list[bytes] = []
        self._last: list[bytes] = []
        self.elements_gone: dict[str, list[Element]] = {}
        self.elements: dict[str, list[Element]] = {}
        self.made: list[str] = []
        self.stale: list[str] = []
        self.outgrown: dict[str, int] = {}
        self.later: list[bytes] = []
        self.ports = 0
        self.rules = 0
        self._set_ids: set[int] = set()

    def takes(self, part: Part) -> bool:
        """Whether the part's anonymous sets have numbers that no other of this transaction has."""
        return self._set_ids.isdisjoint(part.anonymous)

    def move(self, before: Part, after: Part) -> None:
        """Turn one part's chains and sets into another's. Their elements are the caller's business."""
        add, flush = self._templates
        self._set_ids.update(after.anonymous)
        if before is NOTHING:
            names = [chain.encode() for chain in after.chains]
            self._new_chains += map(add.fill, names)
            self.made += after.chains
            self._rules += after.chains.values()
            self._sets += map(self._writer.add_set, after.sets.values())
            self.ports += bool(names)
            self.rules += after.rules
            return
        resized = {
            name for name, spec in after.sets.items() if name in before.sets and before.sets[name] != spec
        }
        with_set = set(before.anonymous.values())
        changed = False
        for chain, rules in after.chains.items():
            known = before.chains.get(chain)
            if known == rules and not resized:
                continue
            changed = True
            if known is not None and chain in with_set and not resized:
                self.outgrown[chain] = self._fill(wire.in_front(rules))
                continue
            if known is None:
                self._new_chains.append(add.fill(chain.encode()))
                self.made.append(chain)
            else:
                self._flushed.append(flush.fill(chain.encode()))
            self._fill(rules)
        for chain in before.chains:
            if chain not in after.chains:
                self.empty_chain(chain)
                changed = True
        for name, spec in after.sets.items():
            if name in resized:
                self._sets.append(self._writer.delete_set(name))
            if name in resized or name not in before.sets:
                self._sets.append(self._writer.add_set(spec))
        used = not self.outgrown.keys().isdisjoint(with_set)
        for name in before.sets:
            if name not in after.sets:
                (self.later if used else self._last).append(self._writer.delete_set(name))
        self.ports += changed

    def add_chain(self, chain: Chain, rules: bytes) -> None:
        """Make a chain of the frame."""
        self._new_chains.append(self._writer.add_chain(chain))
        self._fill(rules)

    def rewrite_chain(self, chain: str, rules: bytes) -> None:
        """Give a chain other rules."""
        self._flushed.append(self._writer.flush_chain(chain))
        self._fill(rules)

    def add_set(self, spec: SetSpec) -> None:
        self._sets.append(self._writer.add_set(spec))

    def empty_chain(self, chain: str, *, known_empty: bool = False) -> None:
        """Take a chain's rules away; it is deleted later."""
        if not known_empty:
            self._last.append(self._templates[1].fill(chain.encode()))
        self.stale.append(chain)

    def remove_base_chain(self, chain: str) -> None:
        """Remove a chain that nothing but a hook leads to."""
        self._last += [self._writer.flush_chain(chain), self._writer.delete_chain(chain)]

    def _fill(self, rules: bytes) -> int:
        """Write the rules; how many they are."""
        self._rules.append(rules)
        count = sum(kind & 0xFF == wire.Message.NEWRULE for kind, *_ in wire.messages(rules))
        self.rules += count
        return count

    def all(self) -> Iterator[list[bytes]]:
        """The transaction, if there is anything in it."""
        found = [*self._new_chains, *self._flushed, *self._sets, *(rules for rules in self._rules if rules)]
        for name, gone in self.elements_gone.items():
            found += self._writer.delete_elements(name, gone)
        for name, elements in self.elements.items():
            found += self._writer.add_elements(name, elements)
        found += self._last
        if found:
            yield found


SETS_PER_TRANSACTION = 100
"""Anonymous sets make the kernel walk the open transaction: many small ones are faster than a large one."""


class Load:
    """Parts that come into a table where nothing is yet: all chains first, and those with anonymous sets in a few
    transactions of their own, which are short for that reason.
    """

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._add = _templates(writer)[0]
        self._chains: list[bytes] = []
        self._sets: list[bytes] = []
        self._rules: list[bytes] = []
        self._with_sets: list[tuple[int, bytes]] = []
        self.ports = 0

    def add(self, part: Part) -> None:
        fill = self._add.fill
        with_set = {chain: number for number, chain in part.anonymous.items()}
        for chain, rules in part.chains.items():
            self._chains.append(fill(chain.encode()))
            number = with_set.get(chain)
            if number is None:
                self._rules.append(rules)
            else:
                self._with_sets.append((number, rules))
        for spec in part.sets.values():
            self._sets.append(self._writer.add_set(spec))
        self.ports += 1

    def transactions(self) -> Iterator[list[bytes]]:
        """What was added, in the order in which it can be committed."""
        first = [*self._chains, *self._sets, *self._rules]
        if first:
            yield first
        numbers: set[int] = set()
        batch: list[bytes] = []
        for number, rules in self._with_sets:
            if len(batch) >= SETS_PER_TRANSACTION or number in numbers:
                yield batch
                numbers, batch = set(), []
            numbers.add(number)
            batch.append(rules)
        if batch:
            yield batch


_CACHE: dict[tuple[int, str], tuple[Template, Template]] = {}


def _templates(writer: TableWriter) -> tuple[Template, Template]:
    """Making and emptying a chain."""
    key = (writer.family, writer.table)
    found = _CACHE.get(key)
    if found is None:
        found = _CACHE[key] = (
            Template(lambda values: writer.add_chain(Chain(values["chain"].decode())), ("chain",)),
            Template(lambda values: writer.flush_chain(values["chain"].decode()), ("chain",)),
        )
    return found
