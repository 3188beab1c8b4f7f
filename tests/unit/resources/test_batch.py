"""Job and CronJob: defaults, what validation says, what may change, rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.resources import container, defaulted, faults, said

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.resources.batch import words
from controlplane.resources.batch.indexes import count_indexes, format_indexes, overlap, parse_indexes
from controlplane.resources.batch.job import status_word
from controlplane.resources.catalog import CRON_JOB, JOB

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def job(**spec: Any) -> Object:
    template = {"spec": {"containers": [container()], "restartPolicy": "Never", **spec.pop("pod", {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": "default", "uid": "12-34"},
        "spec": {"template": template, **spec},
    }


def stored(**spec: Any) -> Object:
    made = defaulted(JOB, job(**spec))
    JOB.prepare_create(made)
    return made


def refusals(**spec: Any) -> list[str]:
    return said(JOB.validate(stored(**spec)))


def test_defaults() -> None:
    spec = stored()["spec"]
    assert {key: spec[key] for key in spec if key not in ("template", "selector")} == {
        "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
        "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed",
    }  # fmt: skip
    assert spec["selector"] == {"matchLabels": {words.CONTROLLER_UID: "12-34"}}
    made = stored()
    assert made["metadata"]["labels"] == spec["template"]["metadata"]["labels"] == {
        words.JOB_NAME: "work", "job-name": "work", words.CONTROLLER_UID: "12-34", "controller-uid": "12-34",
    }  # fmt: skip
    assert stored(completions=3)["spec"]["parallelism"] == 1
    assert "completions" not in stored(parallelism=3)["spec"]
    assert (
        stored(backoffLimitPerIndex=1, completionMode="Indexed", completions=1)["spec"]["backoffLimit"]
        == 2**31 - 1
    )
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    filled = stored(podFailurePolicy=policy)["spec"]
    assert filled["podReplacementPolicy"] == "Failed"
    assert filled["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] == "True"


def test_a_selector_of_one_s_own() -> None:
    own = {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}}
    made = job(**own)
    made["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    made = defaulted(JOB, made)
    JOB.prepare_create(made)
    assert made["spec"]["template"]["metadata"]["labels"] == {"a": "b"}
    assert JOB.validate(made) == []
    assert refusals(manualSelector=True) == [
        "spec.selector: Required value",
        "spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does not match template "
        "`labels`",
    ]


RULES = "spec.podFailurePolicy.rules[0]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"parallelism": -1}, ["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"]),
        (
            {"pod": {"restartPolicy": "Always"}},
            ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
        ),
        ({"completionMode": "Indexed", "parallelism": 2},
         ["spec.completions: Required value: when completion mode is Indexed"]),
        ({"completionMode": "Odd"},
         ['spec.completionMode: Unsupported value: "Odd": supported values: "NonIndexed", "Indexed"']),
        ({"backoffLimitPerIndex": 1},
         ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]),
        ({"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": 1},
         ["spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"]),
        ({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 0, "maxFailedIndexes": 3},
         ["spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions"]),
        ({"podReplacementPolicy": "Never"},
         ['spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", '
          '"TerminatingOrFailed"']),
        ({"successPolicy": {"rules": [{"succeededCount": 1}]}},
         ['spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode']),
        ({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "1-5"}]}},
         ['spec.successPolicy.rules[0].succeededIndexes: Invalid value: "1-5": error parsing succeededIndexes: too '
          'large index: "5"']),
        ({"podFailurePolicy": {"rules": [{"action": "FailJob"}]}},
         [f"{RULES}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"]),
        ({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]}},
         [f'{RULES}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set']),
        ({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 0]}}]}},
         [f"{RULES}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
          f"{RULES}.onExitCodes.values: Invalid value: []int32{{3, 0}}: must be ordered"]),
        ({"podFailurePolicy": {"rules": []}, "pod": {"restartPolicy": "OnFailure"}},
         ['spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when '
          "podFailurePolicy is specified"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_job(spec: Object, expected: list[str]) -> None:
    assert refusals(**clone(spec)) == expected


def test_a_name_too_long_for_its_pods() -> None:
    made = job(completionMode="Indexed", completions=1000)
    made["metadata"]["name"] = "w" * 61
    made = defaulted(JOB, made)
    JOB.prepare_create(made)
    [fault] = said(JOB.validate(made))
    assert fault.endswith(f"will not able to create pod with invalid DNS label: {'w' * 61}-999")


def changes(new: Object, old: Object) -> list[str]:
    return said(JOB.validate_update(new, old))


def test_what_may_change() -> None:
    old = stored(completionMode="Indexed", completions=2, parallelism=2)
    new = clone(old)
    new["spec"].update(suspend=True, parallelism=3, completions=3, backoffLimit=1, activeDeadlineSeconds=4)
    assert changes(new, old) == []
    new["spec"]["completions"] = 4
    assert changes(new, old) == [
        "spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism"
    ]
    new = clone(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"a": "b"}
    [fault] = changes(new, old)
    assert fault.startswith("spec.template: Invalid value: ")
    assert fault.endswith(": field is immutable")
    old["spec"]["suspend"] = new["spec"]["suspend"] = True
    assert changes(new, old) == []
    old["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    assert len(changes(new, old)) == 1


@pytest.mark.parametrize(
    ("status", "before", "expected"),
    [
        ({"active": -1}, {}, ["status.active: Invalid value: -1: must be greater than or equal to 0"]),
        ({"ready": 2, "active": 1}, {}, ["status.ready: Invalid value: 2: cannot set more ready pods than active"]),
        ({"failed": 1}, {"failed": 2}, ["status.failed: Invalid value: 1: cannot decrease the failed counter"]),
        ({"completedIndexes": "1"}, {},
         ['status.completedIndexes: Invalid value: "1": error parsing completedIndexes: too large index: "1"',
          'status.completedIndexes: Invalid value: "1": cannot set non-empty completedIndexes when non-indexed '
          "completion mode"]),
        ({"conditions": [{"type": "Complete", "status": "True"}], "startTime": "2026-01-01T00:00:00Z",
          "completionTime": "2026-01-01T00:00:01Z"}, {},
         ["status.conditions: Invalid value: cannot set Complete=True condition without the "
          "SuccessCriteriaMet=true condition"]),
        ({}, {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]},
         ["status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_status(status: Object, before: Object, expected: list[str]) -> None:
    old, new = stored(), stored()
    old["status"], new["status"] = before, status
    assert said(JOB.validate_status(new, old)) == expected


def conditions(*types: str) -> Object:
    return {"conditions": [{"type": type_, "status": "True"} for type_ in types]}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({}, "Running"),
        (conditions("SuccessCriteriaMet", "Complete"), "Complete"),
        (conditions("FailureTarget"), "FailureTarget"),
        (conditions("FailureTarget", "Failed"), "Failed"),
        (conditions("Suspended"), "Suspended"),
    ],
)
def test_the_status_column(status: Object, word: str) -> None:
    assert status_word({**job(), "status": status}) == word


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({"completions": 3}, {"succeeded": 1}, ["work", "Running", "1/3", ""]),
        ({"parallelism": 4}, {}, ["work", "Running", "0/1 of 4", ""]),
        ({"completions": 1}, {"startTime": "2026-01-01T00:59:30Z"}, ["work", "Running", "0/1", "30s"]),
        (
            {"completions": 1},
            {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:09Z", "succeeded": 1},
            ["work", "Running", "1/1", "9s"],
        ),
    ],
)
def test_rows(spec: Object, status: Object, cells: list[str]) -> None:
    made = {**stored(**spec), "status": status}
    assert JOB.row is not None
    assert list(JOB.row(made, NOW))[:4] == cells


# CronJobs.


def cron_job(**spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job()["spec"]}, **spec},
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"schedule": ""}, ["spec.schedule: Required value"]),
        ({"schedule": "* * * * 7"},
         ['spec.schedule: Invalid value: "* * * * 7": end of range (7) above maximum (6): 7']),
        ({"schedule": "TZ=UTC * * * * *"},
         ['spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field '
          "instead"]),
        ({"timeZone": "Europe/Berlin"}, []),
        ({"timeZone": ""}, ['spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string']),
        ({"timeZone": "Mars/Olympus"},
         ['spec.timeZone: Invalid value: "Mars/Olympus": unknown time zone Mars/Olympus']),
        ({"timeZone": "../etc/passwd"},
         ['spec.timeZone: Invalid value: "../etc/passwd": unknown time zone ../etc/passwd']),
        ({"concurrencyPolicy": "Maybe"},
         ['spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"']),
        ({"startingDeadlineSeconds": -1},
         ["spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0"]),
        ({"jobTemplate": {"spec": {**job()["spec"], "manualSelector": True}}},
         ['spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"']),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_cron_job(spec: Object, expected: list[str]) -> None:
    assert faults(CRON_JOB, cron_job(**clone(spec))) == expected


def test_a_cron_job_s_name_leaves_room_for_the_time() -> None:
    made = cron_job()
    made["metadata"]["name"] = "t" * 53
    assert faults(CRON_JOB, made) == [
        f'metadata.name: Invalid value: "{"t" * 53}": must be no more than 52 characters'
    ]
    # Those that are there already stay changeable.
    made["metadata"]["resourceVersion"] = "5"
    assert faults(CRON_JOB, made) == []


def test_the_row_of_a_cron_job() -> None:
    made = defaulted(CRON_JOB, cron_job())
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert CRON_JOB.row is not None
    assert list(CRON_JOB.row(made, NOW)) == [
        "tick", "* * * * *", "<none>", "False", 0, "<none>", "60m", "web", "nginx:1.27", "<none>",
    ]  # fmt: skip


# Indexes as text.


@pytest.mark.parametrize(
    ("indexes", "text"),
    [([], ""), ([3], "3"), ([0, 1], "0,1"), ([4, 0, 1, 2], "0-2,4"), ([7, 5, 6, 9], "5-7,9")],
)
def test_indexes_as_text(indexes: list[int], text: str) -> None:
    assert format_indexes(indexes) == text


@given(st.sets(st.integers(0, 200)))
def test_indexes_come_back(indexes: set[int]) -> None:
    text = format_indexes(indexes)
    assert parse_indexes(text, 201) == indexes
    assert count_indexes(text, 201) == len(indexes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", 'cannot convert string to integer for index: "x"'),
        ("3,2", "non-increasing order, previous: 3, current: 2"),
        ("2-2", "non-increasing order, previous: 2, current: 2"),
        ("9", 'too large index: "9"'),
        ("1-2-3", "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts "
                  "separated by '-'"),
    ],
)  # fmt: skip
def test_texts_that_are_no_indexes(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole text is compared
        count_indexes(text, 9)
    assert str(refusal.value) == message


def test_overlap() -> None:
    assert overlap("0-3,7", "5,7-8", 9) == 7
    assert overlap("0-3", "4", 9) is None


def test_defaults_settle_and_nothing_changed_is_no_change() -> None:
    full = job(
        completionMode="Indexed",
        completions=3,
        backoffLimitPerIndex=1,
        podFailurePolicy={"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
        successPolicy={"rules": [{"succeededCount": 1}]},
    )
    for kind, obj in ((JOB, job()), (JOB, full), (CRON_JOB, cron_job(timeZone="Asia/Seoul"))):
        once = defaulted(kind, obj)
        assert defaulted(kind, once) == once
        kind.prepare_create(once)
        assert defaulted(kind, once) == once
        assert said(kind.validate(once)) == []
        assert said(kind.validate_update(clone(once), once)) == []


def test_warnings() -> None:
    made = job()
    assert JOB.warnings(made, None) == []
    made["metadata"]["name"] = "a.b"
    [warning] = JOB.warnings(made, None)
    assert warning.startswith("metadata.name: this is used in Pod names and hostnames")
    assert JOB.warnings(made, made) == []
    many = job(completionMode="Indexed", completions=100_001, parallelism=10_001)
    [warning] = JOB.warnings(many, many)
    assert warning.startswith("In Indexed Jobs with a number of completions higher than 10^5")
    [warning] = CRON_JOB.warnings(cron_job(jobTemplate={"spec": many["spec"]}), None)
    assert warning.startswith("In Indexed Jobs")
