"""One packet's way through the table of the nftables mode, in either layout. Pure: reads what serves a port.

Base chains, and rules that only ask sets and maps which all ports share, are not shown; what is shown are the elements
they find, and the rules that decide something.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

from netkit.proxy.addresses import Address, host_port, parse_address
from netkit.proxy.explain.nftables_rule import (
    Choice,
    Comparison,
    Element,
    Flowing,
    Rule,
    Statement,
    holds,
    inline,
    look_up,
    map_of,
    parse_rule,
)
from netkit.proxy.explain.nftables_words import element_meaning, rule_meaning
from netkit.proxy.explain.steps import Action, Match, Packet, Step, Subject
from netkit.proxy.listing import Section

_ACTIONS = {
    "dnat": Action.TRANSLATE,
    "masquerade": Action.MASQUERADE,
    "drop": Action.DROP,
    "reject": Action.REFUSE,
    "accept": Action.ACCEPT,
    "return": Action.RETURN,
    "mark": Action.MARK,
    "jump": Action.LEAD,
    "goto": Action.LEAD,
}
_MARK_CHAIN = "mark-for-masquerade"
_SHARED = re.compile(
    r"chain (services|[a-z-]+-check|(pick|cluster|local|draw)-(cluster-|local-)?(\d+-)?(services|nodeports))$"
)
"""Chains whose rules lead on, the same for all ports."""
_UNNAMED = ("nodeport-ips", "cluster-ips")
"""Sets whose elements say nothing of the port."""


class _After(IntEnum):
    """Where a packet is after a rule or chain."""

    NEXT = 0
    """At the next rule."""
    BACK = 1
    """Behind the rule that jumped here."""
    AWAY = 2
    """Out of the hook: translated or thrown away."""


def nftables_path(sections: Sequence[Section], packet: Packet, subject: Subject) -> tuple[Step, ...]:
    """The elements and rules that `packet` meets, in order."""
    walk = _Walk(sections, packet, subject)
    if packet.sent_here:
        chains = ["filter-output-pre-dnat", "nat-output", "filter-output"]
    else:
        chains = ["filter-prerouting-pre-dnat", "nat-prerouting"]
    for chain in chains:
        walk.base(chain)
    if walk.flowing.targets:
        if not packet.sent_here:
            walk.base("filter-forward")
        walk.base("nat-postrouting")
    elif packet.for_node:
        walk.base("filter-input")
    elif not packet.sent_here:
        walk.base("filter-forward")
    return tuple(walk.steps)


class _Walk:
    """Follows verdicts; `over` once the packet was thrown away, `steps` what it met."""

    def __init__(self, sections: Sequence[Section], packet: Packet, subject: Subject) -> None:
        self._sections = {section.name: section for section in sections}
        self._subject = subject
        self.flowing = Flowing(packet, self._sections)
        self.steps: list[Step] = []
        self._shown: set[tuple[str, str]] = set()
        self._hook = ""
        self._targets: dict[str, None] = {}
        self.over = False

    def base(self, name: str) -> None:
        """Walk a chain that hangs on a hook, unless the packet is gone already."""
        if self.over:
            return
        self._hook = name.split("-")[1]
        self.chain(name)
        if self._targets and not self.flowing.targets:
            self.flowing = replace(self.flowing, targets=tuple(map(_split, self._targets)))

    def chain(self, name: str, *, maybe: bool = False) -> _After:
        """Walk one chain. `maybe`: chance decides whether the packet comes here."""
        section = self._sections.get(f"chain {name}")
        for rule in map(parse_rule, section.entries if section is not None else ()):
            found, elements = self._tested(rule)
            if found is Match.NO:
                continue
            after = self._rule(f"chain {name}", rule, elements, sure=found is Match.YES and not maybe)
            if after is not _After.NEXT and found is Match.YES:
                return after
            # Who comes to the next rule was not taken by this one.
            maybe = maybe or after is not _After.NEXT
        return _After.NEXT

    def _tested(self, rule: Rule) -> tuple[Match, list[tuple[str, Element]]]:
        """Whether a rule takes the packet, and the elements of named sets by which it does."""
        answer, elements = Match.YES, []
        for part in rule.parts:
            if isinstance(part, Comparison):
                found, element = holds(part, self.flowing)
                answer = min(answer, found)
                if element is not None and part.value[1:] not in _UNNAMED:
                    elements.append((part.value[1:], element))
        return answer, elements

    def _rule(
        self, section: str, rule: Rule, elements: Sequence[tuple[str, Element]], *, sure: bool
    ) -> _After:
        """Show a rule that takes the packet, or the elements it found it by, and do what it says."""
        choice = next((part for part in rule.parts if isinstance(part, Choice)), None)
        if choice is not None:
            return self._choose(section, rule, choice, sure=sure)
        statement = next((part for part in rule.parts if isinstance(part, Statement)), Statement(""))
        if statement.verb == "dnat" and map_of(statement) is not None:
            return self._draw(section, rule, statement, sure=sure)
        action, endpoint = _action(statement), self._endpoint(statement)
        for name, element in elements:
            said = element_meaning(name, statement, self._subject)
            self._step(f"set {name}", element.text, action, said, sure)
        if not elements and not self._leads_on(section, statement):
            said = rule_meaning(section, rule, statement, self._subject, endpoint)
            self._step(section, rule.text, action, said, sure, endpoint)
        return self._do(statement, sure=sure)

    def _leads_on(self, section: str, statement: Statement) -> bool:
        """Whether a rule is the same for all ports, and leads to where something is decided."""
        there = self._sections[section]
        leads = statement.verb in ("jump", "goto") and statement.argument != _MARK_CHAIN
        return leads and ("hook" in there.note or _SHARED.match(section) is not None)

    def _choose(self, section: str, rule: Rule, choice: Choice, *, sure: bool) -> _After:
        """A verdict map: the element that fits, or one of several endpoints by chance."""
        if choice.target.startswith("@"):
            name = choice.target[1:]
            ((hit, element),) = look_up(choice.fields, self.flowing.elements(name) or (), self.flowing)[:1]
            if element is None or hit is Match.NO:
                return _After.NEXT
            statement = _statement(element)
            said = element_meaning(name, statement, self._subject)
            self._step(f"map {name}", element.text, _action(statement), said, sure)
            return self._do(statement, sure=sure)
        elements = inline(choice.target)
        single = len(elements) == 1
        endpoint = self._endpoint(_statement(elements[0])) if single else ""
        said = rule_meaning(section, rule, Statement("choose", str(len(elements))), self._subject, endpoint)
        self._step(section, rule.text, Action.CHOOSE, said, sure and single, endpoint)
        after = _After.NEXT
        for element in elements:
            after = self._do(_statement(element), sure=sure and single)
        return after

    def _draw(self, section: str, rule: Rule, statement: Statement, *, sure: bool) -> _After:
        """Endpoints in a data map, one of them by a random number; a number that nothing has goes to the next rule."""
        found = map_of(statement)
        assert found is not None
        fields, name = found
        elements = [
            element
            for element in self.flowing.elements(name) or ()
            if look_up(fields, [element], self.flowing)[0][0] is not Match.NO
        ]
        if not elements:
            return _After.NEXT
        count = str(len(elements))
        said = rule_meaning(section, rule, Statement("choose", count), self._subject)
        self._step(section, rule.text, Action.CHOOSE, said, sure and len(elements) == 1)
        for element in elements:
            target = _target(element.data)
            self._targets[target] = None
            said = f"the destination becomes {self._subject.endpoint(target)}"
            self._step(
                f"map {name}", element.text, Action.TRANSLATE, said, sure and len(elements) == 1, target
            )
        size = int(fields[-1].rpartition(" ")[2])
        return _After.AWAY if size <= len(elements) else _After.NEXT

    def _do(self, statement: Statement, *, sure: bool) -> _After:
        """Do what a verdict or statement says."""
        match statement.verb:
            case "jump" if statement.argument == _MARK_CHAIN:
                self.flowing = self.flowing.mark(sure)
            case "jump":
                after = self.chain(statement.argument, maybe=not sure)
                return after if after is _After.AWAY else _After.NEXT
            case "goto":
                after = self.chain(statement.argument, maybe=not sure)
                return after if after is _After.AWAY else _After.BACK
            case "drop" | "reject":
                self.over = sure
                return _After.AWAY
            case "dnat":
                self._targets[statement.argument] = None
                return _After.AWAY
            case "masquerade" | "accept":
                return _After.AWAY
            case "return":
                return _After.BACK
        return _After.NEXT

    def _endpoint(self, statement: Statement) -> str:
        """The endpoint that a statement, or the chain it leads to, translates to."""
        if statement.verb == "dnat":
            return statement.argument
        if statement.verb == "goto" and statement.argument.startswith("endpoint-"):
            section = self._sections.get(f"chain {statement.argument}")
            for rule in map(parse_rule, section.entries if section is not None else ()):
                for part in rule.parts:
                    if isinstance(part, Statement) and part.verb == "dnat":
                        return part.argument
        return ""

    def _step(
        self, section: str, entry: str, action: Action, said: str, sure: bool = True, endpoint: str = ""
    ) -> None:
        """Note a rule or element, once: several ways may lead to it."""
        if (section, entry) not in self._shown:
            self._shown.add((section, entry))
            self.steps.append(Step(self._hook, section, entry, action, said, sure, endpoint))


def _statement(element: Element) -> Statement:
    verb, _, argument = element.data.partition(" ")
    return Statement(verb, argument)


def _action(statement: Statement) -> Action:
    if statement.argument == _MARK_CHAIN:
        return Action.MARK
    if statement.argument.startswith("endpoint-"):
        return Action.CHOOSE
    return _ACTIONS.get(statement.verb, Action.NOTE)


def _target(data: str) -> str:
    """`10.0.0.1 . 80` as `10.0.0.1:80`."""
    address, _, port = data.partition(" . ")
    return host_port(parse_address(address), int(port))


def _split(target: str) -> tuple[Address, int]:
    host, _, port = target.rpartition(":")
    return parse_address(host.strip("[]")), int(port)
