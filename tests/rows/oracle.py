"""Rows against `flows.answer`, on which explanations of connections rest. Pure: no kernel, no packets.

It speaks for iptables and nftables, of connections that its node translates: calls of other addresses, or of node ports
where they do not answer, are none.
"""

from __future__ import annotations

from netkit.proxy.agent import node_facts
from netkit.proxy.choice import NodeView, Verdict, choose
from netkit.proxy.detector import SourceDetector
from netkit.proxy.flows import Caller, Destination, Flow, FlowSettings, answer
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import NftablesLayout, ProxyMode
from rows.configuration import settings_for
from rows.format import Address, Cluster, Expectation, Outcome, Place, PodPlan, Row, Table
from rows.runner import state_of

MODE = ProxyMode.IPTABLES
_OUTCOMES = {Verdict.REJECT: Outcome.REJECT, Verdict.DROP: Outcome.DROP}


def says(table: Table, row: Row) -> list[Expectation] | None:
    """What must come out of each target by the model; None where it has nothing to say."""
    cluster = table.clusters[row.cluster]
    if cluster.closed or row.service is None or row.expected[MODE.value].outcome is Outcome.NONE:
        return None
    if any(target.kind is None for target in row.targets):
        return None
    state = state_of(cluster, row.family)
    state.collect()
    name = ServicePortName(*row.service, row.service_port, row.protocol)
    port = state.port(name)
    if port is None:
        return None
    facts = node_facts(cluster.nodes[row.node])
    settings = settings_for(row.settings, MODE, NftablesLayout.KUBE_PROXY, facts.addresses)
    node = NodeView(row.node, facts.zone, settings.node_addresses([str(item) for item in facts.addresses]))
    detector = settings.detector(row.family, facts.pod_cidrs)
    source = _source(table, row)
    caller = _caller(cluster, row, detector, source)
    choice = choose(port, state.endpoints(name), node)
    flow_settings = FlowSettings(settings.masquerade_all, detector is not None)
    return [
        _expectation(answer(port, choice, target.kind, caller, source, node, flow_settings))
        for target in row.targets
        if isinstance(target.kind, Destination)
    ]


def _expectation(flow: Flow) -> Expectation:
    if flow.verdict is not Verdict.FORWARD:
        return Expectation(_OUTCOMES[flow.verdict])
    endpoints = frozenset(endpoint.target for endpoint in flow.endpoints)
    return Expectation(Outcome.ENDPOINTS, endpoints, flow.masqueraded)


def _source(table: Table, row: Row) -> Address:
    """The address a row's connections come from."""
    version = row.family.version
    if row.origin.source is not None:
        return row.origin.source
    match row.origin.place:
        case Place.OUTSIDE:
            addresses = table.plan.outside
        case Place.NODE:
            addresses = next(node for node in table.plan.nodes if node.name == row.origin.machine).addresses
        case Place.POD:
            addresses = _pod(table, row).addresses
    return next(address for address in addresses if address.version == version)


def _pod(table: Table, row: Row) -> PodPlan:
    return next(pod for pod in table.plan.pods if pod.name == row.origin.machine)


def _caller(cluster: Cluster, row: Row, detector: object, source: Address) -> Caller:
    """What the node that translates takes the caller for."""
    if row.origin.place is Place.NODE and row.origin.machine == row.node:
        return Caller.NODE
    if isinstance(detector, SourceDetector):
        return Caller.POD if detector.is_local(source, "") else Caller.OUTSIDE
    if detector is None or row.origin.place is not Place.POD:
        return Caller.OUTSIDE
    here = row.origin.machine == f"pod on {row.node}" or (
        row.origin.machine in cluster.pods and cluster.pods[row.origin.machine].node == row.node
    )
    interface = "eth0" if not here else "cni0" if row.node in cluster.bridges else "veth0"
    local = detector.is_local(source, interface)  # type: ignore[attr-defined]
    return Caller.POD if local else Caller.OUTSIDE
