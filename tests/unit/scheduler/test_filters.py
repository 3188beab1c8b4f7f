"""Filters and scores as pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from support.client_objects import node, pod

from controlplane.errors import Object
from controlplane.meta.labels import NOTHING, LabelSelector
from controlplane.scheduler.filters import feasible_nodes
from controlplane.scheduler.requests import pod_requests
from controlplane.scheduler.scheduler import explain
from controlplane.scheduler.scores import Question, ranked
from controlplane.scheduler.snapshot import NodeInfo, PodInfo


def info(name: str, *pods: Object, **extra: Any) -> NodeInfo:
    result = NodeInfo(name)
    result.set_object(node(name, **extra))
    for number, each in enumerate(pods):
        placed = PodInfo(each)
        placed.uid = f"{name}-{number}"
        result.add(placed)
    return result


def asking(**requests: str) -> list[Object]:
    return [{"name": "c", "image": "x", "resources": {"requests": requests}}]


def fits(one: Object, *nodes: NodeInfo) -> list[str]:
    return [each.name for each in feasible_nodes(PodInfo(one), nodes)[0]]


def reasons(one: Object, node_: NodeInfo) -> tuple[str, ...]:
    _, rejected = feasible_nodes(PodInfo(one), [node_])
    return rejected[node_.name].reasons


def test_resources() -> None:
    busy = info("busy", pod("a", containers=asking(cpu="3500m", memory="7Gi")))
    assert fits(pod("p", containers=asking(cpu="500m")), busy) == ["busy"]
    assert reasons(pod("p", containers=asking(cpu="501m")), busy) == ("Insufficient cpu",)
    assert reasons(pod("p", containers=asking(cpu="1", memory="2Gi")), busy) == (
        "Insufficient cpu",
        "Insufficient memory",
    )
    assert reasons(pod("p", containers=asking(**{"example.com/gpu": "1"})), busy) == (
        "Insufficient example.com/gpu",
    )
    full = info("full", *(pod(f"p{i}") for i in range(2)), allocatable={"pods": "2"})
    assert reasons(pod("p"), full) == ("Too many pods",)


def test_requests_of_init_containers_and_sidecars() -> None:
    one = pod(
        "p",
        containers=asking(cpu="100m"),
        initContainers=[
            {**asking(cpu="50m")[0], "restartPolicy": "Always"},
            asking(cpu="500m")[0],
        ],
        overhead={"cpu": "10m"},
    )
    # The ordinary init container runs beside the sidecar: 550m, more than the 150m of the running pod.
    assert pod_requests(one) == {"cpu": 560}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, "node(s) didn't match Pod's node affinity/selector"),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                                {
                                    "matchFields": [
                                        {"key": "metadata.name", "operator": "In", "values": ["other"]}
                                    ]
                                },
                            ]
                        }
                    }
                }
            },
            "node(s) didn't match Pod's node affinity/selector",
        ),
    ],
)
def test_node_affinity(spec: dict[str, Any], reason: str) -> None:
    plain, ssd = info("plain"), info("ssd", labels={"disk": "ssd"})
    assert fits(pod("p", **spec), plain, ssd) == ["ssd"]
    assert reasons(pod("p", **spec), plain) == (reason,)


def test_taints_and_cordon() -> None:
    tainted = info("tainted", spec={"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]})
    assert reasons(pod("p"), tainted) == ("node(s) had untolerated taint {dedicated: db}",)
    equal = [{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}]
    assert fits(pod("p", tolerations=equal), tainted) == ["tainted"]
    assert fits(pod("p", tolerations=[{"operator": "Exists"}]), tainted) == ["tainted"]
    wrong = [{"key": "dedicated", "value": "web"}]
    assert fits(pod("p", tolerations=wrong), tainted) == []
    cordoned = info("cordoned", spec={"unschedulable": True})
    assert reasons(pod("p"), cordoned) == ("node(s) were unschedulable",)


def test_host_ports() -> None:
    def with_port(name: str, **port: Any) -> Object:
        return pod(name, containers=[{"name": "c", "ports": [{"containerPort": 80, **port}]}])

    used = info("used", with_port("a", hostPort=8080, hostIP="10.0.0.1"))
    assert reasons(with_port("p", hostPort=8080), used) == (
        "node(s) didn't have free ports for the requested pod ports",
    )
    assert fits(with_port("p", hostPort=8080, hostIP="10.0.0.2"), used) == ["used"]
    assert fits(with_port("p", hostPort=8080, protocol="UDP"), used) == ["used"]


def spread(key: str, skew: int = 1, when: str = "DoNotSchedule") -> list[Object]:
    selector = {"matchLabels": {"app": "web"}}
    return [{"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when, "labelSelector": selector}]


def test_hard_spreading() -> None:
    web = {"app": "web"}
    a = info("a", pod("1", web), pod("2", web), labels={"zone": "east"})
    b = info("b", pod("3", web), labels={"zone": "west"})
    c = info("c", labels={"zone": "west"})
    lost = info("lost")
    one = pod("p", web, topologySpreadConstraints=spread("zone"))
    feasible, rejected = feasible_nodes(PodInfo(one), [a, b, c, lost])
    assert [each.name for each in feasible] == ["b", "c"]
    text = "node(s) didn't match pod topology spread constraints"
    assert rejected["a"].reasons == (text,)
    assert rejected["a"].resolvable
    assert rejected["lost"].reasons == (f"{text} (missing required label)",)


def test_pod_affinity_in_both_directions() -> None:
    def anti(selector: dict[str, str]) -> dict[str, Any]:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}}
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}

    web = {"app": "web"}
    taken, free = info("taken", pod("1", web)), info("free")
    assert fits(pod("p", web, affinity=anti(web)), taken, free) == ["free"]
    guarded = info("guarded", pod("1", {"app": "db"}, affinity=anti(web)))
    assert reasons(pod("p", web), guarded) == ("node(s) didn't satisfy existing pods anti-affinity rules",)
    near = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": anti(web)["podAntiAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]
        }
    }
    assert fits(pod("p", affinity=near), taken, free) == ["taken"]
    assert fits(pod("p", affinity=near), free) == []
    assert fits(pod("p", web, affinity=near), free) == ["free"], "the first of its group may go anywhere"


def test_explanation_is_upstreams() -> None:
    full = info("full", pod("a", containers=asking(cpu="4")))
    taints = [{"key": "key", "value": "value", "effect": "NoSchedule"}]
    nodes = [full, info("t1", spec={"taints": taints}), info("t2", spec={"taints": taints})]
    _, rejected = feasible_nodes(PodInfo(pod("p", containers=asking(cpu="1"))), nodes)
    assert explain(3, rejected) == (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {key: value}. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def best(one: Object, *nodes: NodeInfo, group: LabelSelector = NOTHING) -> set[str]:
    scored = ranked(Question(PodInfo(one), nodes, group), nodes)
    top = max(total for total, _ in scored)
    return {each.name for total, each in scored if total == top}


def test_scores_prefer_empty_nodes_siblings_apart_and_what_the_pod_prefers() -> None:
    busy, idle = info("busy", pod("a", containers=asking(cpu="2"))), info("idle")
    assert best(pod("p"), busy, idle) == {"idle"}
    web = {"app": "web"}
    with_web = info("with", pod("a", web))
    with_other = info("other", pod("b", {"app": "db"}))
    group = LabelSelector.from_map(web)
    assert best(pod("p", web), with_web, with_other, group=group) == {"other"}
    soft = spread("kubernetes.io/hostname", when="ScheduleAnyway")
    assert best(pod("p", web, topologySpreadConstraints=soft), with_web, with_other) == {"other"}
    preferred = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 50,
                    "preference": {
                        "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]
                    },
                }
            ]
        }
    }
    assert best(pod("p", affinity=preferred), info("hdd"), info("ssd", labels={"disk": "ssd"})) == {"ssd"}
    avoid = info("avoid", spec={"taints": [{"key": "k", "effect": "PreferNoSchedule"}]})
    assert best(pod("p"), avoid, info("plain")) == {"plain"}
