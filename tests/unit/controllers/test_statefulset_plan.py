"""What is done next to a StatefulSet's pods, as a pure function.

A pod is written `number state revision`; states: r(eady), p(ending), u(nready), t(erminating), f(ailed), s(ucceeded).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.client_objects import stateful_set

from controlplane.controllers.statefulset.claims import new_claims, owners
from controlplane.controllers.statefulset.history import Revisions
from controlplane.controllers.statefulset.identity import corrected, is_member, new_pod, ordinal
from controlplane.controllers.statefulset.plan import Plan, Planner
from controlplane.controllers.statefulset.status import status_of
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name
from controlplane.meta.revisions import template_patch

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CLAIM = {"metadata": {"name": "www"}, "spec": {}}
PHASES = {"r": "Running", "u": "Running", "t": "Running", "p": "Pending", "f": "Failed", "s": "Succeeded"}


def the_set(**spec: Any) -> Object:
    result = stateful_set(**spec)
    result["metadata"].update(uid="set", generation=1)
    return result


def revisions(subject: Object) -> Revisions:
    def one(revision: str, image: str) -> Object:
        data = template_patch({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}})
        return {"metadata": {"name": revision}, "data": data}

    return Revisions(one("old", "nginx:1"), one("new", "nginx:2"), 0)


def pods(subject: Object, text: str) -> list[Object]:
    result = []
    for word in text.split():
        number, state, revision = word.split(":")
        pod = new_pod(subject, {"spec": {}}, int(number), revision)
        pod["metadata"]["uid"] = f"pod{number}"
        if state == "t":
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        since = {"lastTransitionTime": "2026-01-01T23:59:55Z"}
        ready = {"type": "Ready", "status": str(state in "rt"), **since}
        pod["status"] = {"phase": PHASES[state], "conditions": [ready]}
        result.append(pod)
    return result


def plan_for(subject: Object, present: str, claims: dict[str, Object] | None = None) -> Plan:
    found = claims if claims is not None else {}
    return Planner(subject, revisions(subject), pods(subject, present), found.get, NOW).plan()


def steps(plan: Plan) -> str:
    """`create 0:new, delete 2` and so on."""
    return ", ".join(
        f"{step.action} {ordinal(step.pod)}"
        + (f":{labels(step.pod)['controller-revision-hash']}" if step.action == "create" else "")
        for step in plan.steps
    )


def rolling(partition: int) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}


@pytest.mark.parametrize(
    ("spec", "present", "expected"),
    [
        ({}, "", "create 0:new"),
        ({}, "0:p:new", ""),
        ({}, "0:r:new", "create 1:new"),
        ({}, "0:r:new 2:r:new", "create 1:new"),
        ({}, "0:u:new 1:r:new 2:r:new", ""),
        ({}, "0:t:new", ""),
        ({}, "0:f:new 1:r:new", "delete 0"),
        ({}, "0:s:new", "delete 0"),
        ({"minReadySeconds": 4}, "0:r:new", "create 1:new"),
        ({"minReadySeconds": 6}, "0:r:new", ""),
        # Beyond the wanted ones: highest first, one at a time, all others healthy.
        ({"replicas": 1}, "0:r:new 1:r:new 2:r:new", "delete 2"),
        ({"replicas": 1}, "0:u:new 1:r:new 2:r:new", ""),
        ({"replicas": 1}, "0:r:new 1:r:new 2:t:new", ""),
        ({"replicas": 1}, "0:r:new 1:u:new 2:r:new", "delete 2"),
        ({"replicas": 1}, "0:r:new 1:u:new 2:u:new", ""),
        ({"replicas": 1}, "0:r:new 1:r:new 2:u:new", "delete 2"),
        ({"replicas": 1, "ordinals": {"start": 2}}, "0:r:new 1:r:new 2:r:new", "delete 1"),
        # Updates.
        ({}, "0:r:old 1:r:old 2:r:old", "delete 2"),
        ({}, "0:r:old 1:r:old 2:t:old", ""),
        ({}, "0:r:old 1:r:old 2:r:new", "delete 1"),
        ({}, "0:r:old 1:r:old 2:u:new", ""),
        ({"updateStrategy": rolling(2)}, "0:r:old 1:r:old 2:r:old", "delete 2"),
        ({"updateStrategy": rolling(2)}, "0:r:old 1:r:old 2:r:new", ""),
        ({"updateStrategy": rolling(9)}, "0:r:old 1:r:old 2:r:old", ""),
        ({"updateStrategy": rolling(2)}, "0:r:old", "create 1:old"),
        ({"updateStrategy": rolling(2)}, "0:r:old 1:r:old", "create 2:new"),
        ({"updateStrategy": {"type": "OnDelete"}}, "0:r:old 1:r:old 2:r:old", ""),
        ({"updateStrategy": {"type": "OnDelete"}}, "0:r:old 1:r:old", "create 2:new"),
        ({"replicas": 2}, "0:r:old 1:r:old 2:r:old", "delete 2"),
        # All at once.
        ({"podManagementPolicy": "Parallel"}, "", "create 0:new, create 1:new, create 2:new"),
        ({"podManagementPolicy": "Parallel"}, "0:u:new 1:f:new", "delete 1, create 2:new"),
        ({"podManagementPolicy": "Parallel", "replicas": 0}, "0:u:new 1:r:new 2:t:new", "delete 1, delete 0"),
        ({"podManagementPolicy": "Parallel"}, "0:r:old 1:r:old 2:r:old", "delete 2"),
        ({"podManagementPolicy": "Parallel"}, "0:r:old 1:r:old 2:u:new", ""),
    ],
)
def test_the_next_steps(spec: Object, present: str, expected: str) -> None:
    assert steps(plan_for(the_set(**spec), present)) == expected


def test_nothing_is_done_for_a_set_that_is_being_deleted() -> None:
    subject = the_set()
    subject["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert steps(plan_for(subject, "0:r:new")) == ""


def test_without_a_partition_a_new_pod_is_as_old_as_those_not_updated_yet() -> None:
    subject = the_set(updateStrategy={"type": "RollingUpdate"})
    subject["status"] = {"currentReplicas": 2}
    assert steps(plan_for(subject, "0:r:old")) == "create 1:old"


def test_pods_come_from_their_revisions_template() -> None:
    made = plan_for(the_set(updateStrategy=rolling(1)), "").steps[0].pod
    assert made["spec"]["containers"] == [{"image": "nginx:1"}]
    assert "$patch" not in made["spec"]


def test_wrong_labels_and_volumes_are_corrected() -> None:
    subject = the_set(replicas=1, volumeClaimTemplates=[CLAIM])
    [pod] = pods(subject, "0:r:new")
    assert corrected(subject, pod) == pod
    pod["metadata"]["labels"].pop("statefulset.kubernetes.io/pod-name")
    other = {"name": "tmp", "emptyDir": {}}
    pod["spec"]["volumes"] = [{"name": "www", "emptyDir": {}}, other]
    assert steps_of(subject, pod) == ["update"]
    mended = corrected(subject, pod)
    assert labels(mended)["statefulset.kubernetes.io/pod-name"] == "web-0"
    claimed = {"name": "www", "persistentVolumeClaim": {"claimName": "www-web-0"}}
    assert mended["spec"]["volumes"] == [claimed, other]


def steps_of(subject: Object, pod: Object) -> list[str]:
    claim = new_claims(subject, 0)[0]
    planner = Planner(subject, revisions(subject), [pod], {"www-web-0": claim}.get, NOW)
    return [step.action for step in planner.plan().steps]


def test_a_waiting_pod_gets_its_missing_claims() -> None:
    subject = the_set(volumeClaimTemplates=[CLAIM])
    assert steps(plan_for(subject, "0:p:new")) == "claims 0"
    assert steps(plan_for(subject, "0:p:new", {"www-web-0": new_claims(subject, 0)[0]})) == ""


POD = {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "pod0"}
SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set"}
BINDING = {"controller": True, "blockOwnerDeletion": True}
STRANGER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}


@pytest.mark.parametrize(
    ("deleted", "scaled", "condemned", "present", "expected"),
    [
        ("Retain", "Retain", False, [], []),
        ("Retain", "Retain", True, [{**SET, **BINDING}, STRANGER], [STRANGER]),
        ("Delete", "Retain", False, [], [{**SET, **BINDING}]),
        ("Delete", "Retain", True, [], [{**SET, **BINDING}]),
        ("Retain", "Delete", False, [{**POD, **BINDING}], []),
        ("Retain", "Delete", True, [], [{**POD, **BINDING}]),
        ("Delete", "Delete", False, [], [{**SET, **BINDING}]),
        ("Delete", "Delete", True, [{**SET, **BINDING}], [{**POD, **BINDING}]),
        # A former set or pod of the same name is not the present one.
        ("Delete", "Retain", False, [{**SET, "uid": "former", **BINDING}], [{**SET, **BINDING}]),
        ("Delete", "Delete", False, [{**STRANGER, "controller": True}], [{**STRANGER, "controller": True}]),
    ],
)
def test_who_owns_a_claim(
    deleted: str, scaled: str, condemned: bool, present: list[Object], expected: list[Object]
) -> None:
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    subject = the_set(persistentVolumeClaimRetentionPolicy=policy, volumeClaimTemplates=[CLAIM])
    [pod] = pods(subject, "0:r:new")
    claim = {"metadata": {"name": "www-web-0", "ownerReferences": present}}
    assert owners(subject, pod, claim, condemned=condemned) == expected


@pytest.mark.parametrize(
    ("pod", "member", "number"),
    [
        ("web-0", True, 0),
        ("web-12", True, 12),
        ("web-a-1", False, 1),
        ("web", False, -1),
        ("web-", False, -1),
        ("web-99999999999", True, -1),
    ],
)
def test_names_and_numbers(pod: str, member: bool, number: int) -> None:
    obj = {"metadata": {"name": pod}}
    assert (is_member(the_set(), obj), ordinal(obj)) == (member, number)


@pytest.mark.parametrize(
    ("spec", "present", "expected"),
    [
        ({}, "", "replicas 0, currentRevision old"),
        (
            {"replicas": 2},
            "0:r:old 1:p:new",
            "replicas 2, availableReplicas 1, readyReplicas 1, currentReplicas 1, updatedReplicas 1, "
            "currentRevision old",
        ),
        # The pod that the plan takes for the update does not count as current any more.
        (
            {"replicas": 2},
            "0:r:old 1:r:old",
            "replicas 2, availableReplicas 2, readyReplicas 2, currentReplicas 1, currentRevision old",
        ),
        (
            {"replicas": 1},
            "0:r:new",
            "replicas 1, availableReplicas 1, readyReplicas 1, currentReplicas 1, updatedReplicas 1, "
            "currentRevision new",
        ),
        (
            {"replicas": 1},
            "0:r:new 1:r:new",
            "replicas 2, availableReplicas 2, readyReplicas 2, updatedReplicas 2, currentRevision old",
        ),
        (
            {"replicas": 1, "updateStrategy": {"type": "OnDelete"}},
            "0:r:new",
            "replicas 1, availableReplicas 1, readyReplicas 1, updatedReplicas 1, currentRevision old",
        ),
        (
            {"replicas": 1, "minReadySeconds": 60},
            "0:t:new",
            "replicas 1, readyReplicas 1, currentRevision old",
        ),
    ],
)
def test_status(spec: Object, present: str, expected: str) -> None:
    subject = the_set(**spec)
    found = status_of(subject, revisions(subject), plan_for(subject, present), NOW)
    assert (found.pop("updateRevision"), found.pop("observedGeneration")) == ("new", 1)
    assert found.pop("collisionCount") == 0
    if not found["availableReplicas"]:
        del found["availableReplicas"]
    assert ", ".join(f"{key} {value}" for key, value in found.items()) == expected


def test_new_claims_carry_the_selectors_labels() -> None:
    template = {"metadata": {"name": "www", "labels": {"tier": "db"}, "annotations": {"a": "b"}}, "spec": {}}
    [claim] = new_claims(the_set(volumeClaimTemplates=[template]), 4)
    assert name(claim) == "www-web-4"
    assert labels(claim) == {"tier": "db", "app": "web"}
    assert dig(claim, "metadata", "annotations") == {"a": "b"}
