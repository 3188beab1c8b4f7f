"""The Job controller over the real API server in the same process."""

from __future__ import annotations

from typing import Any

import pytest
from support.batch import World, failed, job, ready, succeeded, world

from controlplane.controllers.job.controller import JobController
from controlplane.controllers.ttl_after_finished import TtlAfterFinishedController
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name
from controlplane.resources.batch import words
from controlplane.resources.batch.job_status import is_finished, is_true
from controlplane.resources.catalog import JOB, POD


def jobs(client: Any, informers: Any, clock: Any) -> JobController:
    return JobController(client, informers, clock)


def ttl(client: Any, informers: Any, clock: Any) -> TtlAfterFinishedController:
    return TtlAfterFinishedController(client, informers, clock)


def conditions(obj: Object | None) -> list[tuple[str, str]]:
    return [(c["type"], c.get("reason", "")) for c in dig(obj, "status", "conditions", default=())]


async def finished(there: World, name: str = "work") -> Object:
    found: Object = await there.until(lambda: (o := there.get(JOB, name)) and is_finished(o) and o)
    return found


def untracked(there: World) -> bool:
    return all(words.TRACKING_FINALIZER not in p["metadata"].get("finalizers", ()) for p in there.all(POD))


async def test_a_job_runs_its_pods_to_their_end() -> None:
    async with world(jobs) as there:
        there.outcome = succeeded
        await there.client.create(JOB, job(completions=5, parallelism=2))
        done = await finished(there)
        status = done["status"]
        assert conditions(done) == [
            ("SuccessCriteriaMet", "CompletionsReached"),
            ("Complete", "CompletionsReached"),
        ]
        assert {key: status[key] for key in ("succeeded", "ready", "terminating", "uncountedTerminatedPods")} == {
            "succeeded": 5, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {},
        }  # fmt: skip
        assert status["completionTime"] >= status["startTime"]
        assert "active" not in status
        assert len(there.all(POD)) == 5
        pod = there.all(POD)[0]
        uid = done["metadata"]["uid"]
        assert labels(pod) == {
            words.JOB_NAME: "work", words.LEGACY_JOB_NAME: "work",
            words.CONTROLLER_UID: uid, words.LEGACY_CONTROLLER_UID: uid,
        }  # fmt: skip
        assert name(pod).startswith("work-")
        await there.until(lambda: untracked(there))
        await there.until(
            lambda: there.events().count("SuccessfulCreate") == 5 and "Completed" in there.events()
        )


async def test_indexed_pods_know_their_index() -> None:
    async with world(jobs) as there:
        there.outcome = succeeded
        await there.client.create(JOB, job(completions=3, parallelism=3, completionMode="Indexed"))
        done = await finished(there)
        assert done["status"]["completedIndexes"] == "0-2"
        by_index = {p["metadata"]["annotations"][words.COMPLETION_INDEX]: p for p in there.all(POD)}
        assert set(by_index) == {"0", "1", "2"}
        pod = by_index["2"]
        assert pod["spec"]["hostname"] == "work-2"
        assert name(pod).startswith("work-2-")
        assert labels(pod)[words.COMPLETION_INDEX] == "2"
        [variable] = pod["spec"]["containers"][0]["env"]
        assert variable["name"] == "JOB_COMPLETION_INDEX"
        assert (
            variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{words.COMPLETION_INDEX}']"
        )


async def test_failures_beyond_the_limit_fail_the_job() -> None:
    async with world(jobs) as there:
        there.outcome = failed
        await there.client.create(JOB, job(backoffLimit=0))
        done = await finished(there)
        assert conditions(done) == [
            ("FailureTarget", "BackoffLimitExceeded"),
            ("Failed", "BackoffLimitExceeded"),
        ]
        assert done["status"]["failed"] == 1
        assert "completionTime" not in done["status"]
        await there.until(lambda: "BackoffLimitExceeded" in there.events())


async def test_a_failed_pod_is_replaced_after_a_pause() -> None:
    async with world(jobs) as there:
        there.outcome = failed
        await there.client.create(JOB, job(backoffLimit=1))
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "failed") == 1)
        assert len(there.all(POD)) == 1
        there.clock.advance(11)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        done = await finished(there)
        assert done["status"]["failed"] == 2
        assert len(there.all(POD)) == 2


@pytest.mark.parametrize(
    ("action", "reason", "failures"),
    [("FailJob", "PodFailurePolicy", 1), ("Count", "BackoffLimitExceeded", 1)],
)
async def test_the_failure_policy_decides(action: str, reason: str, failures: int) -> None:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    async with world(jobs) as there:
        there.outcome = lambda pod: failed(pod, 42)
        limit = 0 if action == "Count" else 6
        await there.client.create(JOB, job(backoffLimit=limit, podFailurePolicy={"rules": [rule]}))
        done = await finished(there)
        assert conditions(done)[-1] == ("Failed", reason)
        assert done["status"]["failed"] == failures
        if action == "FailJob":
            message = done["status"]["conditions"][-1]["message"]
            pod = name(there.all(POD)[0])
            assert message == (
                f"Container main for pod default/{pod} failed with exit code 42 matching FailJob rule at index 0"
            )


async def test_ignored_failures_are_not_counted() -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    async with world(jobs) as there:
        disrupted = {"type": "DisruptionTarget", "status": "True"}
        there.outcome = lambda pod: {**failed(pod), "conditions": [disrupted]}
        await there.client.create(JOB, job(backoffLimit=0, podFailurePolicy={"rules": [rule]}))
        await there.until(lambda: there.all(POD) and untracked(there))
        there.outcome = succeeded
        there.clock.advance(700)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        done = await finished(there)
        assert conditions(done)[-1][0] == "Complete"
        assert "failed" not in done["status"]


async def test_each_index_has_its_own_limit() -> None:
    async with world(jobs) as there:
        there.outcome = lambda pod: (
            failed(pod) if pod["metadata"]["annotations"][words.COMPLETION_INDEX] == "1" else succeeded(pod)
        )
        await there.client.create(
            JOB, job(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
        )
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "completedIndexes") == "0,2")
        first = next(p for p in there.all(POD) if p["metadata"]["annotations"][words.COMPLETION_INDEX] == "1")
        assert first["metadata"]["annotations"][words.INDEX_FAILURE_COUNT] == "0"
        # It is held until the one that replaces it has its failure count.
        assert words.TRACKING_FINALIZER in first["metadata"]["finalizers"]
        there.clock.advance(11)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        done = await finished(there)
        assert conditions(done)[-1] == ("Failed", "FailedIndexes")
        assert done["status"]["failedIndexes"] == "1"
        assert (done["status"]["failed"], done["status"]["succeeded"]) == (2, 2)
        counts = sorted(
            p["metadata"]["annotations"][words.INDEX_FAILURE_COUNT]
            for p in there.all(POD)
            if p["metadata"]["annotations"][words.COMPLETION_INDEX] == "1"
        )
        assert counts == ["0", "1"]


async def test_the_success_policy_ends_it_early() -> None:
    async with world(jobs) as there:
        there.outcome = lambda pod: (
            succeeded(pod) if pod["metadata"]["annotations"][words.COMPLETION_INDEX] == "0" else ready(pod)
        )
        await there.client.create(
            JOB,
            job(
                completions=3,
                parallelism=3,
                completionMode="Indexed",
                successPolicy={"rules": [{"succeededIndexes": "0"}]},
                template={"terminationGracePeriodSeconds": 0},
            ),
        )
        done = await finished(there)
        assert conditions(done) == [("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]
        assert done["status"]["conditions"][0]["message"] == "Matched rules at index 0"
        assert done["status"]["completedIndexes"] == "0"
        assert "failed" not in done["status"]


async def test_suspend_takes_the_pods_away_and_resume_starts_anew() -> None:
    async with world(jobs) as there:
        there.outcome = ready
        await there.client.create(JOB, job(parallelism=2, completions=2, suspend=True))
        await there.until(lambda: is_true(there.get(JOB, "work") or {}, "Suspended"))
        assert "startTime" not in there.get(JOB, "work")["status"]
        assert there.all(POD) == []
        await there.client.patch(JOB, "work", {"spec": {"suspend": False}}, "default")
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "ready") == 2)
        resumed = there.get(JOB, "work")
        assert ("Suspended", "JobResumed") in conditions(resumed)
        assert resumed["status"]["startTime"]
        await there.client.patch(JOB, "work", {"spec": {"suspend": True}}, "default")
        await there.until(lambda: not dig(there.get(JOB, "work"), "status", "active"))
        await there.until(lambda: all(p["metadata"].get("deletionTimestamp") for p in there.all(POD)))
        assert "failed" not in there.get(JOB, "work")["status"]
        await there.until(lambda: {"Suspended", "Resumed"} <= set(there.events()))


async def test_the_deadline_fails_it() -> None:
    async with world(jobs) as there:
        there.outcome = ready
        template = {"terminationGracePeriodSeconds": 0}
        await there.client.create(JOB, job(activeDeadlineSeconds=30, template=template))
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "ready") == 1)
        there.clock.advance(31)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        done = await finished(there)
        assert conditions(done)[-1] == ("Failed", "DeadlineExceeded")


async def test_it_has_not_failed_before_its_pods_are_gone() -> None:
    async with world(jobs) as there:
        there.outcome = ready
        await there.client.create(JOB, job(activeDeadlineSeconds=30))
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "ready") == 1)
        there.clock.advance(31)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "terminating") == 1)
        await there.until(lambda: untracked(there))
        assert conditions(there.get(JOB, "work")) == [("FailureTarget", "DeadlineExceeded")]
        [pod] = there.all(POD)
        await there.client.delete(POD, name(pod), "default", grace=0)
        done = await finished(there)
        assert (done["status"]["failed"], done["status"]["terminating"]) == (1, 0)


async def test_fewer_at_once_deletes_the_surplus_uncounted() -> None:
    async with world(jobs) as there:
        there.outcome = ready
        await there.client.create(JOB, job(parallelism=3, completions=9))
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "ready") == 3)
        await there.client.patch(JOB, "work", {"spec": {"parallelism": 1}}, "default")
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "active") == 1)
        assert "failed" not in there.get(JOB, "work")["status"]


async def test_another_controller_s_jobs_are_left_alone() -> None:
    async with world(jobs) as there:
        there.outcome = succeeded
        await there.client.create(JOB, job("other", managedBy="example.com/queue"))
        await there.client.create(JOB, job())
        await finished(there)
        assert not there.get(JOB, "other")["status"]


async def test_pods_of_a_deleted_job_are_let_go() -> None:
    async with world(jobs) as there:
        there.outcome = ready
        await there.client.create(JOB, job())
        await there.until(lambda: dig(there.get(JOB, "work"), "status", "ready") == 1)
        await there.client.delete(JOB, "work", "default", propagation="Background")
        await there.until(lambda: untracked(there))


async def test_finished_jobs_go_after_their_time() -> None:
    async with world(jobs, ttl) as there:
        there.outcome = succeeded
        await there.client.create(JOB, job(ttlSecondsAfterFinished=100))
        await finished(there)
        there.clock.advance(101)
        await there.client.patch(JOB, "work", {"metadata": {"labels": {"touched": "1"}}}, "default")
        # Nobody collects garbage here: the foreground deletion has begun.
        await there.until(lambda: dig(there.get(JOB, "work"), "metadata", "deletionTimestamp"))
        assert there.get(JOB, "work")["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_a_deletion_that_says_nothing_keeps_the_pods_and_warns() -> None:
    async with world(jobs) as there:
        there.outcome = succeeded
        await there.client.create(JOB, job())
        await finished(there)
        answer = await there.client.raw("DELETE", JOB.path("default", "work"))
        assert answer.headers["warning"].startswith(
            '299 - "child pods are preserved by default when jobs are deleted'
        )
        assert there.get(JOB, "work")["metadata"]["finalizers"] == ["orphan"]


async def test_metadata_may_be_written_with_the_status() -> None:
    async with world() as there:
        await there.client.create(JOB, job(managedBy="example.com/x"))
        patch = {
            "metadata": {"annotations": {"patched": "yes"}},
            "spec": {"parallelism": 9},
            "status": {"active": 3},
        }
        written = await there.client.patch(JOB, "work", patch, "default", subresource="status")
        assert written["metadata"]["annotations"] == {"patched": "yes"}
        assert (written["status"], written["spec"]["parallelism"]) == ({"active": 3}, 1)
