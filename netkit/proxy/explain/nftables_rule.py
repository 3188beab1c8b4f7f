"""One rule or element of nftables, as nft prints it: whether it takes a packet, and what it does then.

Knows the expressions that proxies use; one it does not know counts as undecided. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netkit.proxy.addresses import Address, parse_address, parse_network
from netkit.proxy.explain.steps import Match, Packet
from netkit.proxy.listing import Section


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of what a packet has with a value, a set (`@name`) or a list of values in braces."""

    fields: tuple[str, ...]
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A verdict map that is asked: `@name`, or its elements in braces."""

    fields: tuple[str, ...]
    target: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What is done: `jump`, `goto`, `drop`, `reject`, `return`, `accept`, `dnat`, `masquerade`, `mark`, `update`.

    `argument` is a chain, an endpoint, a set, a look-up of endpoints (`FIELDS map @name`), or empty.
    """

    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Tests that must all hold, and what follows. `text` is the rule as it was."""

    text: str
    parts: tuple[Comparison | Choice | Statement, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map. `data` is empty in sets. `text` is the element as it was."""

    text: str
    key: tuple[str, ...]
    data: str = ""


@dataclass(frozen=True, slots=True)
class Flowing:
    """A packet on its way: what the rules before have done to it. Once translated it goes to one of `targets`."""

    packet: Packet
    sections: Mapping[str, Section]
    marked: Match = Match.NO
    targets: tuple[tuple[Address, int], ...] = ()

    @property
    def goals(self) -> tuple[tuple[Address, int], ...]:
        """Where it may go: addresses and ports."""
        return self.targets or ((self.packet.destination, self.packet.port),)

    def mark(self, sure: bool) -> Flowing:
        return replace(self, marked=Match.YES if sure else max(self.marked, Match.MAYBE))

    def elements(self, name: str) -> Sequence[Element] | None:
        """The elements of a set or map; None if it is not known, or filled by packets."""
        for kind in ("set", "map"):
            section = self.sections.get(f"{kind} {name}")
            if section is not None and "dynamic" not in section.note:
                return [parse_element(entry) for entry in section.entries]
        return None


_FIELD = (
    r"(?:ip6? [sd]addr|(?:th|tcp|udp|sctp) dport|meta l4proto|iifname|fib [sd]addr type|ct state|ct status"
    r"|meta mark(?: & \w+)?|numgen random mod \d+)"
)
_KEY = rf"({_FIELD}(?: \. {_FIELD})*)"
_COMMENT = re.compile(r' comment "([^"]*)"')
_STATEMENTS = re.compile(
    r"(?:(jump|goto) (\S+)|(drop|accept|return|reject|masquerade|continue)\b[^{]*?(?= (?:comment)|$)"
    r"|(dnat)(?: ip6?)? to (.+)|(meta mark set) .+|(update|add) @(\S+) \{[^}]*\})"
)
_CHOICE = re.compile(rf"{_KEY} vmap (@\S+|\{{[^}}]*\}})")
_TEST = re.compile(rf"{_KEY} (?:(==|!=) )?(@\S+|\{{[^}}]*\}}|\S+)")


def parse_rule(text: str) -> Rule:
    """A rule as nft prints it."""
    found = _COMMENT.search(text)
    body = _COMMENT.sub("", text)
    return Rule(text, tuple(_parts(body)), found[1] if found else "")


def _parts(body: str) -> Iterator[Comparison | Choice | Statement]:
    at = 0
    while at < len(body):
        if match := _STATEMENTS.match(body, at):
            jump, chain, plain, dnat, target, mark, update, name = match.groups()
            verb = jump or plain or dnat or ("mark" if mark else update)
            yield Statement(verb, chain or target or name or "")
        elif match := _CHOICE.match(body, at):
            yield Choice(tuple(match[1].split(" . ")), match[2])
        elif match := _TEST.match(body, at):
            yield Comparison(tuple(match[1].split(" . ")), match[3], match[2] == "!=")
        else:
            match = re.compile(r"\S+").match(body, at)
            assert match is not None
            yield Comparison((match[0],), "")
        at = match.end() + 1


def map_of(statement: Statement) -> tuple[tuple[str, ...], str] | None:
    """The fields and the name of the map that `dnat` takes an endpoint from; None if it names one itself."""
    fields, found, name = statement.argument.partition(" map @")
    return (tuple(fields.split(" . ")), name) if found else None


def parse_element(text: str) -> Element:
    """An element: `KEY`, `KEY : DATA`, each perhaps with a comment."""
    key, _, data = _COMMENT.sub("", text).partition(" : ")
    return Element(text, tuple(key.split(" . ")), data)


def inline(target: str) -> list[Element]:
    """The elements of a set written in braces."""
    return [parse_element(item) for item in target.strip("{} ").split(", ") if item]


def holds(test: Comparison, flowing: Flowing) -> tuple[Match, Element | None]:
    """Whether the packet passes a test, and the element of a named set that it was found by."""
    field = test.fields[0]
    if field.startswith("meta mark"):
        wanted_marked = (re.fullmatch(r"0x0+", test.value) is not None) == test.negated
        return (flowing.marked if wanted_marked else Match(Match.YES - flowing.marked)), None
    named = test.value.startswith("@")
    elements = flowing.elements(test.value[1:]) if named else inline(test.value)
    if elements is None:
        return Match.MAYBE, None
    found = look_up(test.fields, elements, flowing)
    answer = min((hit for hit, _ in found), default=Match.NO)
    if answer is Match.NO and any(hit for hit, _ in found):
        answer = Match.MAYBE
    if test.negated:
        return Match(Match.YES - answer), None
    return answer, next((element for _, element in found if element is not None), None) if named else None


def look_up(
    fields: Sequence[str], elements: Sequence[Element], flowing: Flowing
) -> list[tuple[Match, Element | None]]:
    """For each goal of the packet the first element it matches, and how surely."""
    return [
        next(
            (
                (hit, element)
                for element in elements
                if (hit := _matches(fields, element, flowing.packet, goal, translated=bool(flowing.targets)))
            ),
            (Match.NO, None),
        )
        for goal in flowing.goals
    ]


def _matches(
    fields: Sequence[str], element: Element, packet: Packet, goal: tuple[Address, int], *, translated: bool
) -> Match:
    return min(
        _has(name, part, packet, goal, translated=translated)
        for name, part in zip(fields, element.key, strict=False)
    )


def _has(name: str, value: str, packet: Packet, goal: tuple[Address, int], *, translated: bool) -> Match:
    """Whether one field of a packet that goes to `goal` has a value."""
    match name:
        case "ip saddr" | "ip6 saddr":
            return _sure(_within(value, packet.source))
        case "ip daddr" | "ip6 daddr":
            return _sure(_within(value, goal[0]))
        case "th dport" | "tcp dport" | "udp dport" | "sctp dport":
            return _sure(value == str(goal[1]))
        case "meta l4proto":
            return _sure(value == packet.protocol.lower())
        case "iifname":
            name = value.strip('"')
            prefix = name.endswith("*")
            return _sure(packet.interface.startswith(name[:-1]) if prefix else packet.interface == name)
        case "fib saddr type":
            return _sure((value == "local") == packet.from_node)
        case "fib daddr type":
            return _sure((value == "local") == (packet.for_node and not translated))
        case "ct state":
            return _sure("new" in value.split(","))
        case "ct status":
            return _sure("dnat" in value.split(",") and translated)
        case _:
            return Match.MAYBE


def _within(text: str, address: Address) -> bool:
    """Whether an address is the one, the prefix or the range (first-last) that `text` stands for."""
    first, dash, last = text.partition("-")
    if dash:
        return int(parse_address(first)) <= int(address) <= int(parse_address(last))
    return address in parse_network(text if "/" in text else f"{text}/{128 if ':' in text else 32}")


def _sure(value: bool) -> Match:
    return Match.YES if value else Match.NO
