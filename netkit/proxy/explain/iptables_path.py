"""One packet's way through the rules of the iptables mode. Pure: reads the sections that serve a port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from netkit.proxy.explain.iptables_rule import Flowing, Rule, parse_rule, takes
from netkit.proxy.explain.iptables_words import meaning
from netkit.proxy.explain.steps import Action, Match, Packet, Step, Subject
from netkit.proxy.listing import Section

MARK_CHAIN = "KUBE-MARK-MASQ"

_ACTIONS = {
    "DNAT": Action.TRANSLATE,
    "REDIRECT": Action.TRANSLATE,
    "MASQUERADE": Action.MASQUERADE,
    "REJECT": Action.REFUSE,
    "DROP": Action.DROP,
    "ACCEPT": Action.ACCEPT,
    "RETURN": Action.RETURN,
    "MARK": Action.MARK,
    "": Action.NOTE,
}
_FINAL = (
    Action.TRANSLATE,
    Action.MASQUERADE,
    Action.REFUSE,
    Action.DROP,
    Action.ACCEPT,
)


def iptables_path(sections: Sequence[Section], packet: Packet, subject: Subject) -> tuple[Step, ...]:
    """The rules that `packet` meets, in order."""
    walk = Walk(sections, packet, subject)
    translated = walk.chain("nat KUBE-SERVICES", "OUTPUT" if packet.sent_here else "PREROUTING")
    if translated:
        walk.flowing = replace(walk.flowing, translated=True)
    for hook, chain in _filter_chains(packet, translated):
        if walk.over:
            break
        walk.chain(f"filter {chain}", hook)
    if translated:
        walk.chain("nat KUBE-POSTROUTING", "POSTROUTING")
    return tuple(walk.steps)


def _filter_chains(packet: Packet, translated: bool) -> Sequence[tuple[str, str]]:
    """The chains of the filter table that are asked about a new connection, by hook, the first first."""
    if translated:
        return () if packet.sent_here else (("FORWARD", "KUBE-FORWARD"),)
    output = [("OUTPUT", "KUBE-PROXY-FIREWALL"), ("OUTPUT", "KUBE-SERVICES"), ("OUTPUT", "KUBE-FIREWALL")]
    if packet.for_node:
        arriving = [
            ("INPUT", "KUBE-PROXY-FIREWALL"),
            ("INPUT", "KUBE-EXTERNAL-SERVICES"),
            ("INPUT", "KUBE-FIREWALL"),
        ]
    else:
        arriving = [
            ("FORWARD", "KUBE-PROXY-FIREWALL"),
            ("FORWARD", "KUBE-FORWARD"),
            ("FORWARD", "KUBE-SERVICES"),
            ("FORWARD", "KUBE-EXTERNAL-SERVICES"),
        ]
    if not packet.sent_here:
        return arriving
    return [*output, *arriving] if packet.for_node else output


Words = Callable[[str, Rule, Subject, str], str]
"""Tells what a rule is for, from the section's name, the rule, what it serves, and the endpoint it leads to."""


class Walk:
    """Follows jumps and returns; `over` once the packet was thrown away, `steps` what it met."""

    def __init__(
        self, sections: Sequence[Section], packet: Packet, subject: Subject, words: Words = meaning
    ) -> None:
        self._sections = {section.name: section for section in sections}
        self._subject = subject
        self._words = words
        sets = {
            section.name.removeprefix("set "): section.entries
            for section in sections
            if section.name.startswith("set ")
        }
        self.flowing = Flowing(packet, sets)
        self.steps: list[Step] = []
        self._shown: set[tuple[str, str]] = set()
        self.over = False

    def chain(self, name: str, hook: str, *, maybe: bool = False) -> bool:
        """Walk one chain. True if no packet comes back from it. `maybe`: chance decides whether one comes here."""
        section = self._sections.get(name)
        for rule in map(parse_rule, section.entries if section is not None else ()):
            found = takes(rule, self.flowing)
            if found is Match.NO:
                continue
            ended = self._apply(name, rule, hook, sure=found is Match.YES and not maybe)
            if found is Match.YES and (ended or rule.target == "RETURN"):
                return ended
            # Who comes to the next rule was not taken by this one.
            maybe = maybe or ended or rule.target == "RETURN"
        return False

    def note(self, step: Step) -> None:
        """Show a step, once: several ways may lead to one rule."""
        if (step.section, step.entry) not in self._shown:
            self._shown.add((step.section, step.entry))
            self.steps.append(step)

    def _apply(self, name: str, rule: Rule, hook: str, *, sure: bool) -> bool:
        """Note a rule that takes the packet and do what it does. True if no packet comes back from it."""
        action = _action(rule)
        endpoint = self._endpoint(name.split()[0], rule)
        said = self._words(name, rule, self._subject, endpoint)
        self.note(Step(hook, name, rule.text, action, said, sure, endpoint))
        match action:
            case Action.LEAD | Action.CHOOSE:
                return self.chain(f"{name.split()[0]} {rule.target}", hook, maybe=not sure)
            case Action.MARK if rule.target == MARK_CHAIN:
                self.flowing = self.flowing.mark(sure)
            case Action.DROP | Action.REFUSE:
                self.over = sure
        return action in _FINAL

    def _endpoint(self, table: str, rule: Rule) -> str:
        """The endpoint that a rule, or the chain it leads to, translates to."""
        if rule.target == "DNAT":
            return rule.arguments.get("--to-destination", "")
        if rule.target.startswith("KUBE-SEP-") and (section := self._sections.get(f"{table} {rule.target}")):
            return parse_rule(section.entries[-1]).arguments.get("--to-destination", "")
        return ""


def _action(rule: Rule) -> Action:
    if rule.target == MARK_CHAIN:
        return Action.MARK
    if rule.target.startswith("KUBE-SEP-"):
        return Action.CHOOSE
    return _ACTIONS.get(rule.target, Action.LEAD)
