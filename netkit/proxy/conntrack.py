"""Which tracked UDP flows are stale: those to a Service that still lead where no endpoint of it is.

The kernel translates only the first packet of a flow, and a UDP flow lives as long as its client keeps sending: a
resolver with one socket would talk to a dead pod for ever, or to nobody if it began before the rules were there. TCP
and SCTP notice by themselves, and are never touched. Semantics of kube-proxy's reconciler (1.33), with Services
that lost their last endpoint.

Pure: `conntrack_cleaner` acts on it, explanations show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from netkit.kernel.conntrack import Entry
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import Protocol, ServicePort, ServicePortName
from netkit.proxy.state import Changes, ProxyState

UDP = 17
"""The protocol's number in IP headers and conntrack entries."""

_Place = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the cleaner thinks of one entry. `port` is the service port it was addressed to, None if to none."""

    stale: bool
    reason: str
    port: ServicePortName | None = None


@dataclass(frozen=True, slots=True)
class _Backends:
    port: ServicePortName
    places: frozenset[_Place]


@dataclass(slots=True)
class UDPServices:
    """The UDP service ports of one family by what clients call. Of two that claim the same the older has it."""

    by_address: dict[_Place, _Backends] = field(default_factory=dict)
    by_node_port: dict[int, _Backends] = field(default_factory=dict)

    @classmethod
    def of(cls, state: ProxyState) -> UDPServices:
        """Those of a state that has collected."""
        services = cls()
        for port in state.ports():
            if port.protocol is Protocol.UDP:
                services.add(port, state.endpoints(port.name))
        return services

    def add(self, port: ServicePort, endpoints: Iterable[Endpoint]) -> None:
        """Take in a port that is younger than those before.

        Every endpoint that answers counts, whatever policies and hints say: a change of those leaves running
        connections alone, with UDP as with TCP.
        """
        places = frozenset(
            (endpoint.address.packed, endpoint.port)
            for endpoint in endpoints
            if endpoint.ready or endpoint.serving
        )
        backends = _Backends(port.name, places)
        for address in (port.cluster_ip, *port.load_balancer_ips, *port.external_ips):
            self.by_address.setdefault((address.packed, port.port), backends)
        if port.node_port:
            self.by_node_port.setdefault(port.node_port, backends)

    def __bool__(self) -> bool:
        return bool(self.by_address)

    def judge(self, entry: Entry) -> Judgement:
        """Whether `entry` has to go.

        A node port is told by its number alone: which addresses count as the node's may have changed since. The
        address of a Service goes first, as it does in the rules.
        """
        if entry.protocol != UDP:
            return Judgement(False, "not UDP")
        backends = self._called(entry)
        if backends is None:
            return Judgement(False, "not addressed to a UDP service port")
        answering = (entry.reply.source, entry.reply.source_port)
        if answering in backends.places:
            return Judgement(False, "leads to an endpoint", backends.port)
        if answering == (entry.original.destination, entry.original.destination_port):
            return Judgement(True, "never translated: made before there was a rule for it", backends.port)
        return Judgement(True, "leads to what is no endpoint any more", backends.port)

    def stale(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that have to go. Most entries of a table are about no Service, and passed over quickly."""
        return [entry for entry in entries if self._called(entry) is not None and self.judge(entry).stale]

    def _called(self, entry: Entry) -> _Backends | None:
        called = entry.original
        backends = self.by_address.get((called.destination, called.destination_port))
        return backends or self.by_node_port.get(called.destination_port)


def concerns_udp(changes: Changes) -> bool:
    """Whether a UDP service port came, went, or changed in any way."""
    return any(
        name.protocol is Protocol.UDP for names in (changes.updated, changes.removed) for name in names
    )
