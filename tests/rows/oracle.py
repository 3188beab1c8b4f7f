"""Rows against `explain.fate`, on which explanations of connections rest. Pure: no kernel, no packets.

It is asked for iptables, of connections that its node translates: calls of other addresses, or of node ports
where they do not answer, are none.
"""

from __future__ import annotations

from netkit.proxy.agent import node_facts
from netkit.proxy.choice import NodeView, Verdict, choose
from netkit.proxy.explain.fate import fate, unruled
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.flows import Destination, Flow
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import NftablesLayout, ProxyMode
from rows.configuration import settings_for
from rows.format import Address, Cluster, Expectation, Outcome, Place, PodPlan, Row, Table
from rows.runner import state_of

MODE = ProxyMode.IPTABLES
_ORIGINS = {Place.OUTSIDE: Origin.OUTSIDE, Place.NODE: Origin.NODE, Place.POD: Origin.POD}
_EXTERNAL = {Destination.EXTERNAL_IP, Destination.LOAD_BALANCER}
_OUTCOMES = {Verdict.REJECT: Outcome.REJECT, Verdict.DROP: Outcome.DROP}


def says(table: Table, row: Row) -> list[Expectation] | None:
    """What must come out of each target by the model; None where it has nothing to say."""
    cluster = table.clusters[row.cluster]
    kinds = {target.kind for target in row.targets}
    if cluster.closed or row.service is None or None in kinds:
        return None
    if row.expected[MODE.value].outcome is Outcome.NONE and not kinds <= _EXTERNAL:
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
    source = Source(_ORIGINS[row.origin.place], _source(table, row), interface=_interface(cluster, row))
    plan = next(plan for plan in table.plan.nodes if plan.name == row.node)
    local = (*plan.addresses, *plan.owned)
    standpoint = Standpoint(node, row.family, settings, local, facts.pod_cidrs)
    merged = state.endpoints(name)
    choice = choose(port, merged, node)
    expectations = []
    for target in row.targets:
        assert target.kind is not None
        found = fate(port, merged, choice, target.kind, source, standpoint)
        left_alone = unruled(found, target.kind, target.address, source, standpoint)
        expectations.append(Expectation(Outcome.NONE) if left_alone else _expectation(found.flow))
    return expectations


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


def _interface(cluster: Cluster, row: Row) -> str:
    """The interface by which the row's connections come into the node that translates; "" for its own."""
    if row.origin.place is Place.NODE and row.origin.machine == row.node:
        return ""
    here = row.origin.place is Place.POD and (
        row.origin.machine == f"pod on {row.node}"
        or (row.origin.machine in cluster.pods and cluster.pods[row.origin.machine].node == row.node)
    )
    return "eth0" if not here else "cni0" if row.node in cluster.bridges else "veth0"
