"""The table as sections that can be shown and compared, and the part of it that packets of one Service meet. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netkit.kernel.nft import text
from netkit.kernel.nft.expressions import Dynset, Expression, Lookup, Verdict, decode
from netkit.kernel.nft.objects import Contents, Rule
from netkit.proxy.listing import Section
from netkit.proxy.nftables import names

_HOOKS = (
    names.FILTER_PREROUTING,
    names.NAT_PREROUTING,
    names.FILTER_INPUT,
    names.FILTER_FORWARD,
    names.FILTER_OUTPUT_PRE_DNAT,
    names.NAT_OUTPUT,
    names.FILTER_OUTPUT,
    names.NAT_POSTROUTING,
)
"""Base chains in the order of their hooks: of packets that arrive, of the node's own, of all that leave."""


def sections(contents: Contents, family: int) -> Iterator[Section]:
    """Every chain, set and map. Elements that packets add to a set are not part of it."""
    for name, spec in contents.sets.items():
        if not spec.anonymous:
            yield _set_section(contents, name)
    for name in contents.chains:
        yield _chain_section(contents, family, name, contents.rules[name])


def path(contents: Contents, family: int) -> Iterator[Section]:
    """The chains and sets of `contents`, which hold one service port's elements only, as packets meet them.

    Rules that look for something in a set where nothing of the port is cannot match, and are left out; so are
    chains without any other.
    """
    walk = _Walk(contents, family)
    for chain in _HOOKS:
        yield from walk.chain(chain)


class _Walk:
    """Goes where a packet can go, and comes to each chain and set once."""

    def __init__(self, contents: Contents, family: int) -> None:
        self._contents = contents
        self._family = family
        self._seen_chains: set[str] = set()
        self._seen_sets: set[str] = set()
        self._alive: dict[str, bool] = {}

    def chain(self, name: str) -> Iterator[Section]:
        if name in self._seen_chains or name not in self._contents.chains:
            return
        self._seen_chains.add(name)
        rules = [
            (rule, expressions)
            for rule in self._contents.rules[name]
            if self._can_match(expressions := decode(rule.expressions))
        ]
        if not rules:
            return
        yield _chain_section(self._contents, self._family, name, [rule for rule, _ in rules])
        for _, expressions in rules:
            yield from self._follow(expressions)

    def _can_match(self, expressions: tuple[Expression, ...]) -> bool:
        """Whether all sets that the rule asks have something to be found, and its chains something to do."""
        for item in expressions:
            if isinstance(item, Lookup) and not item.inverted:
                spec = self._contents.sets.get(item.set_name)
                if spec is None or not (spec.dynamic or self._contents.elements[spec.name]):
                    return False
            elif isinstance(item, Verdict) and item.chain and not self._does_something(item.chain):
                return False
        return True

    def _does_something(self, chain: str) -> bool:
        if chain not in self._alive:
            self._alive[chain] = any(
                self._can_match(decode(rule.expressions)) for rule in self._contents.rules.get(chain, ())
            )
        return self._alive[chain]

    def _follow(self, expressions: tuple[Expression, ...]) -> Iterator[Section]:
        for item in expressions:
            if isinstance(item, Lookup | Dynset):
                yield from self._set(item.set_name)
            elif isinstance(item, Verdict) and item.chain:
                yield from self.chain(item.chain)

    def _set(self, name: str) -> Iterator[Section]:
        spec = self._contents.sets[name]
        if name in self._seen_sets:
            return
        self._seen_sets.add(name)
        if not spec.anonymous:
            yield _set_section(self._contents, name)
        for element in self._contents.elements[name]:
            if isinstance(element.data, Verdict) and element.data.chain:
                yield from self.chain(element.data.chain)


def _set_section(contents: Contents, name: str) -> Section:
    spec = contents.sets[name]
    elements = () if spec.dynamic else text.element_texts(spec, contents.elements[name])
    kind = "map" if spec.is_map else "set"
    return Section(f"{kind} {name}", tuple(elements), text.set_note(spec), ordered=False)


def _chain_section(contents: Contents, family: int, name: str, rules: list[Rule]) -> Section:
    texts = tuple(text.rule_text(rule, contents, family) for rule in rules)
    return Section(f"chain {name}", texts, text.chain_note(contents.chains[name]))
