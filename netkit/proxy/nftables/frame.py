"""The chains and rules that do not depend on Services, as kube-proxy 1.33 to 1.35 has them. Pure.

Base chains hang on the kernel's hooks: filter chains before DNAT (for source ranges, which are about the address
that was called) and after it (what was not translated meets the verdict of its Service), nat chains between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from netkit.kernel.nft.datatypes import FIB_ADDRTYPE
from netkit.kernel.nft.expressions import (
    FIB_DADDR,
    FIB_SADDR,
    Cmp,
    Code,
    FibType,
    Lookup,
    Masquerade,
    Op,
    Payload,
    Verdict,
)
from netkit.kernel.nft.objects import Chain, Element, Hook, SetSpec, TableWriter, ranges, signature
from netkit.proxy.addresses import Network
from netkit.proxy.nftables import names
from netkit.proxy.nftables.layout import NftablesSettings
from netkit.proxy.nftables.pieces import (
    JUMP_MARK_MASQ,
    Pieces,
    Rule,
    flip_mark,
    in_set,
    new_connection,
    set_mark,
    unmarked,
)

TABLE_COMMENT: Final = "rules for kube-proxy"
_LOCAL: Final = FIB_ADDRTYPE.pack(2)
FROM_NODE: Final[Rule] = (FibType(FIB_SADDR), Cmp(Op.EQ, _LOCAL))
"""Match what comes from an address of this node."""

BASE_CHAINS: Final = (
    Chain(names.FILTER_PREROUTING, hook=Hook("filter", "prerouting", -110)),
    Chain(names.FILTER_OUTPUT_PRE_DNAT, hook=Hook("filter", "output", -110)),
    Chain(names.FILTER_INPUT, hook=Hook("filter", "input", 0)),
    Chain(names.FILTER_FORWARD, hook=Hook("filter", "forward", 0)),
    Chain(names.FILTER_OUTPUT, hook=Hook("filter", "output", 0)),
    Chain(names.NAT_PREROUTING, hook=Hook("nat", "prerouting", -100)),
    Chain(names.NAT_OUTPUT, hook=Hook("nat", "output", -100)),
    Chain(names.NAT_POSTROUTING, hook=Hook("nat", "postrouting", 100)),
)
_CHECKS: Final = (
    (names.FILTER_INPUT, names.NODEPORT_ENDPOINTS_CHECK),
    (names.FILTER_INPUT, names.SERVICE_ENDPOINTS_CHECK),
    (names.FILTER_FORWARD, names.SERVICE_ENDPOINTS_CHECK),
    (names.FILTER_OUTPUT, names.SERVICE_ENDPOINTS_CHECK),
    (names.FILTER_PREROUTING, names.FIREWALL_CHECK),
    (names.FILTER_OUTPUT_PRE_DNAT, names.FIREWALL_CHECK),
    (names.FILTER_FORWARD, names.CLUSTER_IPS_CHECK),
    (names.FILTER_OUTPUT, names.CLUSTER_IPS_CHECK),
)
"""Base chains whose new connections are checked, and the chains that check them, in order."""


class FrameBuilder:
    """Collects chains and their rules. Every layout begins with `base_chains` and the chains of masquerading."""

    def __init__(self, writer: TableWriter, settings: NftablesSettings, pieces: Pieces) -> None:
        self.writer = writer
        self.settings = settings
        self.pieces = pieces
        self.chains: dict[str, Chain] = {}
        self.rules = 0
        self._messages: dict[str, list[bytes]] = {}

    def chain(self, chain: Chain) -> None:
        """Have the chain, with no rules yet."""
        self.chains[chain.name] = chain
        self._messages.setdefault(chain.name, [])

    def rule(self, chain: str, *expressions: Rule, comment: str = "") -> None:
        """Append a rule made of pieces."""
        flat = [expression for piece in expressions for expression in piece]
        self._messages[chain].append(self.writer.add_rule(chain, flat, comment))
        self.rules += 1

    def messages(self, chain: str, *found: bytes) -> None:
        """Append messages as they are, such as those of an anonymous set."""
        self._messages[chain] += found

    def built(self) -> list[tuple[Chain, bytes]]:
        """All chains and their rules."""
        return [(chain, b"".join(self._messages[name])) for name, chain in self.chains.items()]

    def base_chains(self) -> None:
        """The chains on the kernel's hooks, and what they lead to."""
        for chain in BASE_CHAINS:
            self.chain(chain)
        for source, target in _CHECKS:
            self.rule(source, new_connection(), (Verdict(Code.JUMP, target),))
        for source, target in (
            (names.NAT_OUTPUT, names.SERVICES),
            (names.NAT_PREROUTING, names.SERVICES),
            (names.NAT_POSTROUTING, names.MASQUERADING),
        ):
            self.rule(source, (Verdict(Code.JUMP, target),))
        for name in (
            names.CLUSTER_IPS_CHECK,
            names.FIREWALL_CHECK,
            names.NODEPORT_ENDPOINTS_CHECK,
            names.SERVICE_ENDPOINTS_CHECK,
            names.SERVICES,
        ):
            self.chain(Chain(name))

    def masquerading(self, *first: Rule) -> None:
        """Mark what shall be masqueraded; masquerade what is marked, without the mark, once the way out is known.

        `first` are rules that come before.
        """
        mark = self.settings.mark
        self.chain(Chain(names.MARK_MASQ))
        self.rule(names.MARK_MASQ, set_mark(mark))
        self.chain(Chain(names.MASQUERADING))
        for rule in first:
            self.rule(names.MASQUERADING, rule)
        self.rule(names.MASQUERADING, unmarked(mark), (Verdict(Code.RETURN),))
        self.rule(names.MASQUERADING, flip_mark(mark))
        self.rule(names.MASQUERADING, (Masquerade(),))

    def cluster_ips(self) -> None:
        """Undeclared ports of cluster IPs are refused, addresses that nobody has are met with silence."""
        daddr, chain = self.pieces.daddr(), names.CLUSTER_IPS_CHECK
        self.rule(
            chain,
            (daddr, in_set(names.CLUSTER_IPS), self.pieces.reject()),
            comment="Reject traffic to invalid ports of ClusterIPs",
        )
        if self.settings.service_ranges:
            self.in_ranges(
                chain,
                self.settings.service_ranges,
                comment="Drop traffic to unallocated ClusterIPs",
            )

    def in_ranges(self, chain: str, networks: Sequence[Network], *, comment: str) -> None:
        """Drop what goes to one of the ranges; nft writes a single one without a set."""
        messages, rule = range_match(
            self.writer, self.pieces.daddr(), networks, chain, negate=False, pieces=self.pieces
        )
        self.messages(chain, *messages)
        self.rule(chain, rule, (Verdict(Code.DROP),), comment=comment)

    def node_port_match(self) -> Rule:
        """Match the addresses that node ports answer on."""
        if self.settings.node_port_ips is not None:
            return (self.pieces.daddr(), in_set(names.NODEPORT_IPS))
        return (FibType(FIB_DADDR), Cmp(Op.EQ, _LOCAL), *self.not_loopback())

    def not_loopback(self) -> Rule:
        return self.pieces.inside(self.pieces.daddr(), self.pieces.loopback, negate=True)

    def node_port_check(self) -> Rule:
        """The same where packets are known to be for the node."""
        return self.not_loopback() if self.settings.node_port_ips is None else self.node_port_match()

    def node_port_set(self) -> tuple[list[SetSpec], list[tuple[str, Element]]]:
        """The set of addresses node ports answer on; none when all do."""
        found = self.settings.node_port_ips
        if found is None:
            return [], []
        spec = SetSpec(names.NODEPORT_IPS, (self.pieces.address,), comment="IPs that accept NodePort traffic")
        return [spec], [(spec.name, Element(address.packed)) for address in found]


def masquerade_if_foreign(settings: NftablesSettings, pieces: Pieces, match: Rule = ()) -> Rule | None:
    """Mark calls of a cluster IP from outside the cluster: answers must come back here. None if none is."""
    if settings.masquerade_all:
        return (*match, JUMP_MARK_MASQ)
    if settings.detector is None:
        return None
    return (*match, *pieces.local(settings.detector, negate=True), JUMP_MARK_MASQ)


def range_match(
    writer: TableWriter,
    field: Payload,
    networks: Sequence[Network],
    chain: str,
    *,
    negate: bool,
    pieces: Pieces,
) -> tuple[list[bytes], Rule]:
    """A match of several ranges: the messages of an anonymous set, and the expressions that use it.

    One range needs no set, and addresses alone no intervals; nft writes them the same way.
    """
    if len(set(networks)) == 1:
        return [], pieces.inside(field, networks[0], negate=negate)
    interval = any(network.prefixlen < network.max_prefixlen for network in networks)
    if interval:
        spans = [(int(network.network_address), int(network.broadcast_address)) for network in networks]
        elements = ranges(spans, pieces.address.length)
    else:
        elements = [
            Element(address) for address in {network.network_address.packed: None for network in networks}
        ]
    contents = signature(elements)
    spec = SetSpec(
        names.set_name(chain, contents),
        (pieces.address,),
        interval=interval,
        size=len(elements),
        anonymous=True,
        signature=contents,
    )
    number = names.set_id(chain)
    messages = [writer.add_set(spec, number), *writer.add_elements(spec.name, elements, number)]
    return messages, (field, Lookup(spec.name, field.reg, inverted=negate))
