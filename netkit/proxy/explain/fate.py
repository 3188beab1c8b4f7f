"""What becomes of one connection in a given mode: `flows.answer`, and where a mode is known to differ from it.

`flows` describes the iptables mode. The differences are the kernel's: ipvs has one virtual server per address and so
one list for all callers; nftables tests source ranges before it asks for endpoints. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netkit.proxy.addresses import Address
from netkit.proxy.choice import Choice, Verdict
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.flows import Caller, Destination, Flow, admitted, answer
from netkit.proxy.services import Protocol, ServicePort, TrafficPolicy
from netkit.proxy.settings import ProxyMode


@dataclass(frozen=True, slots=True)
class Fate:
    """A flow and how it came to it.

    `policy` is the traffic policy of the list that was taken, `short_circuit` that Local was asked for, but callers
    inside the cluster are spared it. `unlisted`: the source ranges decided. `closed`: refused by a process that has
    accepted the connection before. `deviation` says what the mode does otherwise than iptables here, or is empty.
    """

    flow: Flow
    policy: TrafficPolicy
    short_circuit: bool = False
    unlisted: bool = False
    closed: bool = False
    deviation: str = ""


def fate(
    port: ServicePort,
    merged: Sequence[Endpoint],
    choice: Choice,
    destination: Destination,
    source: Source,
    standpoint: Standpoint,
) -> Fate:
    """The fate of a connection of `source` to `port` by way of `destination`; `choice` is made of `merged`."""
    if standpoint.mode is ProxyMode.USERSPACE:
        return _userspace(port, merged)
    if standpoint.mode is ProxyMode.IPVS:
        return _ipvs(port, choice, destination, source, standpoint)
    caller = standpoint.caller(source)
    flow = answer(
        port, choice, destination, caller, source.address, standpoint.node, standpoint.flow_settings
    )
    local = port.external_local if destination is not Destination.CLUSTER_IP else port.internal_local
    spared = destination is not Destination.CLUSTER_IP and local and caller is not Caller.OUTSIDE
    policy = TrafficPolicy.LOCAL if local and not spared else TrafficPolicy.CLUSTER
    guarded = destination is Destination.LOAD_BALANCER and not admitted(port, source.address, standpoint.node)
    if guarded and standpoint.mode is ProxyMode.NFTABLES and not choice.has_any:
        return Fate(
            Flow(Verdict.DROP),
            policy,
            unlisted=True,
            deviation="nftables drops unlisted sources also when there is no endpoint (iptables refuses them)",
        )
    return Fate(flow, policy, spared, unlisted=guarded and choice.has_any)


def unruled(
    found: Fate, destination: Destination, address: Address, source: Source, standpoint: Standpoint
) -> str:
    """Why no rule carries a verdict out, where kube-proxy has left one away; empty everywhere else."""
    if standpoint.mode is not ProxyMode.IPTABLES or found.flow.verdict is Verdict.FORWARD or found.unlisted:
        return ""
    if source.origin is not Origin.NODE or standpoint.is_local_address(address):
        return ""
    if destination not in (Destination.EXTERNAL_IP, Destination.LOAD_BALANCER):
        return ""
    return (
        f"it has no endpoint, and iptables refuses calls to external addresses on the way in or through, not those "
        f"of the node itself: the packet leaves {standpoint.node.name} for whoever has {address}"
    )


def _userspace(port: ServicePort, merged: Sequence[Endpoint]) -> Fate:
    """The proxy process takes every connection and calls a ready endpoint itself, whoever called what."""
    ready = tuple(endpoint for endpoint in merged if endpoint.ready)
    deviation = "knows no traffic policies, hints, source ranges or draining endpoints: all ready endpoints take turns"
    if ready:
        return Fate(Flow(Verdict.FORWARD, ready, True), TrafficPolicy.CLUSTER, deviation=deviation)
    if port.protocol is Protocol.UDP:
        return Fate(Flow(Verdict.DROP), TrafficPolicy.CLUSTER, deviation=deviation)
    return Fate(Flow(Verdict.REJECT), TrafficPolicy.CLUSTER, closed=True, deviation=deviation)


def _ipvs(
    port: ServicePort, choice: Choice, destination: Destination, source: Source, standpoint: Standpoint
) -> Fate:
    """One virtual server per address: its list is the same for all callers."""
    caller = standpoint.caller(source)
    if destination is Destination.CLUSTER_IP:
        local = port.internal_local
        foreign = caller is not Caller.POD
        if standpoint.detector is None:
            # The node owns the address and calls it from itself; other callers cannot be told apart.
            foreign = source.origin is Origin.NODE
        masqueraded = standpoint.settings.masquerade_all or foreign
    else:
        local, masqueraded = port.external_local, not port.external_local
        if destination is Destination.LOAD_BALANCER and not admitted(port, source.address, standpoint.node):
            return Fate(Flow(Verdict.DROP), TrafficPolicy.CLUSTER, unlisted=True)
    endpoints, deviation = _virtual_server(choice, local)
    policy = TrafficPolicy.LOCAL if local and not deviation else TrafficPolicy.CLUSTER
    if not endpoints:
        return Fate(
            Flow(Verdict.REJECT),
            TrafficPolicy.LOCAL if local else policy,
            deviation=""
            if not choice.has_any
            else "ipvs refuses where iptables is silent: no endpoint is here",
        )
    if not masqueraded and all(_answers_itself(endpoint, source, standpoint) for endpoint in endpoints):
        lost = "ipvs rewrites the source of endpoints of this node only; the caller answers itself and waits in vain"
        return Fate(Flow(Verdict.DROP), policy, deviation=lost)
    if local and not deviation and destination is not Destination.CLUSTER_IP:
        deviation = "ipvs has one list per address, so callers inside the cluster get the local one as well"
        if caller is Caller.OUTSIDE:
            deviation = ""
    if policy is not TrafficPolicy.LOCAL and local and not masqueraded and caller is Caller.OUTSIDE:
        deviation += "; their answers do not come back through here, so callers outside may wait in vain"
    return Fate(Flow(Verdict.FORWARD, endpoints, masqueraded), policy, deviation=deviation)


def _answers_itself(endpoint: Endpoint, source: Source, standpoint: Standpoint) -> bool:
    """Whether an endpoint that calls itself is none of the node's, which alone are in KUBE-LOOP-BACK."""
    return endpoint.address == source.address and endpoint.node != standpoint.node.name


def _virtual_server(choice: Choice, local: bool) -> tuple[tuple[Endpoint, ...], str]:
    """The real servers of a virtual server, and what is odd about them."""
    if not local:
        return choice.cluster, ""
    if choice.local or not choice.cluster:
        return choice.local, ""
    return choice.cluster, "ipvs falls back to the endpoints of all nodes when a Local policy finds none here"
