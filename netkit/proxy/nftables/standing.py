"""Whether what stands in the kernel is what a rendering asks for. Pure.

The kernel gives rules back in the form in which they were sent, so bytes are compared first. Where they differ (an
anonymous set of another name, an older kernel that leaves an attribute out) the expressions are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        rules, sets = _outline(block)
        if len(rules) != len(found):
            return False
        if rules == found and all(map(self._has_set, sets)):
            return True
        made = _made(block)
        return all(self._same(rule, made, other) for rule, other in zip(rules, found, strict=True))

    def has_any_set(self, block: bytes) -> bool:
        """Whether a set of a name stands that the messages of `block` would give to a set of their own."""
        return any(set_of(message).name in self.contents.sets for message in _outline(block)[1])

    def _has_set(self, message: bytes) -> bool:
        """Whether an anonymous set stands that has the same name and, by its signature, the same elements."""
        spec = set_of(message)
        found = self.contents.sets.get(spec.name)
        return found is not None and bool(spec.signature) and found.signature == spec.signature

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


def _outline(block: bytes) -> tuple[list[Rule], list[bytes]]:
    """The rules that a chain's messages make, and the messages that make its anonymous sets."""
    rules: list[Rule] = []
    sets: list[bytes] = []
    for kind, body in _messages(block):
        if kind == Message.NEWRULE:
            rules.append(rule_of(body)[1])
        elif kind == Message.NEWSET:
            sets.append(body)
    return rules, sets


def _made(block: bytes) -> Contents:
    """The anonymous sets of a chain's messages, with their elements."""
    made = Contents()
    last = ""
    for kind, body in _messages(block):
        if kind == Message.NEWSET:
            spec = set_of(body)
            made.sets[spec.name], made.elements[spec.name], last = spec, [], spec.name
        elif kind == Message.NEWSETELEM:
            made.elements[last] += elements_of(body)[1]
    return made


def _messages(block: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(block):
        length, kind = wire.HEADER.unpack_from(block, offset)[:2]
        yield kind & 0xFF, block[offset + HEADER_BYTES : offset + length]
        offset += (length + 3) & ~3
