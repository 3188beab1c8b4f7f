"""Whether what stands in the kernel is what a rendering asks for. Pure.

The kernel gives rules back in the form in which they were sent, so bytes are compared first. Where they differ (an
anonymous set has got a number, an older kernel leaves an attribute out) the expressions are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from netkit.kernel.nft import wire
from netkit.kernel.nft.expressions import ANONYMOUS_MAP, Expression, Lookup, decode
from netkit.kernel.nft.objects import Contents, Element, Rule, SetSpec, elements_of, rule_of
from netkit.kernel.nft.wire import HEADER_BYTES, Message

_ANONYMOUS_MARK = b"%d\0"
_Meaning = tuple[str, tuple[tuple[Expression, frozenset[Element]], ...]]


class Standing:
    """The contents of the table as read back."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._anonymous = {name for name, spec in contents.sets.items() if spec.anonymous}

    def holds(self, chain: str, block: bytes) -> bool:
        """Whether the chain has exactly the rules that the messages of `block` make."""
        found = self.contents.rules.get(chain)
        if found is None:
            return False
        rules, elements = _read(block)
        if len(rules) != len(found):
            return False
        return all(
            rule == other or _meaning(rule, elements) == self._meaning(other)
            for rule, other in zip(rules, found, strict=True)
        )

    def _meaning(self, rule: Rule) -> _Meaning:
        return _meaning(rule, {name: self.contents.elements[name] for name in self._used(rule)})

    def _used(self, rule: Rule) -> Iterable[str]:
        for expression in decode(rule.expressions):
            if isinstance(expression, Lookup) and expression.set_name in self._anonymous:
                yield expression.set_name

    def named_sets(self) -> Mapping[str, SetSpec]:
        """The sets that do not belong to a rule."""
        return {name: spec for name, spec in self.contents.sets.items() if name not in self._anonymous}


def _meaning(rule: Rule, anonymous: Mapping[str, Iterable[Element]]) -> _Meaning:
    """The comment, and each expression with the elements of the anonymous set it uses."""
    found: list[tuple[Expression, frozenset[Element]]] = []
    for expression in decode(rule.expressions):
        if isinstance(expression, Lookup) and expression.set_name in anonymous:
            elements = frozenset(anonymous[expression.set_name])
            found.append((replace(expression, set_name=ANONYMOUS_MAP, set_id=0), elements))
        else:
            found.append((expression, frozenset()))
    return rule.comment, tuple(found)


def _read(block: bytes) -> tuple[list[Rule], dict[str, list[Element]]]:
    """The rules that a chain's messages make, and the elements of their anonymous sets by name."""
    rules: list[Rule] = []
    elements: dict[str, list[Element]] = {}
    offset = 0
    while offset < len(block):
        length, kind = wire.HEADER.unpack_from(block, offset)[:2]
        body = block[offset + HEADER_BYTES : offset + length]
        if kind & 0xFF == Message.NEWRULE:
            rules.append(rule_of(body)[1])
        elif kind & 0xFF == Message.NEWSETELEM:
            name, found = elements_of(body)
            elements.setdefault(name, []).extend(found)
        offset += (length + 3) & ~3
    return rules, elements
