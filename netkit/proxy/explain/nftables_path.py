"""One packet's way through the table of the nftables mode. Pure: reads the sections that serve a port.

Base chains and the rules that ask the shared maps are the same for all ports; what is followed are the elements they
find and the chains these lead to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

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
    parse_element,
    parse_rule,
)
from netkit.proxy.explain.nftables_words import element_meaning, rule_meaning
from netkit.proxy.explain.steps import Action, Match, Packet, Step, Subject
from netkit.proxy.listing import Section

_SERVICE = ("ip daddr", "meta l4proto", "th dport")
_PORT = ("meta l4proto", "th dport")
_ACTIONS = {
    "dnat": Action.TRANSLATE,
    "masquerade": Action.MASQUERADE,
    "drop": Action.DROP,
    "reject": Action.REFUSE,
    "accept": Action.ACCEPT,
    "return": Action.RETURN,
    "mark": Action.MARK,
    "update": Action.NOTE,
    "add": Action.NOTE,
    "jump": Action.LEAD,
    "goto": Action.LEAD,
}
_MARK_CHAIN = "mark-for-masquerade"


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
    arriving = "output" if packet.sent_here else "prerouting"
    walk.ask("firewall-ips", _SERVICE, arriving)
    if not walk.over:
        _translate(walk, packet, arriving)
    if walk.flowing.translated:
        walk.chain("masquerading", "postrouting")
    elif not walk.over:
        _refuse(walk, packet)
    return tuple(walk.steps)


def _translate(walk: _Walk, packet: Packet, hook: str) -> None:
    """Chain `services`."""
    after = walk.ask("service-ips", _SERVICE, hook)
    if after is None and packet.for_node:
        after = walk.ask("service-nodeports", _PORT, hook)
    if after is _After.AWAY and not walk.over:
        walk.flowing = replace(walk.flowing, translated=True)


def _refuse(walk: _Walk, packet: Packet) -> None:
    """The filter hooks: what was not translated meets its verdict."""
    if packet.sent_here:
        walk.ask("no-endpoint-services", _SERVICE, "output")
    if walk.over:
        return
    if packet.for_node:
        if walk.ask("no-endpoint-nodeports", _PORT, "input") is None:
            walk.ask("no-endpoint-services", _SERVICE, "input")
    elif not packet.sent_here:
        walk.ask("no-endpoint-services", _SERVICE, "forward")


class _Walk:
    """Follows verdicts; `over` once the packet was thrown away, `steps` what it met."""

    def __init__(self, sections: Sequence[Section], packet: Packet, subject: Subject) -> None:
        self._sections = {section.name: section for section in sections}
        self._subject = subject
        self.flowing = Flowing(packet, self._sections)
        self.steps: list[Step] = []
        self._shown: set[tuple[str, str]] = set()
        self.over = False

    def ask(self, name: str, fields: Sequence[str], hook: str) -> _After | None:
        """Ask a verdict map and follow what it says. None if it has nothing for the packet."""
        section = self._sections.get(f"map {name}")
        elements = [parse_element(entry) for entry in section.entries] if section is not None else []
        element = look_up(fields, elements, self.flowing)
        if element is None:
            return None
        statement = _statement(element)
        said = element_meaning(name, statement, self._subject)
        self._step(hook, f"map {name}", element.text, _action(statement), said)
        return self._do(statement, hook, sure=True)

    def chain(self, name: str, hook: str, *, maybe: bool = False) -> _After:
        """Walk one chain. `maybe`: chance decides whether the packet comes here."""
        section = self._sections.get(f"chain {name}")
        for rule in map(parse_rule, section.entries if section is not None else ()):
            found = self._tested(rule)
            if found is Match.NO:
                continue
            after = self._rule(f"chain {name}", rule, hook, sure=found is Match.YES and not maybe)
            if after is not _After.NEXT and found is Match.YES:
                return after
            # Who comes to the next rule was not taken by this one.
            maybe = maybe or after is not _After.NEXT
        return _After.NEXT

    def _tested(self, rule: Rule) -> Match:
        return min(
            (holds(part, self.flowing) for part in rule.parts if isinstance(part, Comparison)),
            default=Match.YES,
        )

    def _rule(self, section: str, rule: Rule, hook: str, *, sure: bool) -> _After:
        """Note a rule that takes the packet, and do what it says."""
        choice = next((part for part in rule.parts if isinstance(part, Choice)), None)
        statement = next((part for part in rule.parts if isinstance(part, Statement)), Statement(""))
        if choice is not None:
            return self._choose(section, rule, choice, hook, sure=sure)
        endpoint = self._endpoint(statement)
        said = rule_meaning(section, rule, statement, self._subject, endpoint)
        self._step(hook, section, rule.text, _action(statement), said, sure, endpoint)
        return self._do(statement, hook, sure=sure)

    def _choose(self, section: str, rule: Rule, choice: Choice, hook: str, *, sure: bool) -> _After:
        """A verdict map in a rule: one of several endpoints by chance, or the element that fits."""
        elements = inline(choice.target)
        by_chance = choice.fields[0].startswith("numgen")
        if not by_chance:
            found = look_up(choice.fields, elements, self.flowing)
            elements = [found] if found is not None else []
        single = len(elements) == 1
        endpoint = self._endpoint(_statement(elements[0])) if single else ""
        said = rule_meaning(section, rule, Statement("choose", str(len(elements))), self._subject, endpoint)
        self._step(hook, section, rule.text, Action.CHOOSE, said, sure and single, endpoint)
        after = _After.NEXT
        for element in elements:
            after = self._do(_statement(element), hook, sure=sure and single)
        return after

    def _do(self, statement: Statement, hook: str, *, sure: bool) -> _After:
        """Do what a verdict or statement says."""
        match statement.verb:
            case "jump" if statement.argument == _MARK_CHAIN:
                self.flowing = self.flowing.mark(sure)
            case "jump":
                after = self.chain(statement.argument, hook, maybe=not sure)
                return after if after is _After.AWAY else _After.NEXT
            case "goto":
                after = self.chain(statement.argument, hook, maybe=not sure)
                if statement.argument == "reject-chain":
                    self.over = sure
                    return _After.AWAY
                return after if after is _After.AWAY else _After.BACK
            case "drop" | "reject":
                self.over = sure
                return _After.AWAY
            case "dnat" | "masquerade" | "accept":
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
        self,
        hook: str,
        section: str,
        entry: str,
        action: Action,
        said: str,
        sure: bool = True,
        endpoint: str = "",
    ) -> None:
        """Note a rule, once: several ways may lead to it."""
        if (section, entry) not in self._shown:
            self._shown.add((section, entry))
            self.steps.append(Step(hook, section, entry, action, said, sure, endpoint))


def _statement(element: Element) -> Statement:
    verb, _, argument = element.data.partition(" ")
    return Statement(verb, argument)


def _action(statement: Statement) -> Action:
    if statement.argument == _MARK_CHAIN:
        return Action.MARK
    if statement.argument == "reject-chain":
        return Action.REFUSE
    if statement.argument.startswith("endpoint-"):
        return Action.CHOOSE
    return _ACTIONS.get(statement.verb, Action.NOTE)
