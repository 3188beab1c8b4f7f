"""One rule of iptables, as iptables-save prints it: whether it takes a packet, and where it sends it.

Knows the matches that proxies use; a match it does not know counts as undecided. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from netkit.proxy.addresses import Address, parse_network
from netkit.proxy.explain.steps import Match, Packet


@dataclass(frozen=True, slots=True)
class Condition:
    """An option that rules match by, e.g. `! -s 10.244.0.0/16`."""

    option: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """`target` is a chain or a target; `arguments` are the target's options. `text` is the rule as it was."""

    text: str
    conditions: tuple[Condition, ...]
    target: str
    arguments: Mapping[str, str]

    @cached_property
    def comment(self) -> str:
        return self.value("--comment")

    def value(self, option: str) -> str:
        """The first value of a condition, empty without it."""
        return next((" ".join(item.values) for item in self.conditions if item.option == option), "")

    def has(self, option: str) -> bool:
        return any(item.option == option for item in self.conditions)


@dataclass(frozen=True, slots=True)
class Flowing:
    """A packet on its way: what the rules before have done to it. `sets` are the members of ipsets by name.

    Once `translated` it goes to one of `targets`, as far as these are of interest.
    """

    packet: Packet
    sets: Mapping[str, Sequence[str]]
    marked: Match = Match.NO
    translated: bool = False
    targets: tuple[tuple[Address, int], ...] = ()

    def mark(self, sure: bool) -> Flowing:
        return replace(self, marked=Match.YES if sure else max(self.marked, Match.MAYBE))


_SILENT = (
    "-m",
    "--comment",
    "--reap",
    "--seconds",
    "--name",
    "--mode",
    "--rsource",
    "--mask",
    "--set",
    "--dports",
)


_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_CHAIN = re.compile(r"^-A \S+ ")


def parse_rule(entry: str) -> Rule:
    """A rule with or without its `-A CHAIN`."""
    words = [quoted or word for quoted, word in _WORD.findall(_CHAIN.sub("", entry))]
    conditions: list[Condition] = []
    arguments: dict[str, str] = {}
    target, negated, index = "", False, 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "!":
            negated = True
            continue
        values: list[str] = []
        while index < len(words) and words[index] != "!" and not words[index].startswith("-"):
            values.append(words[index])
            index += 1
        if word in ("-j", "-g"):
            target = values[0]
        elif target:
            arguments[word] = " ".join(values)
        else:
            conditions.append(Condition(word, tuple(values), negated))
        negated = False
    return Rule(entry, tuple(conditions), target, arguments)


def takes(rule: Rule, flowing: Flowing) -> Match:
    """Whether the rule takes the packet."""
    found = Match.YES
    for condition in rule.conditions:
        if condition.option in _SILENT:
            continue
        answer = _holds(condition, flowing)
        if condition.negated:
            answer = Match(Match.YES - answer)
        found = min(found, answer)
        if found is Match.NO:
            break
    return found


def _holds(condition: Condition, flowing: Flowing) -> Match:
    """Whether a condition, read without its exclamation mark, holds."""
    packet = flowing.packet
    value = condition.values[0] if condition.values else ""
    match condition.option:
        case "-s":
            return _sure(packet.source in parse_network(_with_length(value)))
        case "-d":
            return _sure(not flowing.translated and packet.destination in parse_network(_with_length(value)))
        case "-p":
            return _sure(value in (packet.protocol.lower(), "all"))
        case "--dport":
            return _sure(not flowing.translated and int(value) == packet.port)
        case "-i":
            prefix = value.endswith("+")
            return _sure(packet.interface.startswith(value[:-1]) if prefix else packet.interface == value)
        case "--physdev-is-in":
            return _sure(packet.bridged)
        case "--src-type":
            return _sure(packet.from_node)
        case "--dst-type":
            return _sure(packet.for_node and not flowing.translated)
        case "--ctstate" | "--state":
            states = value.split(",")
            return _sure("NEW" in states or ("DNAT" in states and flowing.translated))
        case "--mark":
            return flowing.marked
        case "--vaddr":
            return _sure(packet.destination in parse_network(_with_length(value)))
        case "--vport":
            return _sure(int(value) == packet.port)
        case "--match-set":
            return _in_set(flowing, value, condition.values[1])
        case _:
            return Match.MAYBE


def _in_set(flowing: Flowing, name: str, directions: str) -> Match:
    """Whether the packet is in an ipset, whose members are written `10.96.0.1,tcp:80,10.0.0.0/8` or `30080`."""
    members = [member.split(" ")[0].split(",") for member in flowing.sets.get(name, ())]
    packet = flowing.packet
    goals = flowing.targets if flowing.translated else ((packet.destination, packet.port),)
    hits = [
        any(_is_member(packet, goal, member, directions.split(",")) for member in members) for goal in goals
    ]
    if any(hits):
        return Match.YES if all(hits) else Match.MAYBE
    return Match.NO


def _is_member(
    packet: Packet, goal: tuple[Address, int], member: Sequence[str], directions: Sequence[str]
) -> bool:
    """Whether a packet that goes to `goal` is one member of a set."""
    if len(member) != len(directions):
        return False
    for part, direction in zip(member, directions, strict=True):
        protocol, colon, number = part.rpartition(":")
        if part.isdigit() or (colon and number.isdigit() and protocol.isalpha()):
            if protocol and protocol.lower() != packet.protocol.lower():
                return False
            if int(number) != goal[1]:
                return False
        elif (packet.source if direction == "src" else goal[0]) not in parse_network(_with_length(part)):
            return False
    return True


def _with_length(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _sure(value: bool) -> Match:
    return Match.YES if value else Match.NO
