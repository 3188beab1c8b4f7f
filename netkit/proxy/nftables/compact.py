"""A layout of our own: endpoints in data maps, so that a changed endpoint changes elements and nothing else. Pure.

A verdict that changes makes the kernel walk the whole table for loops and wrong hooks. Here no verdict depends on an
ordinary service: sets say how its addresses are treated (which chain, how many endpoints), and maps from address,
protocol, port and a number hold its endpoints. The answers are those of `kube_proxy`, flow by flow.

    services        called address . protocol . port in one of four sets (node ports: protocol . port, two sets)
    internal-...    masquerade who calls from outside the cluster; pick
    external-...    masquerade, or (Local) short cuts for pods and the node; pick
    pick-LIST       in which of eleven sets is it? LIST-1, LIST-2, LIST-4, ... LIST-1024: so many endpoints or less
    LIST-SIZE       a random number below SIZE, until there is an endpoint of that number -> dnat

A number that is too large is drawn again, which keeps all shares equal; more than half of the numbers have an
endpoint, so twenty draws in a row fail once in a million times, and the last draw is among those that have one.
Endpoints that reach themselves are masqueraded on the way out (@hairpin-connections), as in kube-proxy 1.36.

Services with session affinity or more endpoints than that have chains as in `kube_proxy`, and so have source ranges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from netkit.kernel.nft.datatypes import INET_PROTO, INET_SERVICE, MARK
from netkit.kernel.nft.expressions import Code, Dnat, Lookup, Masquerade, Numgen, Verdict
from netkit.kernel.nft.objects import Chain, Element, SetSpec
from netkit.proxy.addresses import Address
from netkit.proxy.choice import Choice
from netkit.proxy.choice import Verdict as Answer
from netkit.proxy.nftables import names
from netkit.proxy.nftables.frame import FROM_NODE, FrameBuilder, masquerade_if_foreign
from netkit.proxy.nftables.kube_proxy import KubeProxyLayout
from netkit.proxy.nftables.layout import Part, Placed
from netkit.proxy.nftables.pieces import (
    JUMP_MARK_MASQ,
    PROTOCOL_NUMBERS,
    Rule,
    in_set,
    node_port_value,
    protocol_and_port,
    translated,
    unmarked,
)
from netkit.proxy.services import ServicePort

CLUSTER, LOCAL = "cluster", "local"
LISTS: Final = (CLUSTER, LOCAL)
SERVICES, NODEPORTS = "services", "nodeports"
KEYS: Final = (SERVICES, NODEPORTS)
"""What sets and maps are looked up by: address, protocol and port of a service, or protocol and node port."""

LARGEST: Final = 1024
SIZES: Final = tuple(1 << power for power in range(LARGEST.bit_length()))
HAIRPIN: Final = "hairpin-connections"
NO_LOCAL: Final = "no-local-endpoint"

INTERNAL, EXTERNAL = "internal", "external"
_KINDS: Final = (
    (INTERNAL, CLUSTER, SERVICES),
    (INTERNAL, LOCAL, SERVICES),
    (EXTERNAL, CLUSTER, SERVICES),
    (EXTERNAL, LOCAL, SERVICES),
    (EXTERNAL, CLUSTER, NODEPORTS),
    (EXTERNAL, LOCAL, NODEPORTS),
)
_DRAWS, _ROUNDS = 4, 5
_DROP: Final = Verdict(Code.DROP)


class CompactLayout(KubeProxyLayout):
    """See `layout.Layout`."""

    alternatives: Collection[str] = frozenset(
        f"{which}-{size}-{keys}" for which in LISTS for size in SIZES for keys in KEYS
    )
    numbered: Collection[str] = frozenset(f"{which}-{keys}" for which in LISTS for keys in KEYS)

    def _fill(self, frame: FrameBuilder) -> None:
        super()._fill(frame)
        for keys, check, match in (
            (SERVICES, names.SERVICE_ENDPOINTS_CHECK, ()),
            (NODEPORTS, names.NODEPORT_ENDPOINTS_CHECK, frame.node_port_check()),
        ):
            key = self._key_of(keys)
            frame.rule(check, match, (*key, in_set(f"reject-{keys}"), self.pieces.reject()))
            frame.rule(check, match, (*key, in_set(f"drop-{keys}"), _DROP))
        self._dispatch(frame, NODEPORTS)
        for kind, which, keys in _KINDS:
            self._kind(frame, kind, which, keys)
        for which in LISTS:
            for keys in KEYS:
                self._pick(frame, which, keys)

    def _more_addresses(self, frame: FrameBuilder) -> None:
        self._dispatch(frame, SERVICES)

    def _dispatch(self, frame: FrameBuilder, keys: str) -> None:
        """Lead to the chain of the kind of what was called."""
        match = frame.node_port_match() if keys == NODEPORTS else ()
        for kind, which, other in _KINDS:
            if other == keys:
                chain = f"{kind}-{which}-{keys}"
                lead = Verdict(Code.GOTO, chain)
                frame.rule(names.SERVICES, match, (*self._key_of(keys), in_set(chain), lead))

    def _masquerade_first(self) -> Sequence[Rule]:
        """Connections that were led back to where they came from."""
        words = self.pieces.words
        return (
            (
                *unmarked(self.settings.mark),
                *translated(),
                self.pieces.saddr(),
                self.pieces.daddr(words),
                *protocol_and_port(2 * words),
                in_set(HAIRPIN),
                Masquerade(),
            ),
        )

    def _kind(self, frame: FrameBuilder, kind: str, which: str, keys: str) -> None:
        """Decide over masquerading, and over which list is picked from."""
        chain = f"{kind}-{which}-{keys}"
        frame.chain(Chain(chain))
        if kind == INTERNAL:
            foreign = masquerade_if_foreign(self.settings, self.pieces)
            if foreign is not None:
                frame.rule(chain, foreign)
        elif which == CLUSTER:
            frame.rule(chain, (JUMP_MARK_MASQ,))
        else:
            to_cluster = (Verdict(Code.GOTO, f"pick-{CLUSTER}-{keys}"),)
            if self.settings.detector is not None:
                pods = self.pieces.local(self.settings.detector)
                frame.rule(chain, pods, to_cluster, comment="short-circuit pod traffic")
            frame.rule(chain, FROM_NODE, (JUMP_MARK_MASQ,), comment="masquerade local traffic")
            frame.rule(chain, FROM_NODE, to_cluster, comment="short-circuit local traffic")
        frame.rule(chain, (Verdict(Code.GOTO, f"pick-{which}-{keys}"),))

    def _pick(self, frame: FrameBuilder, which: str, keys: str) -> None:
        pick = f"pick-{which}-{keys}"
        frame.chain(Chain(pick))
        for size in SIZES:
            chain = f"{which}-{size}-{keys}"
            frame.chain(Chain(chain))
            frame.rule(pick, (*self._key_of(keys), in_set(chain), Verdict(Code.GOTO, chain)))
            if size <= 2:
                frame.rule(chain, self._draw(which, size, keys))
                continue
            draws = f"draw-{chain}"
            frame.chain(Chain(draws))
            for _ in range(_DRAWS):
                frame.rule(draws, self._draw(which, size, keys))
            for _ in range(_ROUNDS):
                frame.rule(chain, (Verdict(Code.JUMP, draws),))
            frame.rule(chain, self._draw(which, size // 2, keys))

    def _draw(self, which: str, size: int, keys: str) -> Rule:
        """Translate to the endpoint of a random number; where there is none the rule does nothing."""
        number = 2 if keys == NODEPORTS else self.pieces.words + 2
        endpoint = Lookup(f"{which}-{keys}", into=0)
        return (
            *self._key_of(keys),
            Numgen(size, number),
            endpoint,
            Dnat(self.pieces.number, 0, self.pieces.words),
        )

    def _key_of(self, keys: str) -> Rule:
        return protocol_and_port() if keys == NODEPORTS else self.pieces.called()

    def _sets(self) -> list[SetSpec]:
        address = self.pieces.address
        found = super()._sets()
        for keys in KEYS:
            key = (INET_PROTO, INET_SERVICE) if keys == NODEPORTS else self.pieces.service_key
            found += [
                SetSpec(f"{kind}-{which}-{keys}", key) for kind, which, other in _KINDS if other == keys
            ]
            found += [
                SetSpec(f"reject-{keys}", key, comment=f"{keys} with no endpoints"),
                SetSpec(f"drop-{keys}", key, comment=f"{keys} with no endpoints on this node"),
            ]
            for which in LISTS:
                found.append(SetSpec(f"{which}-{keys}", (*key, MARK), (address, INET_SERVICE)))
                found += [SetSpec(f"{which}-{size}-{keys}", key) for size in SIZES]
        hairpin = (address, address, INET_PROTO, INET_SERVICE)
        found.append(SetSpec(HAIRPIN, hairpin, comment="endpoints as they reach themselves"))
        return found

    def port(self, port: ServicePort, choice: Choice) -> Part:
        """See `layout.Layout`."""
        if port.affinity_seconds is not None or max(len(choice.cluster), len(choice.local)) > LARGEST:
            return super().port(port, choice)
        walls = self.firewall(port, choice)
        elements = [*walls.elements, *_PortElements(self, port, choice).all()]
        return Part(walls.chains, {}, elements, walls.anonymous, walls.rules)


class _PortElements:
    """The elements of one port."""

    def __init__(self, layout: CompactLayout, port: ServicePort, choice: Choice) -> None:
        self.layout = layout
        self.port = port
        self.choice = choice
        self.targets = {
            endpoint.target: endpoint.address.packed + endpoint.port.to_bytes(2, "big") + b"\0\0"
            for endpoint in choice.reachable
        }
        self.values = {
            which: [self.targets[endpoint.target] for endpoint in endpoints]
            for which, endpoints in ((CLUSTER, choice.cluster), (LOCAL, choice.local))
        }

    def all(self) -> Iterator[Placed]:
        port = self.port
        yield names.CLUSTER_IPS, Element(port.cluster_ip.packed)
        internal = LOCAL if port.internal_local else CLUSTER
        verdict = self.choice.verdict(port.internal_policy)
        yield from self._called(SERVICES, self._key(port.cluster_ip), INTERNAL, internal, verdict)
        if port.externally_reachable:
            external = LOCAL if port.external_local else CLUSTER
            verdict = self.choice.verdict(port.external_policy)
            for address in (*port.external_ips, *port.load_balancer_ips):
                yield from self._called(SERVICES, self._key(address), EXTERNAL, external, verdict)
            if port.node_port:
                key = node_port_value(port.protocol, port.node_port)
                yield from self._called(NODEPORTS, key, EXTERNAL, external, verdict)
        number = PROTOCOL_NUMBERS[port.protocol] + b"\0\0\0"
        for value in self.targets.values():
            yield HAIRPIN, Element(_loop(value, number))

    def _called(self, keys: str, key: bytes, kind: str, which: str, verdict: Answer) -> Iterator[Placed]:
        """The elements of one address or node port. Under external Local pods and the node reach the cluster list
        also where nobody else reaches anything.
        """
        if verdict is not Answer.FORWARD:
            name = f"drop-{keys}" if verdict is Answer.DROP else f"reject-{keys}"
            yield name, Element(key, comment=self.port.name.text)
        short_cuts = kind == EXTERNAL and which == LOCAL
        if self.values[which] or (short_cuts and self.choice.has_any):
            yield f"{kind}-{which}-{keys}", Element(key)
        for name in LISTS if short_cuts else (which,):
            yield from self._list(name, keys, key)

    def _list(self, which: str, keys: str, key: bytes) -> Iterator[Placed]:
        values = self.values[which]
        if not values:
            return
        yield f"{which}-{1 << (len(values) - 1).bit_length()}-{keys}", Element(key)
        name = f"{which}-{keys}"
        for index, value in enumerate(values):
            yield name, Element(key + MARK.pack(index), value)

    def _key(self, address: Address) -> bytes:
        return self.layout.pieces.service_value(address, self.port.protocol, self.port.port)


def _loop(endpoint: bytes, protocol: bytes) -> bytes:
    """The key of a connection to itself of an endpoint, which is given as it stands in the maps."""
    address, port = endpoint[:-4], endpoint[-4:]
    return address + address + protocol + port
