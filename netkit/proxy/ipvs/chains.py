"""The iptables rules of the IPVS mode: few, the same for any number of Services, matching sets.

Called by `book`. Pure: values in, text out. Chains, order and comments are those of kube-proxy 1.33; rules are
written as iptables-save prints them, so that what stands can be compared with what is wanted.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from netkit.proxy.addresses import Address, Family
from netkit.proxy.detector import Detector, SourceDetector
from netkit.proxy.ipvs import sets
from netkit.proxy.ipvs.sets import SetKind
from netkit.proxy.services import Protocol

SERVICES = "KUBE-SERVICES"
POSTROUTING = "KUBE-POSTROUTING"
NODE_PORT = "KUBE-NODE-PORT"
LOAD_BALANCER = "KUBE-LOAD-BALANCER"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
SOURCE_RANGES_FIREWALL = "KUBE-SOURCE-RANGES-FIREWALL"
IPVS_FILTER = "KUBE-IPVS-FILTER"
IPVS_OUT_FILTER = "KUBE-IPVS-OUT-FILTER"

Place = tuple[str, str]
"""A table and a chain of it."""

CHAINS: Final[tuple[Place, ...]] = (
    ("nat", SERVICES),
    ("nat", POSTROUTING),
    ("nat", NODE_PORT),
    ("nat", LOAD_BALANCER),
    ("nat", MARK_MASQ),
    ("filter", FORWARD),
    ("filter", NODE_PORT),
    ("filter", PROXY_FIREWALL),
    ("filter", SOURCE_RANGES_FIREWALL),
    ("filter", IPVS_FILTER),
    ("filter", IPVS_OUT_FILTER),
)

_PORTALS = "kubernetes service portals"
_FIREWALL_RULES = "kube-proxy firewall rules"
_ACCESS_FILTER = "kubernetes ipvs access filter"

_JUMPS: Final = (
    ("nat", "OUTPUT", SERVICES, _PORTALS),
    ("nat", "PREROUTING", SERVICES, _PORTALS),
    ("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    ("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    ("filter", "INPUT", NODE_PORT, "kubernetes health check rules"),
    ("filter", "INPUT", PROXY_FIREWALL, _FIREWALL_RULES),
    ("filter", "FORWARD", PROXY_FIREWALL, _FIREWALL_RULES),
    ("filter", "INPUT", IPVS_FILTER, _ACCESS_FILTER),
    ("filter", "OUTPUT", IPVS_OUT_FILTER, _ACCESS_FILTER),
)

JUMPS: Final[tuple[tuple[Place, str], ...]] = tuple(
    ((table, source), f'-m comment --comment "{comment}" -j {target}')
    for table, source, target, comment in _JUMPS
)
"""Rules in built-in chains that lead into ours, in the order of insertion: each goes to the top of its chain."""

_PROTOCOL_NUMBERS: Final = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What decides over the rules besides Services. `random_fully`: whether MASQUERADE knows that option."""

    detector: Detector | None = None
    masquerade_all: bool = False
    masquerade_bit: int = 14
    random_fully: bool = True

    @property
    def mark(self) -> str:
        """The packet mark that asks for masquerading."""
        return hex(1 << self.masquerade_bit)


@dataclass(frozen=True, slots=True)
class KeptFromNode:
    """A load balancer address and port that this node itself may not call."""

    address: Address
    protocol: Protocol
    port: int


def chains(
    family: Family, settings: ChainSettings, filled: Collection[SetKind], kept: Sequence[KeptFromNode]
) -> Mapping[Place, tuple[str, ...]]:
    """All chains and their rules. `filled` are the sets that have entries: rules of empty ones are left out."""
    return _Chains(family, settings, filled).render(kept)


def canonical(rule: str) -> str:
    """A rule in one spelling, for comparison: iptables-save quotes words otherwise than rules are written."""
    # The legacy programs put a backslash before quotation marks, which need none there.
    words = shlex.split(rule.replace("\\'", "'"))
    return " ".join(f'"{word}"' if " " in word or "'" in word else word for word in words)


class _Chains:
    def __init__(self, family: Family, settings: ChainSettings, filled: Collection[SetKind]) -> None:
        self.family = family
        self.settings = settings
        self.filled = filled

    def render(self, kept: Sequence[KeptFromNode]) -> Mapping[Place, tuple[str, ...]]:
        rules = {
            ("nat", SERVICES): self._services(),
            ("nat", POSTROUTING): self._postrouting(),
            ("nat", NODE_PORT): self._node_port(),
            ("nat", LOAD_BALANCER): self._load_balancer(),
            ("nat", MARK_MASQ): iter((f"-j MARK --set-xmark {self.settings.mark}/{self.settings.mark}",)),
            ("filter", FORWARD): self._forward(),
            ("filter", NODE_PORT): iter((self._matched(sets.HEALTH_CHECK_NODE_PORT, "dst", "ACCEPT"),)),
            ("filter", PROXY_FIREWALL): self._if_filled(
                sets.LOAD_BALANCER_FW, "dst,dst", SOURCE_RANGES_FIREWALL
            ),
            ("filter", SOURCE_RANGES_FIREWALL): self._source_ranges(),
            ("filter", IPVS_FILTER): self._ipvs_filter(),
            ("filter", IPVS_OUT_FILTER): self._out_filter(kept),
        }
        return {place: tuple(rules[place]) for place in CHAINS}

    def _services(self) -> Iterator[str]:
        """What leaves by a service address is looked at here; what IPVS shall handle is let through at the end, so
        that nobody else's rule behind ours catches it.
        """
        loopback = "127.0.0.0/8" if self.family is Family.IPV4 else "::1/128"
        yield f"-s {loopback} -j RETURN"
        yield from self._if_filled(sets.LOAD_BALANCER, "dst,dst", LOAD_BALANCER)
        if sets.CLUSTER_IP in self.filled:
            yield self._foreign_to_cluster_ip()
        if sets.EXTERNAL_IP in self.filled:
            yield self._matched(sets.EXTERNAL_IP, "dst,dst", MARK_MASQ)
            yield from self._external(sets.EXTERNAL_IP)
        if sets.EXTERNAL_IP_LOCAL in self.filled:
            yield from self._external(sets.EXTERNAL_IP_LOCAL)
        yield f"-m addrtype --dst-type LOCAL -j {NODE_PORT}"
        for kind in (sets.CLUSTER_IP, sets.LOAD_BALANCER):
            if kind in self.filled:
                yield f"-m set --match-set {self._name(kind)} dst,dst -j ACCEPT"

    def _foreign_to_cluster_ip(self) -> str:
        """Whose source is rewritten when calling a cluster IP. Without a detector at least the node's own calls:
        their source is a service address, because the kernel takes the address it calls, which it owns.
        """
        kind, settings = sets.CLUSTER_IP, self.settings
        if settings.masquerade_all:
            return self._matched(kind, "dst,dst", MARK_MASQ)
        if settings.detector is None:
            return self._matched(kind, "src,dst", MARK_MASQ)
        return self._matched(kind, "dst,dst", MARK_MASQ, before=f"{_not_local(settings.detector)} ")

    def _external(self, kind: SetKind) -> Iterator[str]:
        """Neither from a bridge's port (a pod) nor from the node itself; and addresses that are the node's own."""
        outside = " -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL"
        yield self._matched(kind, "dst,dst", "ACCEPT", after=outside)
        yield self._matched(kind, "dst,dst", "ACCEPT", after=" -m addrtype --dst-type LOCAL")

    def _load_balancer(self) -> Iterator[str]:
        yield from self._if_filled(sets.LOAD_BALANCER_LOCAL, "dst,dst", "RETURN")
        yield f"-j {MARK_MASQ}"

    def _node_port(self) -> Iterator[str]:
        for protocol, (every, local) in sets.NODE_PORTS.items():
            dimensions = "dst,dst" if protocol is Protocol.SCTP else "dst"
            before = f"-p {protocol.lower()} "
            yield from self._if_filled(local, dimensions, "RETURN", before)
            yield from self._if_filled(every, dimensions, MARK_MASQ, before)

    def _postrouting(self) -> Iterator[str]:
        mark = self.settings.mark
        fully = " --random-fully" if self.settings.random_fully else ""
        yield from self._if_filled(sets.LOOP_BACK, "dst,dst,src", "MASQUERADE")
        yield f"-m mark ! --mark {mark}/{mark} -j RETURN"
        # Clears the mark: a packet that is wrapped into a tunnel comes by once more.
        yield f"-j MARK --set-xmark {mark}/0x0"
        yield f'-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE{fully}'

    def _forward(self) -> Iterator[str]:
        mark = self.settings.mark
        yield f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT'
        established = "-m conntrack --ctstate RELATED,ESTABLISHED"
        yield f'-m comment --comment "kubernetes forwarding conntrack rule" {established} -j ACCEPT'

    def _source_ranges(self) -> Iterator[str]:
        yield from self._if_filled(sets.LOAD_BALANCER_SOURCE_CIDR, "dst,dst,src", "RETURN")
        yield from self._if_filled(sets.LOAD_BALANCER_SOURCE_IP, "dst,dst,src", "RETURN")
        yield "-j DROP"

    def _ipvs_filter(self) -> Iterator[str]:
        """Service addresses are the node's own now, so its processes would be reachable by them: refuse all but
        what IPVS serves.
        """
        for kind in (sets.LOAD_BALANCER, sets.CLUSTER_IP, sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL):
            yield f"-m set --match-set {self._name(kind)} dst,dst -j RETURN"
        yield f"-m set --match-set {self._name(sets.HEALTH_CHECK_NODE_PORT)} dst -j RETURN"
        reject = "icmp-port-unreachable" if self.family is Family.IPV4 else "icmp6-port-unreachable"
        yield (
            f"-m conntrack --ctstate NEW -m set --match-set {self._name(sets.IPVS_IPS)} dst "
            f"-j REJECT --reject-with {reject}"
        )

    def _out_filter(self, kept: Sequence[KeptFromNode]) -> Iterator[str]:
        """The node calls with the address it calls as source, which no source range could tell from itself."""
        length = 32 if self.family is Family.IPV4 else 128
        for one in kept:
            number = _PROTOCOL_NUMBERS[one.protocol]
            server = f"--vproto {number} --vaddr {one.address} --vport {one.port}"
            yield f"-s {one.address}/{length} -m ipvs {server} -j DROP"

    def _if_filled(self, kind: SetKind, dimensions: str, target: str, before: str = "") -> Iterator[str]:
        if kind in self.filled:
            yield self._matched(kind, dimensions, target, before=before)

    def _matched(
        self, kind: SetKind, dimensions: str, target: str, *, before: str = "", after: str = ""
    ) -> str:
        return (
            f'{before}-m comment --comment "{kind.comment}" '
            f"-m set --match-set {self._name(kind)} {dimensions}{after} -j {target}"
        )

    def _name(self, kind: SetKind) -> str:
        return kind.name_for(self.family)


def _not_local(detector: Detector) -> str:
    """The match of all traffic that the detector does not call local."""
    if isinstance(detector, SourceDetector):
        return f"! -s {detector.network}"
    return f"! -i {detector.name}{'+' if detector.prefix else ''}"
