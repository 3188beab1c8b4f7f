"""Whether what stands in the kernel is what a rendering asks for. Pure.

The kernel gives rules back in the form in which they were sent, so bytes are compared first. Where they differ (an
anonymous set of another name, an older kernel that leaves an attribute out) the expressions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from netkit.kernel.nft import wire
from netkit.kernel.nft.expressions import Expression, Lookup, decode
from netkit.kernel.nft.objects import Contents, Rule, SetSpec, elements_of, rule_of, set_of
from netkit.kernel.nft.wire import HEADER_BYTES, Message


class Standing:
    """The contents of the table as read back."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents

    def holds(self, chain: str, block: bytes) -> bool:
        """Whether the chain has exactly the rules that the messages of `block` make."""
        found = self.contents.rules.get(chain)
        if found is None:
            return False
        rules, made = _read(block)
        if len(rules) != len(found):
            return False
        if not made.sets and rules == found:
            return True
        return all(self._same(rule, made, other) for rule, other in zip(rules, found, strict=True))

    def _same(self, rule: Rule, made: Contents, other: Rule) -> bool:
        """Whether a rule means what one means that stands; `made` has the anonymous set of the first."""
        ours, theirs = decode(rule.expressions), decode(other.expressions)
        if rule.comment != other.comment or len(ours) != len(theirs):
            return False
        return all(self._same_expression(one, made, two) for one, two in zip(ours, theirs, strict=True))

    def _same_expression(self, ours: Expression, made: Contents, theirs: Expression) -> bool:
        if not isinstance(ours, Lookup) or ours.set_name not in made.sets:
            return ours == theirs
        if not isinstance(theirs, Lookup) or replace(theirs, set_name=ours.set_name) != ours:
            return False
        wanted, found = made.sets[ours.set_name], self.contents.sets.get(theirs.set_name)
        if found is None or not found.anonymous:
            return False
        if found.signature:
            return found.signature == wanted.signature
        return set(self.contents.elements[found.name]) == set(made.elements[wanted.name])

    def named_sets(self) -> Mapping[str, SetSpec]:
        """The sets that do not belong to a rule."""
        return {name: spec for name, spec in self.contents.sets.items() if not spec.anonymous}


def _read(block: bytes) -> tuple[list[Rule], Contents]:
    """The rules that a chain's messages make, and their anonymous set."""
    rules: list[Rule] = []
    made = Contents()
    last = ""
    offset = 0
    while offset < len(block):
        length, kind = wire.HEADER.unpack_from(block, offset)[:2]
        body = block[offset + HEADER_BYTES : offset + length]
        match kind & 0xFF:
            case Message.NEWRULE:
                rules.append(rule_of(body)[1])
            case Message.NEWSET:
                spec = set_of(body)
                made.sets[spec.name], made.elements[spec.name], last = spec, [], spec.name
            case Message.NEWSETELEM:
                made.elements[last] += elements_of(body)[1]
        offset += (length + 3) & ~3
    return rules, made
