"""Which endpoints a node uses, as in upstream's `TestCategorizeEndpoints` (pkg/proxy/topology_test.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from support.proxy import Object, endpoint, service, slice_of, state_of

from netkit.proxy.choice import NodeView, choose

HERE, ELSEWHERE = "node-1", "node-9"
INSIDE, EXPOSED = 0, 8080
"""Without and with a node port."""


def pod(number: int, *zones: str, at: str = ELSEWHERE, nodes: Sequence[str] = ()) -> Object:
    return endpoint(f"10.1.2.{number}", at, serving=True, zones=zones, nodes=nodes)


def unready(number: int, *zones: str, at: str = ELSEWHERE) -> Object:
    return endpoint(f"10.1.2.{number}", at, ready=False, serving=False, zones=zones)


def leaving(number: int, at: str = ELSEWHERE) -> Object:
    return endpoint(f"10.1.2.{number}", at, ready=False, serving=True, terminating=True)


@dataclass(frozen=True)
class Case:
    """Endpoints by their last numbers. A list that no policy asks for is None; `elsewhere`: there are others."""

    pods: Sequence[Object]
    cluster: set[int] | None
    local: set[int] | None = None
    zone: str = "zone-a"
    node: str = HERE
    internal: str = "Cluster"
    external: str = "Cluster"
    node_port: int = INSIDE
    elsewhere: bool = False


FOUR = (pod(3, "zone-a"), pod(4, "zone-b"), pod(5, "zone-c"), pod(6, "zone-a"))
HALF_HERE = (pod(3, "zone-a", at=HERE), pod(4, "zone-b", at=HERE), pod(5, "zone-c"), pod(6, "zone-a"))
NODE_HINTS = (
    pod(3, "zone-a", nodes=["node-1"]),
    pod(4, "zone-b", nodes=["node-2"]),
    pod(5, "zone-c", nodes=["node-3"]),
    pod(6, "zone-a", nodes=["node-4"]),
)
TWO_HERE, ONE_HERE, NONE_HERE = (
    (pod(0, at=HERE), pod(1, at=HERE)),
    (pod(0, at=HERE), pod(1)),
    (pod(0), pod(1)),
)

CASES = {
    "hints of zones": Case(FOUR, {3, 6}),
    "external Local: the local list has no hints": Case(
        HALF_HERE, {3, 6}, {3, 4}, external="Local", node_port=EXPOSED
    ),
    "internal Local: the local list has no hints": Case(
        HALF_HERE, {3, 6}, {3, 4}, internal="Local", node_port=EXPOSED
    ),
    "node without zone": Case([pod(3, "zone-a")], {3}, zone=""),
    "node in another zone": Case([pod(3, "zone-a")], {3}, zone="zone-b"),
    "one not ready": Case([*FOUR[:3], unready(6, "zone-a")], {3}),
    "none ready in the zone": Case([unready(3, "zone-a"), *FOUR[1:3], unready(6, "zone-a")], {4, 5}),
    "one without hints": Case([*FOUR[:2], pod(5), FOUR[3]], {3, 4, 5, 6}),
    "several zones": Case(
        [
            pod(3, "zone-a", "zone-b", "zone-c"),
            pod(4, "zone-b", "zone-c"),
            pod(5, "zone-b", "zone-d"),
            pod(6, "zone-c"),
        ],
        {3, 4, 6},
        zone="zone-c",
    ),
    "hints of nodes": Case(NODE_HINTS, {3}),
    "hints of nodes, one without": Case([NODE_HINTS[0], pod(4), *NODE_HINTS[2:]], {3, 4, 5, 6}),
    "hints of nodes, none for this one": Case(NODE_HINTS, {3, 6}, node="node-0"),
    "both lists, different": Case(
        [pod(0, "zone-a", at=HERE), pod(1, "zone-b", at=HERE), pod(2, "zone-a"), pod(3, "zone-b")],
        {0, 2},
        {0, 1},
        external="Local",
        node_port=EXPOSED,
    ),
    "internal Local, no endpoint": Case([], None, set(), internal="Local"),
    "internal Local, none here": Case(NONE_HERE, None, set(), internal="Local", elsewhere=True),
    "internal Local, all here": Case(TWO_HERE, None, {0, 1}, internal="Local"),
    "internal Local, one here": Case(ONE_HERE, None, {0}, internal="Local"),
    "Cluster, none ready": Case([unready(0), unready(1)], set()),
    "Cluster, one ready": Case([unready(0), pod(1)], {1}),
    "Cluster, all leaving": Case([leaving(0, HERE), leaving(1)], {0, 1}),
    "internal Local, exposed": Case(ONE_HERE, {0, 1}, {0}, internal="Local", node_port=EXPOSED),
    "external Local": Case(ONE_HERE, {0, 1}, {0}, external="Local", node_port=EXPOSED),
    "both Local": Case(ONE_HERE, {0, 1}, {0}, internal="Local", external="Local", node_port=EXPOSED),
    "both Local, none here": Case(
        NONE_HERE, {0, 1}, set(), internal="Local", external="Local", node_port=EXPOSED
    ),
    "both Local, all leaving elsewhere": Case(
        [leaving(0), leaving(1)], {0, 1}, set(), internal="Local", external="Local", node_port=EXPOSED
    ),
    "external Local, some leaving": Case(
        [pod(0), unready(1, at=HERE), leaving(2, HERE), leaving(3)],
        {0},
        {2},
        external="Local",
        node_port=EXPOSED,
    ),
    "external Local, not exposed": Case([pod(0), pod(1, at=HERE)], {0, 1}, external="Local"),
    "internal Local, not exposed": Case([pod(0), pod(1, at=HERE)], None, {1}, internal="Local"),
    "external Local, no endpoint": Case([], set(), set(), external="Local", node_port=EXPOSED),
    "external Local, none here": Case(NONE_HERE, {0, 1}, set(), external="Local", node_port=EXPOSED),
    "external Local, all here": Case(TWO_HERE, {0, 1}, {0, 1}, external="Local", node_port=EXPOSED),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_lists(case: Case) -> None:
    port = {"name": "p80", "port": 80, **({"nodePort": case.node_port} if case.node_port else {})}
    policies = {"internalTrafficPolicy": case.internal, "externalTrafficPolicy": case.external}
    kind = "NodePort" if case.node_port else "ClusterIP"
    made = service("ns1/svc1", "10.96.0.1", [port], type=kind, **policies)
    pods = [dict(item, nodeName=case.node) if item["nodeName"] == HERE else item for item in case.pods]
    state = state_of(made, slice_of("ns1/svc1", *pods))
    (found,) = state.ports()
    choice = choose(found, state.endpoints(found.name), NodeView(case.node, case.zone))
    assert found.uses_cluster_list == (case.cluster is not None)
    assert found.uses_local_list == (case.local is not None)
    cluster, local = case.cluster or set(), case.local or set()
    assert {int(item.address) & 0xFF for item in choice.cluster} == cluster
    assert {int(item.address) & 0xFF for item in choice.local} == local
    assert {int(item.address) & 0xFF for item in choice.reachable} == cluster | local
    assert len(choice.reachable) == len(cluster | local)
    assert choice.has_any == bool(cluster | local or case.elsewhere)
