"""The why of each choice in one sentence: verdict, policy, hints, source ranges, affinity, source address.

Words for what `fate` and `choice` decided; decides nothing itself. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netkit.proxy.choice import Choice, Topology, Verdict
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.explain.endpoints import hints_answer
from netkit.proxy.explain.fate import Fate
from netkit.proxy.explain.standpoint import Source, Standpoint, detector_text
from netkit.proxy.flows import Caller, Destination, node_admitted
from netkit.proxy.services import ServicePort, TrafficPolicy
from netkit.proxy.settings import ProxyMode


@dataclass(frozen=True, slots=True)
class Reason:
    """One choice: what it was `about`, the `answer`, and `because` of what."""

    about: str
    answer: str
    because: str


@dataclass(frozen=True, slots=True)
class Case:
    """Everything the reasons of one connection are made of."""

    port: ServicePort
    merged: tuple[Endpoint, ...]
    choice: Choice
    destination: Destination
    source: Source
    standpoint: Standpoint
    fate: Fate

    @property
    def node(self) -> str:
        return self.standpoint.node.name

    @property
    def caller(self) -> Caller:
        return self.standpoint.caller(self.source)

    @property
    def internal(self) -> bool:
        return self.destination is Destination.CLUSTER_IP


def reasons(case: Case) -> Iterator[Reason]:
    """All that had a say, in the order in which it is asked."""
    if case.standpoint.mode is not ProxyMode.USERSPACE:
        yield from _choosing(case)
    yield _verdict(case)
    if case.fate.flow.verdict is Verdict.FORWARD:
        if case.port.affinity_seconds is not None:
            yield _affinity(case)
        yield _source(case)
        if (hairpin := _hairpin(case)) is not None:
            yield hairpin
        yield _answers(case)
    if case.fate.deviation:
        yield Reason("mode", case.standpoint.mode, case.fate.deviation)


def _choosing(case: Case) -> Iterator[Reason]:
    """What decides over the list of endpoints."""
    yield _caller(case)
    if case.port.source_ranges:
        yield _source_ranges(case)
    if not case.fate.unlisted:
        yield _policy(case)
        if case.fate.policy is TrafficPolicy.CLUSTER:
            yield _hints(case)


def _caller(case: Case) -> Reason:
    how = detector_text(case.standpoint.detector)
    match case.caller:
        case Caller.POD:
            return Reason("caller", "pod of the cluster", how)
        case Caller.NODE:
            return Reason("caller", "the node itself", f"{case.source.address} is an address of {case.node}")
        case Caller.OUTSIDE:
            return Reason("caller", "outside", how)


def _source_ranges(case: Case) -> Reason:
    listed = ", ".join(str(network) for network in case.port.source_ranges)
    about, source = "source ranges", case.source.address
    if case.destination is not Destination.LOAD_BALANCER:
        return Reason(about, "not asked", "loadBalancerSourceRanges guard load balancer addresses only")
    if case.fate.unlisted:
        return Reason(about, "dropped", f"{source} is in none of {listed}")
    for network in case.port.source_ranges:
        if source in network:
            return Reason(about, "passed", f"{source} is in {network}")
    if node_admitted(case.port, case.standpoint.node) and source in case.port.load_balancer_ips:
        because = (
            f"{case.node} is in a range, and nodes that own the balancer's address {source} call with it"
        )
        return Reason(about, "passed", because)
    return Reason(
        about,
        "passed over",
        f"{source} is in none of {listed}, but without endpoints iptables refuses everybody",
    )


def _policy(case: Case) -> Reason:
    if case.internal:
        field, value = "internalTrafficPolicy", case.port.internal_policy
    else:
        field, value = "externalTrafficPolicy", case.port.external_policy
    about, here = f"{field} {value}", case.node
    if value is TrafficPolicy.CLUSTER or not (case.internal or case.port.external_local):
        return Reason(about, "all nodes", "endpoints of every node may be chosen")
    if case.fate.short_circuit:
        who = "a pod" if case.caller is Caller.POD else "the node itself"
        because = f"{who} calls: it is served as if a balancer had chosen another node (short circuit)"
        return Reason(about, "all nodes", because)
    if case.fate.policy is TrafficPolicy.CLUSTER:
        return Reason(about, "all nodes", f"{here} has no endpoint of its own")
    return Reason(about, "this node", f"only endpoints on {here} may be chosen")


def _hints(case: Case) -> Reason:
    found = hints_answer(case.merged, case.standpoint.node)
    answer = {Topology.NODE: "by node", Topology.ZONE: "by zone", Topology.CLUSTER: "not used"}
    return Reason("topology hints", answer[found.applied], found.because)


def _verdict(case: Case) -> Reason:
    fate, choice = case.fate, case.choice
    match fate.flow.verdict:
        case _ if case.standpoint.mode is ProxyMode.USERSPACE and fate.flow.verdict is not Verdict.FORWARD:
            return _no_turn(case)
        case Verdict.REJECT:
            if choice.has_any:
                return Reason("verdict", "refused", f"no endpoint is on {case.node}")
            many = (
                f"none of its {len(case.merged)} endpoints is" if len(case.merged) > 1 else "no endpoint is"
            )
            return Reason(
                "verdict", "refused", f"{many} ready anywhere: an ICMP error says so (connection refused)"
            )
        case Verdict.DROP if fate.unlisted:
            return Reason("verdict", "dropped", "the source ranges do not list the caller: it waits in vain")
        case Verdict.DROP if case.standpoint.mode is ProxyMode.IPVS:
            return Reason(
                "verdict", "dropped", "the only endpoint is the caller itself, which answers itself in vain"
            )
        case Verdict.DROP:
            usable = len([endpoint for endpoint in case.merged if endpoint.usable])
            count = "1 endpoint is" if usable == 1 else f"{usable} endpoints are"
            because = (
                f"{count} on other nodes, none on {case.node}: silence, so that a balancer tries another node"
            )
            return Reason("verdict", "dropped", because)
        case Verdict.FORWARD:
            return Reason("verdict", "delivered", _delivered(case))


def _no_turn(case: Case) -> Reason:
    """Nobody is ready, and the packets have come to the proxy process all the same."""
    if case.fate.closed:
        because = "no endpoint is ready: the proxy process accepts the connection, finds nobody to call, and closes it"
        return Reason("verdict", "closed", because)
    return Reason(
        "verdict", "dropped", "no endpoint is ready: the proxy process takes the datagram and drops it"
    )


def _delivered(case: Case) -> str:
    used = case.fate.flow.endpoints
    if not any(endpoint.ready for endpoint in used):
        scope = f" on {case.node}" if case.fate.policy is TrafficPolicy.LOCAL else ""
        return f"nothing is ready{scope}; endpoints that shut down but still answer stand in"
    if len(used) == 1:
        return f"{used[0].target} is the only one"
    return _sharing(case)


def _sharing(case: Case) -> str:
    count = len(case.fate.flow.endpoints)
    match case.standpoint.mode:
        case ProxyMode.IPVS:
            return f"one of {count}, by the scheduler {case.standpoint.settings.ipvs.scheduler}"
        case ProxyMode.USERSPACE:
            return f"one of {count} in turn"
        case _:
            return f"one of {count} by chance, for each connection anew"


def _affinity(case: Case) -> Reason:
    seconds = case.port.affinity_seconds
    shared = (
        "one memory per address"
        if case.standpoint.mode is ProxyMode.IPVS
        else "one memory for all its addresses"
    )
    because = (
        f"a client keeps its endpoint until it has not called for {seconds} s; {shared}, kept by {case.node}"
    )
    return Reason("sessionAffinity", "ClientIP", because)


def _source(case: Case) -> Reason:
    """Whether the endpoint sees the caller or the node, and why."""
    rewritten = case.fate.flow.masqueraded
    answer = "rewritten" if rewritten else "kept"
    return Reason("source address", answer, _why_rewritten(case) if rewritten else _why_kept(case))


def _why_rewritten(case: Case) -> str:
    if case.standpoint.mode is ProxyMode.USERSPACE:
        return "the proxy process calls the endpoint itself"
    if case.internal:
        if case.standpoint.settings.masquerade_all:
            return "masqueradeAll is on"
        if case.standpoint.detector is None:
            return "the node has the address it calls, so it calls from it, and the endpoint could not answer"
        return f"the caller is no pod of the cluster, so answers must come back through {case.node}"
    if case.fate.short_circuit:
        return "the node calls one of its external addresses; the endpoint must answer to an address it can reach"
    return f"externalTrafficPolicy is Cluster: endpoints may be elsewhere, answers must come back through {case.node}"


def _why_kept(case: Case) -> str:
    if case.internal:
        if case.standpoint.detector is None:
            return (
                "pods cannot be told from others (no detector), so calls of cluster IPs are never rewritten"
            )
        return "a pod calls, and endpoints can answer pods"
    if case.caller is Caller.POD:
        return "externalTrafficPolicy is Local, and endpoints can answer pods"
    return "externalTrafficPolicy is Local: endpoints see their clients"


def _answers(case: Case) -> Reason:
    """The way back."""
    match case.standpoint.mode:
        case ProxyMode.USERSPACE:
            because = "the proxy process passes them on"
        case _:
            because = "connection tracking remembers the translation and undoes it; rules are not asked again"
    return Reason("answers", f"through {case.node}", because)


def _hairpin(case: Case) -> Reason | None:
    """An endpoint that calls itself would answer itself past the translation."""
    if case.fate.flow.masqueraded or case.caller is not Caller.POD:
        return None
    itself = next((item for item in case.fate.flow.endpoints if item.address == case.source.address), None)
    if itself is None:
        return None
    if case.standpoint.mode is ProxyMode.IPVS and itself.node != case.node:
        because = (
            f"ipvs rewrites endpoints of {case.node} only; if {itself.target} is chosen, it answers in vain"
        )
        return Reason("hairpin", "kept", because)
    return Reason(
        "hairpin",
        "rewritten",
        f"if {itself.target}, the caller itself, is chosen; it would answer itself otherwise",
    )
