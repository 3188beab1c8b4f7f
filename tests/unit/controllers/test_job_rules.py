"""The Job controller's pure parts: policies, back-off, which pods go, which indexes are missing, counting once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.controllers.job.backoff import Failures, remaining_of_index
from controlplane.controllers.job.counting import count, pending_indexes
from controlplane.controllers.job.pods import finished_at, for_removal, new_pod
from controlplane.controllers.job.policies import Match, index_annotations, match_failure, match_success
from controlplane.controllers.job.tracking import is_settled, plan, settle
from controlplane.errors import Object
from controlplane.meta.objects import name, uid
from controlplane.meta.timestamps import format_time
from controlplane.resources.batch import words
from controlplane.resources.catalog import JOB

START = datetime(2026, 1, 1, tzinfo=UTC)


def job(**spec: Any) -> Object:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
    made: Object = {
        "metadata": {"name": "work", "namespace": "default", "uid": "job"},
        "spec": {"template": template, **spec},
        "status": {},
    }
    JOB.default(made)
    return made


def pod(
    number: int, phase: str = "Running", index: int | None = None, *, tracked: bool = True, **extra: Any
) -> Object:
    metadata: Object = {
        "name": f"p{number}", "namespace": "default", "uid": f"uid{number}", "annotations": {},
        "creationTimestamp": format_time(START + timedelta(seconds=number)),
    }  # fmt: skip
    if index is not None:
        metadata["annotations"][words.COMPLETION_INDEX] = str(index)
    if tracked:
        metadata["finalizers"] = [words.TRACKING_FINALIZER]
    if extra.pop("leaving", False):
        metadata["deletionTimestamp"] = format_time(START)
    metadata["annotations"].update(extra.pop("annotations", {}))
    return {
        "metadata": metadata,
        "spec": extra.pop("spec", {"nodeName": "n"}),
        "status": {"phase": phase, **extra},
    }


def ended(code: int, container: str = "c") -> list[Object]:
    return [
        {"name": container, "state": {"terminated": {"exitCode": code, "finishedAt": format_time(START)}}}
    ]


def rule(action: str, **what: Any) -> Object:
    return {"action": action, **what}


IN_42 = {"operator": "In", "values": [42]}
NOT_42 = {"operator": "NotIn", "values": [42]}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("rules", "status", "match"),
    [
        ([rule("Ignore", onExitCodes=IN_42)], {"containerStatuses": ended(42)}, Match(counts=False)),
        ([rule("Ignore", onExitCodes=IN_42)], {"containerStatuses": ended(1)}, Match()),
        ([rule("Ignore", onExitCodes=NOT_42)], {"containerStatuses": ended(1)}, Match(counts=False)),
        # Containers that ended well match no rule.
        ([rule("Ignore", onExitCodes=NOT_42)], {"containerStatuses": ended(0)}, Match()),
        (
            [rule("Ignore", onExitCodes={**IN_42, "containerName": "d"})],
            {"containerStatuses": ended(42)},
            Match(),
        ),
        (
            [rule("FailIndex", onExitCodes=IN_42)],
            {"initContainerStatuses": ended(42)},
            Match(fails_index=True),
        ),
        (
            [rule("Count", onExitCodes=IN_42), rule("Ignore", onPodConditions=DISRUPTED)],
            {"containerStatuses": ended(42), "conditions": DISRUPTED},
            Match(),
        ),
        (
            [rule("Ignore", onExitCodes=IN_42), rule("FailJob", onPodConditions=DISRUPTED)],
            {"conditions": DISRUPTED},
            Match(message="Pod default/p1 has condition DisruptionTarget matching FailJob rule at index 1"),
        ),
    ],
)
def test_the_first_rule_that_matches(rules: list[Object], status: Object, match: Match) -> None:
    assert match_failure({"rules": rules}, pod(1, "Failed", **status)) == match


@pytest.mark.parametrize(
    ("rules", "succeeded", "message"),
    [
        ([{"succeededCount": 2}], {0}, ""),
        ([{"succeededCount": 2}], {0, 4}, "Matched rules at index 0"),
        ([{"succeededIndexes": "0-1"}], {0, 4}, ""),
        ([{"succeededIndexes": "0-1"}], {0, 1}, "Matched rules at index 0"),
        (
            [{"succeededIndexes": "5"}, {"succeededIndexes": "0-3", "succeededCount": 1}],
            {2},
            "Matched rules at index 1",
        ),
    ],
)
def test_success_policies(rules: list[Object], succeeded: set[int], message: str) -> None:
    assert match_success({"rules": rules}, 6, succeeded) == message


def test_the_wait_doubles_and_a_success_ends_it() -> None:
    def failed_at(seconds: int) -> Object:
        end = format_time(START + timedelta(seconds=seconds))
        return pod(seconds, "Failed", containerStatuses=[
            {"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": end}}}])  # fmt: skip

    waits = []
    failures = Failures()
    for number in range(1, 9):
        failures = failures.with_finished([], [failed_at(number)])
        waits.append(failures.remaining(START + timedelta(seconds=number)))
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    assert failures.remaining(START + timedelta(seconds=608)) == 0
    after = failures.with_finished([failed_at(20)], [failed_at(19), failed_at(21)])
    assert after.count == 1
    assert failures.with_finished([failed_at(30)], []).remaining(START) == 0


def test_an_index_waits_for_itself() -> None:
    last = pod(1, "Failed", 0, annotations={words.INDEX_FAILURE_COUNT: "1", words.INDEX_IGNORED_FAILURE_COUNT: "1"},
               containerStatuses=ended(1))  # fmt: skip
    assert remaining_of_index(last, START) == 40
    assert remaining_of_index(None, START) == 0
    ignored = {"rules": [rule("Ignore", onExitCodes=NOT_42)]}
    assert index_annotations(job(), last)[words.INDEX_FAILURE_COUNT] == "2"
    assert index_annotations(job(podFailurePolicy=ignored), last) == {
        words.INDEX_FAILURE_COUNT: "1", words.INDEX_IGNORED_FAILURE_COUNT: "2",
    }  # fmt: skip


def test_when_a_pod_ended() -> None:
    assert finished_at(pod(5, "Failed", containerStatuses=ended(1))) == START
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"}
    assert finished_at(pod(5, "Failed", conditions=[ready])) == START + timedelta(seconds=9)
    assert finished_at(pod(5, "Failed")) == START + timedelta(seconds=5)


def test_which_pods_go_first() -> None:
    unscheduled, pending, young, old = pod(1, spec={}), pod(2, "Pending"), pod(4), pod(3)
    chosen = for_removal(job(), [old, young, pending, unscheduled], 3)
    assert [name(each) for each in chosen] == ["p1", "p2", "p4"]
    indexed = job(completionMode="Indexed", completions=2)
    doubled = [pod(1, index=0), pod(2, index=0), pod(3, index=7), pod(4), pod(5, index=1)]
    # What has no right to be there goes in any case; of two the older stays.
    assert sorted(name(each) for each in for_removal(indexed, doubled, 0)) == ["p2", "p3", "p4"]


def test_which_indexes_are_missing() -> None:
    subject = job(completionMode="Indexed", completions=6, parallelism=6)
    subject["status"] = {"completedIndexes": "0"}
    pods = [pod(1, index=1), pod(2, "Succeeded", 2), pod(3, index=3, leaving=True)]
    assert pending_indexes(subject, count(subject, pods), 9) == [3, 4, 5]
    assert pending_indexes(subject, count(subject, pods), 2) == [3, 4]
    subject["spec"]["podReplacementPolicy"] = "Failed"
    assert pending_indexes(subject, count(subject, pods), 9) == [4, 5]


def test_a_pod_of_a_long_name() -> None:
    subject = job(completionMode="Indexed", completions=200)
    subject["metadata"]["name"] = "w" * 60
    prefix = new_pod(subject, 123)["metadata"]["generateName"]
    assert prefix == "w" * 53 + "-123-"


# Each pod counts once, wherever a sync is cut off.


@given(
    st.lists(st.sampled_from(["Running", "Succeeded", "Failed"]), min_size=1, max_size=8),
    st.lists(st.integers(0, 2), min_size=4, max_size=12),
)
def test_every_pod_is_counted_once_whenever_a_sync_breaks_off(phases: list[str], cuts: list[int]) -> None:
    """A sync stores the status, releases pods, settles and stores again; `cuts` say after which step it ends."""
    subject = job(completions=len(phases), parallelism=len(phases), backoffLimit=100)
    pods = [pod(number, phase) for number, phase in enumerate(phases)]
    for cut in [*cuts, 2, 2]:
        counted = count(subject, pods)
        planned = plan(subject, {**subject["status"]}, counted, None)
        subject = {**subject, "status": planned.status}
        if cut == 0:
            continue
        released = {uid(each) for each in planned.release}
        pods = [
            pod(int(name(each)[1:]), each["status"]["phase"], tracked=False)
            if uid(each) in released
            else each
            for each in pods
        ]
        if cut == 1:
            continue
        status = {**subject["status"]}
        settle(status, {uid(each) for each in pods if each["metadata"].get("finalizers")})
        subject = {**subject, "status": status}
    assert is_settled(subject["status"])
    assert subject["status"].get("succeeded", 0) == phases.count("Succeeded")
    assert subject["status"].get("failed", 0) == phases.count("Failed")
    final = count(subject, pods)
    assert (final.succeeded, final.failed) == (phases.count("Succeeded"), phases.count("Failed"))
