"""Whether one end may reach another, by which rule, or why not. Pure; for people, not for the kernel.

Each end's policies decide by themselves: those of the source about egress, those of the destination about ingress.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from netkit.policy.model import (
    PROTOCOLS,
    Address,
    Block,
    Direction,
    Key,
    NamedPort,
    Pod,
    Policy,
    PortRange,
    Rule,
    Selected,
)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod, or an address. `node` is the node whose own address it is, "" for none."""

    name: str
    address: Address
    pod: Pod | None = None
    node: str = ""


@dataclass(frozen=True, slots=True)
class Half:
    """What one end's policies say. Without `policies` the end is not isolated; `by` is the rule that allows.

    `why` has a line for each rule that does not match, or the reason why no policy is asked.
    """

    direction: Direction
    pod: str
    allowed: bool
    policies: tuple[str, ...]
    by: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one connection: allowed when both halves are."""

    source: str
    destination: str
    protocol: str
    port: int | None
    allowed: bool
    halves: tuple[Half, ...]


class Judge:
    """Knows all policies, and the labels of namespaces."""

    def __init__(self, policies: Iterable[Policy], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        self._namespaces = namespaces
        self._policies: dict[str, list[Policy]] = {}
        for policy in sorted(policies, key=lambda policy: policy.key):
            self._policies.setdefault(policy.namespace, []).append(policy)
        self._isolating: dict[tuple[Key, Direction], list[Policy]] = {}

    def judge(self, source: End, destination: End, protocol: str, port: int | None) -> Verdict:
        """A new connection. `port` None: a packet of another protocol, which only rules without ports allow."""
        halves = (
            self._half(Direction.EGRESS, source, destination, destination, protocol, port),
            self._half(Direction.INGRESS, destination, source, destination, protocol, port),
        )
        allowed = all(half.allowed for half in halves)
        return Verdict(source.name, destination.name, protocol, port, allowed, halves)

    def _half(
        self, direction: Direction, own: End, other: End, destination: End, protocol: str, port: int | None
    ) -> Half:
        pod = own.pod
        if pod is None:
            return Half(direction, own.name, True, (), "", ("no pod, no policy selects it",))
        if own.address == other.address:
            return Half(direction, own.name, True, (), "", ("a pod always reaches itself",))
        if direction is Direction.INGRESS and other.node and other.node == pod.node:
            return Half(direction, own.name, True, (), "", ("its own node always reaches it",))
        policies = self._of(pod, direction)
        names = tuple(map(str, policies))
        why: list[str] = []
        for policy in policies:
            rules = policy.rules(direction) or ()
            for number, rule in enumerate(rules, 1):
                fault = self._fault(rule, other, destination, protocol, port)
                if not fault:
                    return Half(direction, own.name, True, names, f"{policy} {direction} rule {number}", ())
                why.append(f"{policy} {direction} rule {number}: {fault}")
            if not rules:
                why.append(f"{policy} allows no {direction} at all")
        if not policies:
            why.append(f"no policy isolates it for {direction}")
        return Half(direction, own.name, not policies, names, "", tuple(why))

    def _of(self, pod: Pod, direction: Direction) -> Sequence[Policy]:
        found = self._isolating.get((pod.key, direction))
        if found is None:
            found = self._isolating[pod.key, direction] = [
                policy
                for policy in self._policies.get(pod.namespace, ())
                if policy.rules(direction) is not None and policy.pods.matches(pod.labels)
            ]
        return found

    def _fault(self, rule: Rule, other: End, destination: End, protocol: str, port: int | None) -> str:
        """Why a rule does not match, "" if it does."""
        if rule.peers is not None and not any(self._is_peer(peer, other) for peer in rule.peers):
            return f"{other.name} is none of: {'; '.join(map(str, rule.peers))}"
        if rule.ports is None:
            return ""
        if any(_is_port(item, destination.pod, PROTOCOLS.get(protocol, 0), port) for item in rule.ports):
            return ""
        shown = f"{port}/{protocol}" if port is not None else protocol
        return f"{shown} is none of: {', '.join(map(str, rule.ports))}"

    def _is_peer(self, peer: Selected | Block, other: End) -> bool:
        if isinstance(peer, Block):
            return other.address in peer
        if other.pod is None or not peer.pods.matches(other.pod.labels):
            return False
        if peer.namespace:
            return peer.namespace == other.pod.namespace
        labels = self._namespaces.get(other.pod.namespace)
        return labels is not None and peer.namespaces.matches(labels)


def _is_port(item: PortRange | NamedPort, pod: Pod | None, protocol: int, port: int | None) -> bool:
    if port is None or item.protocol != protocol:
        return False
    if isinstance(item, PortRange):
        return item.first <= port <= item.last
    return pod is not None and (item.name, protocol, port) in pod.ports
