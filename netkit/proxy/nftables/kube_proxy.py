"""The layout of kube-proxy 1.33 to 1.35: chains for every service port and endpoint, verdict maps that lead there.

Pure. Called for every service port that changes, and for all of them at once after a start: what is the same in
thousands of messages comes from templates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from netkit.kernel.nft.datatypes import INET_PROTO, INET_SERVICE, INTEGER
from netkit.kernel.nft.expressions import (
    Cmp,
    Code,
    Dnat,
    Dynset,
    DynsetOp,
    Expression,
    Immediate,
    Lookup,
    Meta,
    MetaKey,
    Numgen,
    Op,
    Verdict,
)
from netkit.kernel.nft.objects import Chain, Element, SetSpec, TableWriter, encode_leading, signature_of
from netkit.kernel.nft.template import Template
from netkit.proxy.addresses import Address, Family, Network
from netkit.proxy.choice import Choice
from netkit.proxy.choice import Verdict as Answer
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.flows import node_admitted
from netkit.proxy.nftables import names
from netkit.proxy.nftables.frame import FROM_NODE, FrameBuilder, masquerade_if_foreign, range_match
from netkit.proxy.nftables.layout import Frame, NftablesSettings, Part, Placed
from netkit.proxy.nftables.pieces import (
    JUMP_MARK_MASQ,
    PROTOCOL_NUMBERS,
    Pieces,
    Rule,
    node_port_value,
    protocol_and_port,
    verdict_of,
)
from netkit.proxy.services import ServicePort

_REJECT: Final = Verdict(Code.GOTO, names.REJECT)
_DROP: Final = Verdict(Code.DROP)
_PORT_REGISTER: Final = 4
"""Behind the four that an IPv6 address takes."""


class KubeProxyLayout:
    """See `layout.Layout`."""

    alternatives: Collection[str] = ()
    numbered: Collection[str] = ()

    def __init__(self, family: Family, settings: NftablesSettings) -> None:
        self.pieces = Pieces(family)
        self.settings = settings
        self.writer = TableWriter(self.pieces.number, names.TABLE)
        self._templates = _Templates(self.writer, self.pieces, settings)
        self._frame: Frame | None = None

    def frame(self) -> Frame:
        """See `layout.Layout`."""
        if self._frame is None:
            self._frame = self._new_frame()
        return self._frame

    def _new_frame(self) -> Frame:
        frame = FrameBuilder(self.writer, self.settings, self.pieces)
        frame.base_chains()
        frame.masquerading(*self._masquerade_first())
        frame.cluster_ips()
        self._fill(frame)
        sets, elements = frame.node_port_set()
        return Frame(frame.built(), [*self._sets(), *sets], elements, frame.rules)

    def _masquerade_first(self) -> Sequence[Rule]:
        """Rules that come before those for marked packets."""
        return ()

    def _fill(self, frame: FrameBuilder) -> None:
        """The lookups of what the Services ask for."""
        called, port = self.pieces.called(), protocol_and_port()
        frame.chain(Chain(names.REJECT, "helper for @no-endpoint-services / @no-endpoint-nodeports"))
        frame.rule(names.REJECT, (self.pieces.reject(),))
        frame.rule(names.FIREWALL_CHECK, (*called, verdict_of(names.FIREWALL_IPS)))
        check = frame.node_port_check()
        frame.rule(names.SERVICE_ENDPOINTS_CHECK, (*called, verdict_of(names.NO_ENDPOINT_SERVICES)))
        frame.rule(names.NODEPORT_ENDPOINTS_CHECK, check, (*port, verdict_of(names.NO_ENDPOINT_NODEPORTS)))
        frame.rule(names.SERVICES, (*called, verdict_of(names.SERVICE_IPS)))
        self._more_addresses(frame)
        # An external IP may be an address of the node: what is asked for by port alone comes last.
        frame.rule(names.SERVICES, frame.node_port_match(), (*port, verdict_of(names.SERVICE_NODEPORTS)))

    def _more_addresses(self, frame: FrameBuilder) -> None:
        """Further lookups of service addresses, before those of node ports."""

    def _sets(self) -> list[SetSpec]:
        by_address = self.pieces.service_key
        by_port = (INET_PROTO, INET_SERVICE)
        return [
            SetSpec(names.CLUSTER_IPS, (self.pieces.address,), comment="Active ClusterIPs"),
            SetSpec(
                names.FIREWALL_IPS,
                by_address,
                verdicts=True,
                comment="destinations that are subject to LoadBalancerSourceRanges",
            ),
            SetSpec(
                names.NO_ENDPOINT_NODEPORTS,
                by_port,
                verdicts=True,
                comment="vmap to drop or reject packets to service nodeports with no endpoints",
            ),
            SetSpec(
                names.NO_ENDPOINT_SERVICES,
                by_address,
                verdicts=True,
                comment="vmap to drop or reject packets to services with no endpoints",
            ),
            SetSpec(
                names.SERVICE_IPS,
                by_address,
                verdicts=True,
                comment="ClusterIP, ExternalIP and LoadBalancer IP traffic",
            ),
            SetSpec(names.SERVICE_NODEPORTS, by_port, verdicts=True, comment="NodePort traffic"),
        ]

    def port(self, port: ServicePort, choice: Choice) -> Part:
        """See `layout.Layout`."""
        return _PortRendering(self, self._templates, port, choice).part()

    def firewall(self, port: ServicePort, choice: Choice) -> Part:
        """Of a port only the source ranges of its load balancer addresses."""
        return _PortRendering(self, self._templates, port, choice).firewall_part()


class _PortRendering:
    """One rendering of one port; holds what every step needs."""

    def __init__(
        self, layout: KubeProxyLayout, templates: _Templates, port: ServicePort, choice: Choice
    ) -> None:
        self.layout = layout
        self.templates = templates
        self.port = port
        self.choice = choice
        self.text = names.port_text(port.name)
        self.base = names.hashed(self.text)
        self.internal = choice.verdict(port.internal_policy)
        self.external = choice.verdict(port.external_policy)
        self.guarded = bool(port.load_balancer_ips and port.source_ranges)
        self.chains: dict[str, bytes] = {}
        self.sets: dict[str, SetSpec] = {}
        self.anonymous: dict[int, str] = {}
        self.rules = 0

    def part(self) -> Part:
        port, choice, base = self.port, self.choice, self.base
        bases = {endpoint.target: names.endpoint_base(self.text, endpoint) for endpoint in choice.reachable}
        for chain, endpoints, internal in (
            (names.CLUSTER_PREFIX + base, choice.cluster, not port.internal_local),
            (names.LOCAL_PREFIX + base, choice.local, port.internal_local),
        ):
            if endpoints:
                self._balancing(chain, [bases[endpoint.target] for endpoint in endpoints], internal)
        if choice.has_any and port.externally_reachable:
            self._external()
        if self.guarded:
            self._firewall()
        for endpoint in choice.reachable:
            self._endpoint(bases[endpoint.target], endpoint)
        return Part(self.chains, self.sets, list(self._elements()), self.anonymous, self.rules)

    def firewall_part(self) -> Part:
        if not self.guarded:
            return Part()
        self._firewall()
        return Part(self.chains, {}, list(self._guards()), self.anonymous, self.rules)

    # chains

    def _balancing(self, chain: str, bases: Sequence[str], internal: bool) -> None:
        """service-X or local-X: who calls the cluster IP from outside is masqueraded, then an endpoint is chosen."""
        name, templates = chain.encode(), self.templates
        blocks: list[bytes] = []
        if internal and templates.foreign is not None:
            blocks.append(templates.foreign.fill(name, self.port.cluster_ip.packed))
        if self.port.affinity_seconds is not None:
            for base in bases:
                text = base.encode()
                blocks.append(templates.remembered.fill(name, b"affinity-" + text, b"endpoint-" + text))
        self.rules += len(blocks) + 1
        number = names.set_id(chain)
        self.anonymous[number] = chain
        blocks += templates.choice(name, bases, number, b"".join(blocks))
        self.chains[chain] = b"".join(blocks)

    def _endpoint(self, base: str, endpoint: Endpoint) -> None:
        """endpoint-X: masquerade an endpoint that reaches itself (it would answer itself), then translate."""
        chain = f"{names.ENDPOINT_PREFIX}{base}"
        address, port = endpoint.address.packed, endpoint.port.to_bytes(2, "big")
        protocol = PROTOCOL_NUMBERS[self.port.protocol]
        if self.port.affinity_seconds is None:
            self.chains[chain] = self.templates.endpoint.fill(chain.encode(), address, port, protocol)
            self.rules += 2
            return
        affinity = f"{names.AFFINITY_PREFIX}{base}"
        self.sets[affinity] = SetSpec(
            affinity,
            (self.layout.pieces.address,),
            dynamic=True,
            timeouts=True,
            timeout=self.port.affinity_seconds,
            size=0xFFFF,
        )
        self.chains[chain] = self.templates.sticky_endpoint.fill(
            chain.encode(), affinity.encode(), address, port, protocol
        )
        self.rules += 3

    def _external(self) -> None:
        """external-X: policy Cluster masquerades all. Policy Local keeps the source, but treats pods and the node
        as if they had gone out to a balancer and come back: they reach every endpoint.
        """
        chain, add = names.EXTERNAL_PREFIX + self.base, self.layout.writer.add_rule
        cluster, local = names.CLUSTER_PREFIX + self.base, names.LOCAL_PREFIX + self.base
        detector, pieces = self.layout.settings.detector, self.layout.pieces
        to_cluster = Verdict(Code.GOTO, cluster)
        blocks: list[bytes] = []
        if not self.port.external_local:
            blocks.append(add(chain, (JUMP_MARK_MASQ,)))
        elif self.choice.cluster:
            if detector is not None:
                rule: Rule = (*pieces.local(detector), to_cluster)
                blocks.append(add(chain, rule, "short-circuit pod traffic"))
            blocks.append(add(chain, (*FROM_NODE, JUMP_MARK_MASQ), "masquerade local traffic"))
            blocks.append(add(chain, (*FROM_NODE, to_cluster), "short-circuit local traffic"))
        if self.external is Answer.FORWARD:
            target = local if self.port.external_local else cluster
            blocks.append(add(chain, (Verdict(Code.GOTO, target),)))
        self.rules += len(blocks)
        self.chains[chain] = b"".join(blocks)

    def _firewall(self) -> None:
        """firewall-X: drop whoever is outside the source ranges."""
        chain = names.FIREWALL_PREFIX + self.base
        layout = self.layout
        sources = [*self.port.source_ranges]
        if node_admitted(self.port, layout.settings.node):
            sources += [_network(address) for address in self.port.load_balancer_ips]
        messages, rule = range_match(
            layout.writer, layout.pieces.saddr(), sources, chain, negate=True, pieces=layout.pieces
        )
        if messages:
            self.anonymous[names.set_id(chain)] = chain
        self.chains[chain] = b"".join((*messages, layout.writer.add_rule(chain, (*rule, _DROP))))
        self.rules += 1

    # elements of shared maps

    def _elements(self) -> Iterator[Placed]:
        port, comment = self.port, self.port.name.text
        yield names.CLUSTER_IPS, Element(port.cluster_ip.packed)
        if self.internal is Answer.FORWARD:
            prefix = names.LOCAL_PREFIX if port.internal_local else names.CLUSTER_PREFIX
            yield (
                names.SERVICE_IPS,
                Element(self._key(port.cluster_ip), Verdict(Code.GOTO, prefix + self.base)),
            )
        else:
            verdict = _DROP if self.internal is Answer.DROP else _REJECT
            yield names.NO_ENDPOINT_SERVICES, Element(self._key(port.cluster_ip), verdict, comment)
        if not port.externally_reachable:
            return
        target = Verdict(Code.GOTO, names.EXTERNAL_PREFIX + self.base)
        refusal = _DROP if self.external is Answer.DROP else _REJECT
        for address in (*port.external_ips, *port.load_balancer_ips):
            if self.choice.has_any:
                yield names.SERVICE_IPS, Element(self._key(address), target)
            if self.external is not Answer.FORWARD:
                yield names.NO_ENDPOINT_SERVICES, Element(self._key(address), refusal, comment)
        if self.guarded:
            yield from self._guards()
        if port.node_port:
            key = node_port_value(port.protocol, port.node_port)
            if self.choice.has_any:
                yield names.SERVICE_NODEPORTS, Element(key, target)
            if self.external is not Answer.FORWARD:
                yield names.NO_ENDPOINT_NODEPORTS, Element(key, refusal, comment)

    def _guards(self) -> Iterator[Placed]:
        wall = Verdict(Code.GOTO, names.FIREWALL_PREFIX + self.base)
        for address in self.port.load_balancer_ips:
            yield names.FIREWALL_IPS, Element(self._key(address), wall)

    def _key(self, address: Address) -> bytes:
        return self.layout.pieces.service_value(address, self.port.protocol, self.port.port)


class _Templates:
    """Messages of chains of which there are thousands."""

    def __init__(self, writer: TableWriter, pieces: Pieces, settings: NftablesSettings) -> None:
        self._writer = writer
        family = pieces.number

        def rule(chain: bytes, *expressions: Expression) -> bytes:
            return writer.add_rule(chain.decode(), expressions)

        def hairpin(address: bytes) -> Rule:
            return (pieces.saddr(), Cmp(Op.EQ, address), JUMP_MARK_MASQ)

        def translate(address: bytes, port: bytes, protocol: bytes) -> Rule:
            return (
                Meta(MetaKey.L4PROTO),
                Cmp(Op.EQ, protocol),
                Immediate(address, 0),
                Immediate(port, _PORT_REGISTER),
                Dnat(family, 0, _PORT_REGISTER),
            )

        foreign = masquerade_if_foreign(settings, pieces)
        self.foreign: Template | None = None
        if foreign is not None:
            self.foreign = Template(
                lambda v: rule(v["chain"], pieces.daddr(), Cmp(Op.EQ, v["address"]), *foreign),
                ("chain", "address"),
            )
        self.remembered = Template(
            lambda v: rule(
                v["chain"],
                pieces.saddr(),
                Lookup(v["affinity"].decode()),
                Verdict(Code.GOTO, v["endpoint"].decode()),
            ),
            ("chain", "affinity", "endpoint"),
        )
        self.endpoint = Template(
            lambda v: (
                rule(v["chain"], *hairpin(v["address"]))
                + rule(v["chain"], *translate(v["address"], v["port"], v["protocol"]))
            ),
            ("chain", "address", "port", "protocol"),
        )
        self.sticky_endpoint = Template(
            lambda v: (
                rule(v["chain"], *hairpin(v["address"]))
                + rule(v["chain"], pieces.saddr(), Dynset(DynsetOp.UPDATE, v["affinity"].decode()))
                + rule(v["chain"], *translate(v["address"], v["port"], v["protocol"]))
            ),
            ("chain", "affinity", "address", "port", "protocol"),
        )
        self._choice_set = Template(
            lambda v: writer.add_set(
                SetSpec(
                    v["name"].decode(),
                    (INTEGER,),
                    verdicts=True,
                    size=int.from_bytes(v["count"], "big"),
                    anonymous=True,
                    signature=v["signature"],
                ),
                int.from_bytes(v["number"], "big"),
            ),
            ("name", "count", "signature", "number"),
        )
        self._choice_rule = Template(
            lambda v: rule(
                v["chain"],
                Numgen(int.from_bytes(v["count"], "big")),
                Lookup(v["name"].decode(), verdict=True),
            ),
            ("chain", "count", "name"),
        )

    def choice(self, chain: bytes, bases: Sequence[str], number: int, before: bytes) -> list[bytes]:
        """The rule that picks one of the endpoints at random, and the anonymous map it needs.

        `before` are the chain's other rules: when one of them changes, the map is another one too.
        """
        writer, text = self._writer, chain.decode()
        items = [
            encode_leading(index, b"endpoint-" + base.encode())
            for index, base in zip(_indexes(len(bases)), bases, strict=True)
        ]
        count = len(bases).to_bytes(4, "big")
        signature = signature_of(b"".join(items))
        name = names.set_name(text, signature + before).encode()
        return [
            self._choice_set.fill(name, count, signature, number.to_bytes(4, "big")),
            *writer.add_encoded(items, number),
            self._choice_rule.fill(chain, count, name),
        ]


@lru_cache(maxsize=1024)
def _indexes(count: int) -> tuple[bytes, ...]:
    """The keys of the first numbers."""
    return tuple(map(INTEGER.pack, range(count)))


def _network(address: Address) -> Network:
    return ip_network(address)
