"""Policies as chains, rules and sets of nf_tables, of one address family. Pure functions from values to values.

Packets meet them on three hooks. All come after destinations have been translated, so a Service's pods are what is
judged, and before sources are (`postrouting`), so callers are. The priorities are behind those of the proxy's filters:
what a Service refuses is refused as always.

    forward  1  egress-forward   from a pod of the node to anybody but the node
    input    1  egress-input     from a pod of the node to the node itself
    forward  2  ingress-forward  to a pod of the node from anybody but the node

What the node itself sends to its pods passes none of them, as kubelet's probes must.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from controlplane.meta.labels import LabelSelector
from netkit.kernel.nft import wire
from netkit.kernel.nft.datatypes import INET_PROTO, INET_SERVICE, IPV4_ADDR, IPV6_ADDR, DataType, pack
from netkit.kernel.nft.expressions import (
    Bitwise,
    Cmp,
    Code,
    Counter,
    Ct,
    CtKey,
    Expression,
    Header,
    Lookup,
    Meta,
    MetaKey,
    Op,
    Payload,
    Verdict,
)
from netkit.kernel.nft.objects import Chain, Element, Hook, SetSpec, ranges
from netkit.kernel.nft.wire import COMMENT_CHARACTERS
from netkit.policy.model import (
    LAST_PORT,
    PROTOCOL_NAMES,
    Block,
    Direction,
    Key,
    NamedPort,
    Pod,
    PortRange,
    Selected,
)
from netkit.policy.model import Rule as PolicyRule
from netkit.policy.selection import Member, Ports, SetKey, numbered_ports

TABLE: Final = "netkit-policy"
EGRESS_FORWARD, EGRESS_INPUT, INGRESS_FORWARD = "egress-forward", "egress-input", "ingress-forward"
PODS: Final = {Direction.EGRESS: "egress-pods", Direction.INGRESS: "ingress-pods"}
"""The maps from a pod's address to its chain."""

_ESTABLISHED, _RELATED, _UNTRACKED = 2, 4, 64
POD_PREFIX, POLICY_PREFIX = "pod", "policy"
_NAME_CHARACTERS: Final = 120

Rules = tuple[tuple[tuple[Expression, ...], str], ...]
"""Rules of a chain: expressions and comment."""


class Renderer:
    """Renders for one family, `wire.NFPROTO_IPV4` or `NFPROTO_IPV6`."""

    def __init__(self, family: int) -> None:
        self.version = 4 if family == wire.NFPROTO_IPV4 else 6
        self._address: DataType = IPV4_ADDR if self.version == 4 else IPV6_ADDR
        self._slots = self._address.length // 4

    # the frame

    def chains(self) -> Iterator[tuple[Chain, Rules]]:
        """The chains on the hooks."""
        for name, hook, priority, direction in (
            (EGRESS_FORWARD, "forward", 1, Direction.EGRESS),
            (EGRESS_INPUT, "input", 1, Direction.EGRESS),
            (INGRESS_FORWARD, "forward", 2, Direction.INGRESS),
        ):
            own = self._source() if direction is Direction.EGRESS else self._destination()
            yield (
                Chain(name, hook=Hook("filter", hook, priority)),
                (
                    (self._known_connections(), ""),
                    ((own, Lookup(PODS[direction], verdict=True)), ""),
                ),
            )

    def maps(self) -> Iterator[SetSpec]:
        """The maps from pods to their chains."""
        for direction, name in PODS.items():
            yield SetSpec(
                name, (self._address,), verdicts=True, comment=f"pods that policies isolate: {direction}"
            )

    def pod_elements(self, pod: Pod, direction: Direction) -> list[Element]:
        """What leads to a pod's chain."""
        verdict = Verdict(Code.GOTO, pod_chain(pod.key, direction))
        return [Element(a.packed, verdict) for a in pod.addresses if a.version == self.version]

    def _known_connections(self) -> tuple[Expression, ...]:
        """Answers, and what belongs to a connection that was allowed. In IPv6 neighbours are found untracked."""
        states = _ESTABLISHED | _RELATED | (_UNTRACKED if self.version == 6 else 0)
        mask = states.to_bytes(4, "little")
        return (
            Ct(CtKey.STATE),
            Bitwise(mask, bytes(4)),
            Cmp(Op.NEQ, bytes(4)),
            Verdict(Code.ACCEPT),
        )

    # pods and policies

    def pod_rules(self, pod: Pod, direction: Direction, policies: Sequence[Key]) -> Rules:
        """A pod's chain: itself, then what each of its policies allows, and no more."""
        peer = self._source() if direction is Direction.INGRESS else self._destination()
        found: list[tuple[tuple[Expression, ...], str]] = []
        for address in pod.addresses:
            if address.version == self.version:
                found.append(((peer, Cmp(Op.EQ, address.packed), Verdict(Code.ACCEPT)), "itself"))
        for policy in policies:
            found.append(((Verdict(Code.JUMP, policy_chain(policy, direction)),), ""))
        end = (Counter(), Verdict(Code.DROP))
        return (*found, (end, _comment(str(pod), f"{direction}: no policy allows it")))

    def policy_rules(self, policy: Key, direction: Direction, rules: Iterable[PolicyRule]) -> Rules:
        """A policy's chain: a rule for each way to match one of its rules."""
        return tuple(
            (
                (*peer, *port, Counter(), Verdict(Code.ACCEPT)),
                _comment(f"{policy[0]}/{policy[1]}", f"{direction} rule {number}"),
            )
            for number, rule in enumerate(rules, 1)
            for peer in self._peers(rule, direction)
            for port in self._ports(rule)
        )

    def _peers(self, rule: PolicyRule, direction: Direction) -> Iterator[tuple[Expression, ...]]:
        if rule.peers is None:
            yield ()
            return
        field = self._source() if direction is Direction.INGRESS else self._destination()
        for peer in dict.fromkeys(rule.peers):
            if isinstance(peer, Selected) or peer.network.version == self.version:
                yield field, Lookup(set_name(peer))

    def _ports(self, rule: PolicyRule) -> Iterator[tuple[Expression, ...]]:
        if rule.ports is None:
            yield ()
            return
        numbered = numbered_ports(rule)
        whole = [port for port in numbered if (port.first, port.last) == (0, LAST_PORT)]
        if numbered and len(numbered) == len(whole) == 1:
            yield Meta(MetaKey.L4PROTO), Cmp(Op.EQ, bytes((whole[0].protocol,)))
        elif numbered:
            yield Meta(MetaKey.L4PROTO), _port(1), Lookup(set_name(numbered))
        for port in dict.fromkeys(port for port in rule.ports if isinstance(port, NamedPort)):
            slot = self._slots
            yield (
                self._destination(),
                Meta(MetaKey.L4PROTO, slot),
                _port(slot + 1),
                Lookup(set_name(port)),
            )

    # sets

    def set_of(self, key: SetKey) -> SetSpec | None:
        """The set; None where this family needs none."""
        name = set_name(key)
        match key:
            case Selected():
                return SetSpec(name, (self._address,), comment=_cut(str(key)))
            case NamedPort():
                return SetSpec(name, (self._address, INET_PROTO, INET_SERVICE), comment=_cut(f"port {key}"))
            case Block():
                if key.network.version != self.version:
                    return None
                return SetSpec(name, (self._address,), interval=True, comment=_cut(str(key)))
            case _:
                comment = _cut(", ".join(map(str, key)))
                return SetSpec(name, (INET_PROTO, INET_SERVICE), interval=_has_ranges(key), comment=comment)

    def constant_elements(self, key: Block | Ports) -> list[Element]:
        """The elements of a set that no pod changes."""
        if isinstance(key, Block):
            return ranges(_without(key), self._address.length)
        return [_port_element(port, with_end=_has_ranges(key)) for port in key]

    def element(self, member: Member) -> Element | None:
        """A member as an element; None for one of the other family."""
        address = member[0]
        if address.version != self.version:
            return None
        if len(member) == 1:
            return Element(address.packed)
        _, protocol, number = member
        parts = (address.packed, INET_PROTO.pack(protocol), INET_SERVICE.pack(number))
        return Element(pack((self._address, INET_PROTO, INET_SERVICE), parts))

    def _source(self) -> Payload:
        return Payload(Header.NETWORK, 12 if self.version == 4 else 8, self._address.length)

    def _destination(self) -> Payload:
        return Payload(Header.NETWORK, 16 if self.version == 4 else 24, self._address.length)


def pod_chain(pod: Key, direction: Direction) -> str:
    """The name of a pod's chain."""
    return _named(f"{POD_PREFIX}-{direction}", f"{pod[0]}/{pod[1]}")


def policy_chain(policy: Key, direction: Direction) -> str:
    """The name of a policy's chain."""
    return _named(f"{POLICY_PREFIX}-{direction}", f"{policy[0]}/{policy[1]}")


def set_name(key: SetKey) -> str:
    """The name of a set. Equal peers and ports of different policies share one."""
    match key:
        case Selected():
            parts = (key.namespace, _canonical(key.namespaces), _canonical(key.pods))
            return f"pods-{_hash(repr(parts))}"
        case NamedPort():
            return f"port-{key.name}-{PROTOCOL_NAMES[key.protocol].lower()}"
        case Block():
            return f"block-{_hash(str(key))}"
        case _:
            return f"ports-{_hash(repr(key))}"


def _canonical(selector: LabelSelector) -> str:
    return "nothing" if selector.nothing else repr(selector.requirements)


def _named(kind: str, text: str) -> str:
    return f"{kind}-{_hash(text)}-{text[:_NAME_CHARACTERS]}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _cut(text: str) -> str:
    return text if len(text) <= COMMENT_CHARACTERS else f"{text[: COMMENT_CHARACTERS - 3]}..."


def _comment(name: str, what: str) -> str:
    """A name, shortened if it must be, and what is said of it."""
    room = COMMENT_CHARACTERS - len(what) - 1
    return f"{name if len(name) <= room else name[: room - 3] + '...'} {what}"


def _port(slot: int) -> Payload:
    return Payload(Header.TRANSPORT, 2, 2, slot)


def _has_ranges(ports: Ports) -> bool:
    return any(port.first != port.last for port in ports)


def _port_element(port: PortRange, *, with_end: bool) -> Element:
    kinds = (INET_PROTO, INET_SERVICE)
    first, last = (
        pack(kinds, (INET_PROTO.pack(port.protocol), INET_SERVICE.pack(number)))
        for number in (port.first, port.last)
    )
    return Element(first, end=last if with_end else None)


def _without(block: Block) -> list[tuple[int, int]]:
    """The addresses of a block as spans, with holes for what is excepted."""
    spans = []
    begin, end = int(block.network.network_address), int(block.network.broadcast_address)
    holes = sorted((int(hole.network_address), int(hole.broadcast_address)) for hole in block.excepts)
    for first, last in holes:
        if first > begin:
            spans.append((begin, first - 1))
        begin = max(begin, last + 1)
    if begin <= end:
        spans.append((begin, end))
    return spans
