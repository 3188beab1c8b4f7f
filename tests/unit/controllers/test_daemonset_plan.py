"""Where daemons belong and what an update does next, as pure functions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.client_objects import daemon_set, node

from controlplane.controllers.daemonset.backoff import FailedPods
from controlplane.controllers.daemonset.placement import (
    NOWHERE,
    Placement,
    Verdict,
    node_of,
    pod_for,
    tolerations,
)
from controlplane.controllers.daemonset.plan import Pods, one_per_node, roll
from controlplane.errors import Object
from controlplane.meta.node_selection import required_matches
from controlplane.meta.objects import name

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RUN = Verdict(should_run=True, may_stay=True)
STAY = Verdict(should_run=False, may_stay=True)


def taint(key: str, effect: str) -> Object:
    return {"key": key, "effect": effect}


@pytest.mark.parametrize(
    ("spec", "node_", "expected"),
    [
        ({}, node("node1"), RUN),
        ({"nodeName": "node2"}, node("node1"), NOWHERE),
        ({"nodeSelector": {"disk": "fast"}}, node("node1"), NOWHERE),
        ({"nodeSelector": {"disk": "fast"}}, node("node1", labels={"disk": "fast"}), RUN),
        ({}, node("node1", spec={"taints": [taint("mine", "NoSchedule")]}), STAY),
        ({}, node("node1", spec={"taints": [taint("mine", "PreferNoSchedule")]}), RUN),
        ({}, node("node1", spec={"taints": [taint("mine", "NoExecute")]}), NOWHERE),
        (
            {"tolerations": [{"key": "mine", "operator": "Exists"}]},
            node("node1", spec={"taints": [taint("mine", "NoExecute")]}),
            RUN,
        ),
        (
            {},
            node(
                "node1",
                spec={
                    "unschedulable": True,
                    "taints": [taint("node.kubernetes.io/unschedulable", "NoSchedule")],
                },
            ),
            RUN,
        ),
        ({}, node("node1", spec={"taints": [taint("node.kubernetes.io/not-ready", "NoExecute")]}), RUN),
        (
            {},
            node("node1", spec={"taints": [taint("node.kubernetes.io/network-unavailable", "NoSchedule")]}),
            STAY,
        ),
        (
            {"hostNetwork": True},
            node("node1", spec={"taints": [taint("node.kubernetes.io/network-unavailable", "NoSchedule")]}),
            RUN,
        ),
    ],
)
def test_placement(spec: Object, node_: Object, expected: Verdict) -> None:
    agents = daemon_set()
    agents["spec"]["template"]["spec"].update(spec)
    assert Placement(agents).of(node_) == expected


def test_tolerations_of_the_template_stay_but_none_ends_after_a_while() -> None:
    given = [
        {"key": "mine", "operator": "Exists"},
        {
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        },
    ]
    found = tolerations({"tolerations": given})
    assert found[:2] == [
        {"key": "mine", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    ]
    assert len(found) == 7
    assert given[1]["tolerationSeconds"] == 5


def test_a_pod_is_for_one_node_and_the_templates_other_wishes_are_kept() -> None:
    agents = daemon_set()
    agents["metadata"]["uid"] = "u"
    term = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
    preferred = [{"weight": 1, "preference": term}]
    affinity = {
        "podAffinity": {"x": 1},
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        },
    }
    agents["spec"]["template"]["spec"]["affinity"] = affinity
    made = pod_for(agents, "node2", "abc")
    assert node_of(made) == "node2"
    assert required_matches(made["spec"], "node2", {})
    assert not required_matches(made["spec"], "node1", {"disk": "fast"})
    assert made["spec"]["affinity"]["podAffinity"] == {"x": 1}
    kept = made["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert kept == preferred
    assert affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [term]
    }


def pod(name_: str, hash_: str = "new", ready: bool = True, **extra: Any) -> Object:
    return {
        "metadata": {
            "name": name_,
            "uid": name_,
            "labels": {"controller-revision-hash": hash_},
            "creationTimestamp": extra.get("created", "2026-01-01T00:00:00Z"),
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if extra.get("leaving") else {}),
        },
        "spec": {"nodeName": extra["node"]} if "node" in extra else {},
        "status": {
            "phase": extra.get("phase", "Running"),
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def strategy(**numbers: Any) -> Object:
    agents = daemon_set(updateStrategy={"type": "RollingUpdate", "rollingUpdate": numbers})
    del agents["metadata"]["annotations"]
    return agents


PLAIN = strategy(maxUnavailable=1, maxSurge=0)
SURGE = strategy(maxUnavailable=0, maxSurge=1)


@pytest.mark.parametrize(
    ("agents", "verdict", "present", "created", "deleted"),
    [
        (PLAIN, RUN, [], 1, []),
        (PLAIN, RUN, [pod("a")], 0, []),
        (PLAIN, STAY, [pod("a")], 0, []),
        (PLAIN, STAY, [], 0, []),
        (PLAIN, NOWHERE, [pod("a"), pod("b", leaving=True)], 0, ["a"]),
        # The oldest bound one stays.
        (
            PLAIN,
            RUN,
            [pod("a", created="2025-01-01T00:00:00Z"), pod("b", node="n"), pod("c", node="n")],
            0,
            ["c", "a"],
        ),
        # While the old one leaves its place is taken, but by a surge.
        (PLAIN, RUN, [pod("a", leaving=True)], 0, []),
        (SURGE, RUN, [pod("a", leaving=True)], 1, []),
        (SURGE, RUN, [pod("a", "old"), pod("b", ready=False)], 0, []),
        (SURGE, RUN, [pod("a", "old"), pod("b")], 0, ["a"]),
        (SURGE, RUN, [pod("a", "old", ready=False), pod("b", ready=False)], 0, ["a"]),
        (SURGE, RUN, [pod("a", "old"), pod("b", "old"), pod("c", ready=False)], 0, ["b"]),
    ],
)
def test_one_pod_per_node(
    agents: Object, verdict: Verdict, present: list[Object], created: int, deleted: list[str]
) -> None:
    node_pods = {"node1": present} if present else {}
    steps = one_per_node(agents, {"node1": verdict}, node_pods, Pods(agents, "new", NOW))
    assert len(steps.create) == created
    assert [name(each) for each in steps.delete] == deleted


def test_failed_and_finished_pods_are_set_apart_and_waiting_ones_of_lost_nodes_deleted() -> None:
    present = {
        "node1": [pod("a", phase="Failed")],
        "node2": [pod("b", phase="Succeeded")],
        "gone": [pod("c"), pod("d", node="gone")],
    }
    verdicts = {"node1": RUN, "node2": RUN}
    steps = one_per_node(PLAIN, verdicts, present, Pods(PLAIN, "new", NOW))
    assert [(where, name(each)) for where, each in steps.failed] == [("node1", "a")]
    assert [(where, name(each)) for where, each in steps.succeeded] == [("node2", "b")]
    assert [name(each) for each in steps.delete] == ["c"]
    assert steps.create == []


@pytest.mark.parametrize(
    ("agents", "present", "created", "deleted"),
    [
        (PLAIN, [pod("a", "old"), pod("b", "old")], [], ["a"]),
        (strategy(maxUnavailable="50%", maxSurge=0), [pod("a", "old"), pod("b", "old")], [], ["a"]),
        (strategy(maxUnavailable="51%", maxSurge=0), [pod("a", "old"), pod("b", "old")], [], ["a", "b"]),
        # One is missing already.
        (PLAIN, [pod("a", "old"), pod("b", ready=False)], [], []),
        (PLAIN, [pod("a", "old"), pod("b", "old", leaving=True)], [], []),
        # An old pod that is of no use goes anyway, and counts as missing.
        (PLAIN, [pod("a", "old"), pod("b", "old", ready=False)], [], ["b"]),
        (PLAIN, [pod("a"), pod("b")], [], []),
        (SURGE, [pod("a", "old"), pod("b", "old")], ["node1"], []),
        (SURGE, [pod("a", "old", ready=False), pod("b", "old")], ["node1", "node2"], []),
        (SURGE, [[pod("a", "old"), pod("x", ready=False)], pod("b", "old")], [], []),
        (SURGE, [[pod("a", "old"), pod("x")], pod("b", "old")], ["node2"], ["a"]),
    ],
)
def test_the_next_step_of_an_update(
    agents: Object, present: list[Any], created: list[str], deleted: list[str]
) -> None:
    node_pods = {
        f"node{number}": each if isinstance(each, list) else [each]
        for number, each in enumerate(present, start=1)
    }
    steps = roll(agents, dict.fromkeys(node_pods, RUN), node_pods, Pods(agents, "new", NOW))
    assert steps.create == created
    assert [name(each) for each in steps.delete] == deleted


def test_a_surge_keeps_a_misplaced_pod_until_enough_others_serve() -> None:
    node_pods = {"node1": [pod("a", "old")], "node2": [pod("b", ready=False)]}
    verdicts = {"node1": STAY, "node2": RUN}
    assert roll(SURGE, verdicts, node_pods, Pods(SURGE, "new", NOW)).delete == []
    node_pods["node2"] = [pod("b")]
    steps = roll(SURGE, verdicts, node_pods, Pods(SURGE, "new", NOW))
    assert [name(each) for each in steps.delete] == ["a"]


def test_failed_pods_wait_longer_each_time() -> None:
    failed = FailedPods()
    key = ("uid", "node1")
    assert failed.wait(key, 0.0) == 0
    assert failed.wait(key, 0.25) == 0.75
    assert failed.wait(("uid", "node2"), 0.25) == 0
    assert failed.wait(key, 1.0) == 0
    assert failed.wait(key, 2.0) == 1.0
    failed.forget("uid")
    assert failed.wait(key, 2.0) == 0
    # Long after the last failure it starts small again.
    assert failed.wait(key, 4000.0) == 0
    assert failed.wait(key, 4000.5) == 0.5
