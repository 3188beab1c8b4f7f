"""Which container starts when: restart policies, init containers, sidecars, back-off."""

from __future__ import annotations

from typing import Any

import pytest

from netkit.node.lifecycle.backoff import BackOff
from netkit.node.lifecycle.plan import Actions, compute
from netkit.node.lifecycle.records import Record, Views, from_status, lost

NOW = 1000.0


def spec(*names: str, policy: str = "Always", init: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "restartPolicy": policy,
        "containers": [{"name": name} for name in names],
        "initContainers": init or [],
    }


def views(**states: Any) -> Views:
    """name="running" | exit code."""
    result = Views()
    for name, state in states.items():
        view = result.of(name)
        running = state == "running"
        view.take(
            Record("id-" + name, name, 0, running, exit_code=0 if running else state, finished_at=NOW - 5)
        )
        view.started = running
    return result


def plan(pod: dict[str, Any], known: Views, due: float = 0.0) -> Actions:
    return compute(pod, known, lambda name, record: due, NOW)


def test_a_new_pod_starts_all_containers() -> None:
    assert plan(spec("a", "b"), Views()).start == ("a", "b")
    assert plan(spec("a", "b"), views(a="running")).start == ("b",)
    assert plan(spec("a"), views(a="running")) == Actions()


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("Always", 0, Actions(start=("a",))),
        ("Always", 1, Actions(start=("a",))),
        ("OnFailure", 0, Actions(done=True)),
        ("OnFailure", 1, Actions(start=("a",))),
        ("Never", 0, Actions(done=True)),
        ("Never", 1, Actions(done=True)),
    ],
)
def test_restart_policies(policy: str, code: int, expected: Actions) -> None:
    assert plan(spec("a", policy=policy), views(a=code)) == expected


def test_one_ended_container_of_two_does_not_end_the_pod() -> None:
    assert plan(spec("a", "b", policy="Never"), views(a=0, b="running")) == Actions()


def test_back_off_delays_the_restart() -> None:
    assert plan(spec("a"), views(a=1), due=NOW + 3).backing_off == (("a", NOW + 3),)
    waiting = Views()
    waiting.of("a").retry_at = NOW + 7
    assert plan(spec("a"), waiting).backing_off == (("a", NOW + 7),)


INIT = [{"name": "one"}, {"name": "side", "restartPolicy": "Always"}, {"name": "two"}]


def test_init_containers_run_one_after_the_other() -> None:
    pod = spec("app", init=INIT)
    assert plan(pod, Views()).start == ("one",)
    assert plan(pod, views(one="running")) == Actions()
    assert plan(pod, views(one=0)).start == ("side",)
    unstarted = views(one=0, side="running")
    unstarted.of("side").started = False
    assert plan(pod, unstarted) == Actions()
    assert plan(pod, views(one=0, side="running")).start == ("two",)
    assert plan(pod, views(one=0, side="running", two=0)).start == ("app",)
    assert plan(pod, views(one=0, side=1, two=0)).start == ("side",)
    assert plan(pod, views(one=0, side=0, two=0, app="running")).start == ("side",)


@pytest.mark.parametrize(("policy", "done"), [("Never", True), ("OnFailure", False), ("Always", False)])
def test_failed_init_container(policy: str, done: bool) -> None:
    actions = plan(spec("app", policy=policy, init=[{"name": "one"}]), views(one=1))
    assert actions.done is done
    assert actions.start == (() if done else ("one",))


def test_back_off_doubles_to_five_minutes_and_is_forgotten() -> None:
    backoff = BackOff()
    at = 0.0
    assert backoff.until("a", at) == at
    delays = []
    for _ in range(7):
        backoff.next("a", at, at)
        delays.append(backoff.delay("a"))
        at += 1
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.until("a", at) == at + 300
    assert backoff.until("a", at + 601) == at + 601
    backoff.next("a", at + 601, at + 601)
    assert backoff.delay("a") == 10


def test_news_of_an_exit_may_overtake_the_start() -> None:
    known = views(a=3)
    known.of("a").take(Record("id-a", "a", 0, True))
    assert known.of("a").exited is not None


def test_a_newer_attempt_keeps_the_one_before() -> None:
    known = views(a=3)
    known.of("a").take(Record("id2", "a", 1, True))
    view = known.of("a")
    assert view.running
    assert view.previous is not None
    assert view.previous.exit_code == 3
    assert view.restart_count == 1


def test_status_of_a_forgotten_container_becomes_lost() -> None:
    status = {
        "name": "a", "restartCount": 2, "containerID": "netkit://abc", "imageID": "x",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z", "containerID": "netkit://old"}},
    }  # fmt: skip
    old, current = from_status(status, NOW)
    assert (old.id, old.attempt, old.exit_code) == ("old", 1, 1)
    assert (current.id, current.attempt, current.running, current.exit_code) == ("abc", 2, False, 137)


def test_lost_keeps_identity() -> None:
    record = Record("id", "a", 4, True, started_at=5.0)
    ended = lost(record, NOW)
    assert (ended.id, ended.attempt, ended.started_at, ended.finished_at) == ("id", 4, 5.0, NOW)


def test_ephemeral_containers_start_once_whatever_else_the_pod_does() -> None:
    ephemeral = {"ephemeralContainers": [{"name": "d"}, {"name": "e"}]}
    pod = spec("a") | ephemeral
    assert plan(pod, views(a="running")).start == ("d", "e")
    assert plan(pod, views(a="running", d="running")).start == ("e",)
    assert plan(pod, views(a="running", d=1, e=0)) == Actions()
    waiting = spec("a", init=[{"name": "i"}]) | ephemeral
    assert plan(waiting, views(i="running")).start == ("d", "e")
    # A pod that has ended takes no more of them.
    assert plan(spec("a", policy="Never") | ephemeral, views(a=0)) == Actions(done=True)
