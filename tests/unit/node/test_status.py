"""Pod status from container records, in kubelet's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netkit.node.lifecycle.records import Record, Views
from netkit.node.lifecycle.status import PodFacts, changes, pod_status

FACTS = PodFacts("172.18.0.2", ("10.244.1.5",), "2026-01-01T00:00:00Z", True, "2026-01-01T00:00:09Z")


def pod(*names: str, policy: str = "Always", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {
            "restartPolicy": policy,
            "containers": [{"name": name, "image": f"{name}:1"} for name in names],
            **more,
        },
    }


def running(*names: str, ready: bool = True) -> Views:
    views = Views()
    for name in names:
        view = views.of(name)
        view.take(
            Record(f"id-{name}", name, 0, True, image_id="netkit://program", started_at=1_700_000_000.0)
        )
        view.started, view.ready = True, ready
    return views


def ended(views: Views, name: str, code: int) -> Views:
    record = Record(
        f"id-{name}", name, 0, False, started_at=1_700_000_000.0, finished_at=1_700_000_001.0, exit_code=code,
        reason="" if code else "Completed",
    )  # fmt: skip
    views.of(name).take(record)
    return views


def condition(status: dict[str, Any], type_: str) -> tuple[str, str, str]:
    found = next(c for c in status["conditions"] if c["type"] == type_)
    return found["status"], found.get("reason", ""), found.get("message", "")


def test_a_running_ready_pod() -> None:
    status = pod_status(pod("a"), running("a"), FACTS)
    assert status["phase"] == "Running"
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [
        ("PodReadyToStartContainers", "True"), ("Initialized", "True"), ("Ready", "True"), ("ContainersReady", "True"),
        ("PodScheduled", "True"),
    ]  # fmt: skip
    assert status["containerStatuses"] == [
        {
            "name": "a", "state": {"running": {"startedAt": "2023-11-14T22:13:20Z"}}, "lastState": {}, "ready": True,
            "restartCount": 0, "image": "a:1", "imageID": "netkit://program", "started": True,
            "containerID": "netkit://id-a",
        }
    ]  # fmt: skip
    assert (status["podIP"], status["podIPs"]) == ("10.244.1.5", [{"ip": "10.244.1.5"}])
    assert (status["hostIP"], status["hostIPs"]) == ("172.18.0.2", [{"ip": "172.18.0.2"}])


def test_a_pod_that_is_being_made() -> None:
    facts = replace(FACTS, addresses=(), sandbox_ready=False)
    status = pod_status(pod("a", "b"), Views(), facts)
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(status, "Ready") == (
        "False", "ContainersNotReady", "containers with unready status: [a b]",
    )  # fmt: skip
    assert "podIP" not in status


def test_waiting_for_init_containers() -> None:
    status = pod_status(pod("a", initContainers=[{"name": "i", "image": "i"}]), running("i"), FACTS)
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(status, "Initialized") == (
        "False", "ContainersNotInitialized", "containers with incomplete status: [i]",
    )  # fmt: skip
    done = pod_status(pod("a", initContainers=[{"name": "i"}]), ended(running("a"), "i", 0), FACTS)
    assert condition(done, "Initialized")[0] == "True"
    assert done["initContainerStatuses"][0]["ready"]


def test_crash_loop_shows_the_last_end() -> None:
    views = ended(Views(), "a", 3)
    views.of("a").waiting = ("CrashLoopBackOff", "back-off 10s ...")
    status = pod_status(pod("a"), views, FACTS)
    found = status["containerStatuses"][0]
    assert found["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s ..."}}
    assert found["lastState"]["terminated"]["exitCode"] == 3
    assert status["phase"] == "Running"


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
        ("Always", (0, 0), "Running"),
    ],
)
def test_phase_when_all_have_ended(policy: str, codes: tuple[int, int], phase: str) -> None:
    views = ended(ended(Views(), "a", codes[0]), "b", codes[1])
    assert pod_status(pod("a", "b", policy=policy), views, FACTS)["phase"] == phase


def test_a_pod_taken_away_ends_in_a_final_phase() -> None:
    facts = replace(FACTS, finished=True)
    assert pod_status(pod("a"), ended(Views(), "a", 0), facts)["phase"] == "Succeeded"
    assert pod_status(pod("a"), ended(Views(), "a", 137), facts)["phase"] == "Failed"
    assert pod_status(pod("a"), Views(), facts)["phase"] == "Failed"


def test_a_final_phase_stays() -> None:
    before = pod("a") | {"status": {"phase": "Succeeded"}}
    assert pod_status(before, running("a"), FACTS)["phase"] == "Succeeded"


def test_readiness_gates() -> None:
    gated = pod("a", readinessGates=[{"conditionType": "example.com/gate"}])
    assert condition(pod_status(gated, running("a"), FACTS), "Ready") == (
        "False", "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "example.com/gate" does not exist.',
    )  # fmt: skip
    foreign = {"type": "example.com/gate", "status": "True"}
    status = pod_status(gated | {"status": {"conditions": [foreign]}}, running("a"), FACTS)
    assert condition(status, "Ready")[0] == "True"
    assert status["conditions"][-1] == foreign


def test_transition_time_moves_only_with_the_status() -> None:
    first = pod_status(pod("a"), running("a", ready=False), FACTS)
    later = replace(FACTS, now="2026-01-01T00:01:00Z")
    second = pod_status(pod("a") | {"status": first}, running("a"), later)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Ready"] == "2026-01-01T00:01:00Z"
    assert times["Initialized"] == FACTS.now


def test_an_unchanged_status_writes_nothing() -> None:
    first = pod_status(pod("a"), running("a"), FACTS)
    later = replace(FACTS, now="2026-01-01T00:01:00Z")
    second = pod_status(pod("a") | {"status": first}, running("a"), later)
    assert changes(first, second) == {}
    assert set(changes(first, pod_status(pod("a") | {"status": first}, running("a", ready=False), later))) == {
        "conditions", "containerStatuses",
    }  # fmt: skip


def test_ephemeral_containers_have_statuses_of_their_own() -> None:
    debugged = pod("a", ephemeralContainers=[{"name": "d", "image": "busybox"}, {"name": "e", "image": "x"}])
    status = pod_status(debugged, ended(running("a"), "d", 3), FACTS)
    first, second = status["ephemeralContainerStatuses"]
    assert first["state"]["terminated"]["exitCode"] == 3
    assert first["ready"] is False
    assert "started" not in first
    assert second["state"] == {"waiting": {"reason": "ContainerCreating"}}
    # The pod is none the worse for them.
    assert status["phase"] == "Running"
    assert condition(status, "Ready")[0] == "True"
    assert "ephemeralContainerStatuses" not in pod_status(pod("a"), running("a"), FACTS)
