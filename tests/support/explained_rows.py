"""Whether what is explained is what the table of packet-flow rows expects, row for row."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from rows.format import Address, Expectation, Outcome, Place, Row
from rows.reader import read_table
from rows.suite import TABLE as PATH
from rows.varieties import Variety
from support.proxy import feed

from netkit.proxy.addresses import Family, host_port
from netkit.proxy.agent import node_facts, service_cidrs
from netkit.proxy.choice import NodeView
from netkit.proxy.explain.errors import NotExplainable
from netkit.proxy.explain.explanation import Explanation, Matter, explain
from netkit.proxy.explain.explanation import Outcome as Explained
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.explain.target import find
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

TABLE = read_table(PATH)
NODES = {node.name: node for node in TABLE.plan.nodes}
PODS = {pod.name: pod for pod in TABLE.plan.pods}
OUTCOMES = {
    Explained.DELIVERED: Outcome.ENDPOINTS,
    Explained.REFUSED: Outcome.REJECT,
    Explained.CLOSED: Outcome.CLOSED,
    Explained.DROPPED: Outcome.DROP,
    Explained.IGNORED: Outcome.NONE,
}


def explained_as_expected(rows: Sequence[Row], mode: ProxyMode) -> None:
    """Asks for each target of the rows and compares with what they expect in the mode."""
    wrong, asked = [], 0
    for row in rows:
        expected = row.expected[mode.value]
        if expected.skip or TABLE.clusters[row.cluster].closed:
            # Rules of others, such as those of a closed firewall, are no part of an explanation.
            continue
        for number in range(len(row.targets)):
            try:
                found = explanation(row, number, mode)
            except NotExplainable:
                # No Service has the address or port; what becomes of such packets is no question about a Service.
                continue
            asked += 1
            if why := difference(found, expected):
                wrong.append(f"{row.title}: {why}")
    assert asked > len(rows) / 2
    assert wrong == []


def difference(found: Explanation, expected: Expectation) -> str:
    """What an explanation says otherwise than a row; empty if they agree."""
    if OUTCOMES[found.outcome] is not expected.outcome:
        return f"{found.summary}, not {expected.outcome}"
    if not found.delivered:
        return ""
    eligible = {item.target for item in found.endpoints if item.eligible}
    if eligible != expected.endpoints:
        return f"{sorted(eligible)}, not {sorted(expected.endpoints)}"
    if expected.masqueraded not in (None, found.source_rewritten):
        return f"source rewritten: {found.source_rewritten}"
    return ""


def explanation(row: Row, number: int, mode: ProxyMode) -> Explanation:
    cluster, called = TABLE.clusters[row.cluster], row.targets[number]
    services, nodes = cluster.of_kind("Service"), list(cluster.nodes.values())
    state = state_of(row.cluster, row.family)
    targets = [
        target
        for target in find(host_port(called.address, called.port), "default", services, nodes)
        if target.name.protocol is row.protocol
    ]
    if not targets:
        raise NotExplainable("no such protocol")
    target = next(
        (item for item in targets if (item.name.namespace, item.name.name) == row.service), targets[0]
    )
    assert target.called is not None
    standpoint = standpoint_of(row, mode)
    return explain(
        Matter(target, target.called, source_of(row), standpoint, state, cluster.of_kind("EndpointSlice"))
    )


@functools.cache
def state_of(name: str, family: Family) -> ProxyState:
    cluster = TABLE.clusters[name]
    state = ProxyState(family)
    feed(state, *cluster.of_kind("Service"), *cluster.of_kind("EndpointSlice"))
    state.collect()
    return state


@functools.cache
def settings_of(text: str, mode: ProxyMode, cluster: str, node: str) -> ProxySettings:
    return Variety("", mode).settings(text, TABLE.clusters[cluster], node)


def standpoint_of(row: Row, mode: ProxyMode) -> Standpoint:
    facts = node_facts(TABLE.clusters[row.cluster].nodes[row.node])
    settings = settings_of(row.settings, mode, row.cluster, row.node)
    view = NodeView(row.node, facts.zone, settings.node_addresses([str(item) for item in facts.addresses]))
    plan = NODES[row.node]
    ranges = service_cidrs(TABLE.clusters[row.cluster].of_kind("ServiceCIDR"))
    return Standpoint(view, row.family, settings, (*plan.addresses, *plan.owned), facts.pod_cidrs, ranges)


def source_of(row: Row) -> Source:
    """Who calls; another node is somebody outside for the node that is looked at."""
    origin, here = row.origin, row.node
    if origin.place is Place.POD:
        pod = PODS[origin.machine]
        bridge = "cni0" if here in TABLE.clusters[row.cluster].bridges and pod.node == here else ""
        address = origin.source or of_family(row, pod.addresses)
        return Source(Origin.POD, address, pod.name, pod.node, bridge, bool(bridge))
    if origin.place is Place.NODE:
        address = origin.source or of_family(row, NODES[origin.machine].addresses)
        return Source(Origin.NODE if origin.machine == here else Origin.OUTSIDE, address, origin.machine)
    return Source(Origin.OUTSIDE, origin.source or of_family(row, TABLE.plan.outside))


def of_family(row: Row, addresses: tuple[Address, ...]) -> Address:
    return next(item for item in addresses if item.version == row.family.version)
