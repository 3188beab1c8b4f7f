"""One connection to one service port explained: what becomes of it, why, and by which rules.

`explain` puts together what its siblings find out. The command prints the value as text (`text`) or, unchanged,
as JSON. Pure: all that it needs was gathered before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from controlplane.errors import Object
from netkit.kernel.conntrack import Entry
from netkit.proxy.addresses import Address, Family
from netkit.proxy.choice import Choice, Verdict, choose
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.explain.endpoints import Candidates, EndpointFate, fates, slices_of
from netkit.proxy.explain.errors import NotExplainable
from netkit.proxy.explain.fate import Fate, fate, unruled
from netkit.proxy.explain.iptables_path import iptables_path
from netkit.proxy.explain.ipvs_path import ipvs_path
from netkit.proxy.explain.nftables_path import nftables_path
from netkit.proxy.explain.reasons import Case, Reason, reasons
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.explain.steps import Packet, Step, Subject
from netkit.proxy.explain.target import Called, Target
from netkit.proxy.explain.tracked import TrackedFlow, tracked_flows
from netkit.proxy.explain.unhandled import unhandled_address, unhandled_service
from netkit.proxy.explain.userspace_path import PROXY, userspace_path
from netkit.proxy.flows import Destination
from netkit.proxy.listing import Listing, Section
from netkit.proxy.services import ServicePort, TrafficPolicy
from netkit.proxy.settings import ProxyMode
from netkit.proxy.state import ProxyState


class Outcome(StrEnum):
    """What the caller sees of it. CLOSED: accepted, and closed at once. IGNORED: the proxy does nothing about it."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    CLOSED = "closed"
    DROPPED = "dropped"
    IGNORED = "ignored"


_OUTCOMES = {
    Verdict.FORWARD: Outcome.DELIVERED,
    Verdict.REJECT: Outcome.REFUSED,
    Verdict.DROP: Outcome.DROPPED,
}

_READERS = {
    ProxyMode.IPTABLES: iptables_path,
    ProxyMode.NFTABLES: nftables_path,
    ProxyMode.IPVS: ipvs_path,
    ProxyMode.USERSPACE: userspace_path,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything said about one connection.

    `summary` is the verdict in one line. `source_rewritten`: the endpoint sees the node's address instead of the
    caller's (a hairpin connection is rewritten whatever it says, see `reasons`). `steps` are the rules the packet
    meets in order, `other_rules` those that serve the port besides. `missing` counts the steps that the kernel lacks:
    with some of them missing nobody can tell, and the connection does not count as delivered. `tracked` are UDP flows
    that never meet the rules again.
    """

    outcome: Outcome
    summary: str
    service: str
    port: str
    protocol: str
    family: Family
    node: str
    mode: str
    origin: Origin
    source: str
    source_name: str
    destination: Destination
    address: str
    number: int
    source_rewritten: bool
    reasons: tuple[Reason, ...] = ()
    endpoints: tuple[EndpointFate, ...] = ()
    steps: tuple[Step, ...] = ()
    other_rules: tuple[Section, ...] = ()
    missing: int = 0
    tracked: tuple[TrackedFlow, ...] = ()

    @property
    def delivered(self) -> bool:
        return self.outcome is Outcome.DELIVERED and not self.missing


@dataclass(frozen=True, slots=True)
class Matter:
    """A question and all that was gathered to answer it.

    `state` has collected Services and slices as the proxy sees them; `slices` are those of the Service, whoever's
    they are. `sections` is what the mode says serves the port (`Backend.serving`), `standing` what the kernel has
    (None: nobody looked), `entries` the node's UDP entries of connection tracking, for a UDP port.
    """

    target: Target
    called: Called
    source: Source
    standpoint: Standpoint
    state: ProxyState
    slices: Sequence[Object]
    sections: Sequence[Section] = ()
    standing: Listing | None = None
    entries: Sequence[Entry] = ()

    @property
    def address(self) -> Address:
        """The called address; for a NodePort the node's own if the question named none."""
        found = self.called.address or self.standpoint.primary
        if found is None:
            family, node = self.standpoint.family, self.standpoint.node.name
            raise NotExplainable(f"node {node} has no {family} address to answer NodePorts on")
        return found


def explain(matter: Matter) -> Explanation:
    """The answer. Raises NotExplainable when a NodePort has no address to be called at."""
    port = matter.state.port(matter.target.name)
    if port is None:
        return _unhandled(matter)
    because = unhandled_address(
        port, matter.called, matter.address, matter.source, matter.standpoint, matter.state.ports()
    )
    if because:
        return _ignored(matter, because)
    merged = matter.state.endpoints(port.name)
    choice = choose(port, merged, matter.standpoint.node)
    found = fate(port, merged, choice, matter.called.destination, matter.source, matter.standpoint)
    if no_rule := unruled(found, matter.called.destination, matter.address, matter.source, matter.standpoint):
        return _ignored(matter, no_rule)
    case = Case(port, merged, choice, matter.called.destination, matter.source, matter.standpoint, found)
    endpoints = fates(
        _candidates(matter, port, merged, choice, found), slices_of(matter.target.service, matter.slices)
    )
    steps = _steps(matter, port, endpoints)
    given = tuple(reasons(case))
    missing = sum(not step.standing for step in steps)
    return _explanation(
        matter,
        _outcome(found),
        _summary(found, matter.source.address, given) + _lack(missing, matter.standpoint.node.name),
        rewritten=found.flow.masqueraded,
        reasons=given,
        endpoints=endpoints,
        steps=steps,
        other_rules=_others(matter.sections, steps),
        missing=missing,
        tracked=tracked_flows(matter.entries, matter.state, port.name) if matter.entries else (),
    )


def _candidates(
    matter: Matter, port: ServicePort, merged: tuple[Endpoint, ...], choice: Choice, found: Fate
) -> Candidates:
    used = found.flow.endpoints
    if not used and found.unlisted:
        used = choice.under(found.policy)
    spec = matter.target.service["spec"]
    return Candidates(
        port=port.name,
        family=matter.standpoint.family,
        node=matter.standpoint.node,
        merged=merged,
        used=used,
        local=found.policy is TrafficPolicy.LOCAL,
        dual_stack=len(spec.get("clusterIPs") or ()) > 1,
        shares=_share(matter.standpoint, len(used)),
    )


def _share(standpoint: Standpoint, count: int) -> str:
    scheduler = standpoint.settings.ipvs.scheduler
    if count > 1 and standpoint.mode is ProxyMode.IPVS and scheduler not in ("rr", "wrr"):
        return f"by {scheduler}"
    return f"1/{count}" if count > 1 else "all"


def _steps(matter: Matter, port: ServicePort, endpoints: Sequence[EndpointFate]) -> tuple[Step, ...]:
    standpoint = matter.standpoint
    packet = _packet(matter, port)
    subject = Subject(port, standpoint.node.name, _pods(endpoints))
    steps = _READERS[standpoint.mode](matter.sections, packet, subject)
    return tuple(replace(step, standing=_stands(step, matter.standing)) for step in steps)


def _packet(matter: Matter, port: ServicePort) -> Packet:
    """The first packet. IPVS needs the service's addresses on the node, which then calls them from themselves."""
    standpoint, source, address = matter.standpoint, matter.source, matter.address
    owned = standpoint.mode is ProxyMode.IPVS and matter.called.destination is not Destination.NODE_PORT
    interface = standpoint.interface(source)
    return Packet(
        source=address
        if owned and not interface and source.address == standpoint.primary
        else source.address,
        destination=address,
        port=matter.called.port,
        protocol=port.protocol,
        interface=interface,
        from_node=standpoint.is_local_address(source.address),
        for_node=owned or standpoint.is_local_address(address),
        bridged=source.bridged,
    )


def _stands(step: Step, standing: Listing | None) -> bool:
    if standing is None or step.section.startswith(PROXY):
        return True
    section = standing.get(step.section)
    return section is not None and (not step.entry or step.entry in section.entries)


def _pods(endpoints: Sequence[EndpointFate]) -> Mapping[str, str]:
    return {
        item.target: f"pod {item.pod} on {item.node}" if item.node else f"pod {item.pod}"
        for item in endpoints
        if item.pod
    }


def _others(sections: Sequence[Section], steps: Sequence[Step]) -> tuple[Section, ...]:
    """The sections without what the packet meets."""
    met = {(step.section, step.entry) for step in steps}
    left = (
        Section(
            section.name,
            tuple(entry for entry in section.entries if (section.name, entry) not in met),
            section.note,
            section.ordered,
        )
        for section in sections
    )
    return tuple(section for section in left if section.entries)


def _summary(found: Fate, source: Address, given: Sequence[Reason]) -> str:
    count, flow = len(found.flow.endpoints), found.flow
    if flow.verdict is Verdict.FORWARD:
        where = f"to one of {count} endpoints" if count > 1 else f"to {flow.endpoints[0].target}"
        itself = all(endpoint.address == source for endpoint in flow.endpoints)
        kept = "rewritten" if flow.masqueraded else "rewritten (it calls itself)" if itself else "kept"
        return f"delivered {where}, source {kept}"
    because = next(reason.because for reason in given if reason.about == "verdict")
    return f"{_outcome(found)}: {because}"


def _outcome(found: Fate) -> Outcome:
    return Outcome.CLOSED if found.closed else _OUTCOMES[found.flow.verdict]


def _lack(missing: int, node: str) -> str:
    if not missing:
        return ""
    rules = "1 rule on the way is" if missing == 1 else f"{missing} rules on the way are"
    return f", but {rules} missing from the kernel of {node}"


def _unhandled(matter: Matter) -> Explanation:
    """The proxy does not know the Service; but nftables looks after all addresses that Services could have."""
    because = unhandled_service(matter.target.service, matter.standpoint.family)
    if matter.called.address is None or not matter.standpoint.drops_unused(matter.called.address):
        return _ignored(matter, because)
    because += "; nftables drops what is for a cluster IP that no Service has"
    summary = f"dropped: not handled by the proxy: {because}"
    return _explanation(matter, Outcome.DROPPED, summary, reasons=(Reason("verdict", "dropped", because),))


def _ignored(matter: Matter, because: str) -> Explanation:
    reason = Reason("verdict", "ignored", because)
    summary = f"not handled by the proxy: {because}"
    return _explanation(matter, Outcome.IGNORED, summary, reasons=(reason,))


def _explanation(
    matter: Matter,
    outcome: Outcome,
    summary: str,
    *,
    rewritten: bool = False,
    reasons: tuple[Reason, ...] = (),
    endpoints: tuple[EndpointFate, ...] = (),
    steps: tuple[Step, ...] = (),
    other_rules: tuple[Section, ...] = (),
    missing: int = 0,
    tracked: tuple[TrackedFlow, ...] = (),
) -> Explanation:
    name, standpoint = matter.target.name, matter.standpoint
    address = matter.called.address
    if address is None and matter.called.destination is Destination.NODE_PORT:
        address = standpoint.primary
    return Explanation(
        outcome=outcome,
        summary=f"{name}: {summary}",
        service=f"{name.namespace}/{name.name}",
        port=name.port,
        protocol=name.protocol,
        family=standpoint.family,
        node=standpoint.node.name,
        mode=standpoint.mode_text,
        origin=matter.source.origin,
        source=str(matter.source.address),
        source_name=matter.source.name,
        destination=matter.called.destination,
        address=str(address or ""),
        number=matter.called.port,
        source_rewritten=rewritten,
        reasons=reasons,
        endpoints=endpoints,
        steps=steps,
        other_rules=other_rules,
        missing=missing,
        tracked=tracked,
    )
