"""A Job's podFailurePolicy and successPolicy applied. Pure; texts are upstream's (v1.32)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.controllers.job.pods import failure_count, has_failed
from controlplane.errors import Object
from controlplane.meta.objects import dig, name, namespace
from controlplane.resources.batch import words
from controlplane.resources.batch.indexes import parse_indexes


@dataclass(frozen=True, slots=True)
class Match:
    """What the first matching rule says of a failed pod: `counts` against the back-off limit, fail the Job with
    `message`, or fail the index.
    """

    counts: bool = True
    message: str = ""
    fails_index: bool = False


_NO_MATCH = Match()


def match_failure(policy: Mapping[str, Any] | None, pod: Object) -> Match:
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        why = _reason(rule, pod)
        if not why:
            continue
        match rule.get("action"):
            case "Ignore":
                return Match(counts=False)
            case "FailIndex":
                return Match(fails_index=True)
            case "FailJob":
                return Match(message=f"{why} matching FailJob rule at index {number}")
            case "Count":
                return _NO_MATCH
    return _NO_MATCH


def _reason(rule: Mapping[str, Any], pod: Object) -> str:
    """In which way the pod matches the rule, empty when it does not."""
    where = f"{namespace(pod)}/{name(pod)}"
    codes = rule.get("onExitCodes")
    if codes is not None:
        for status in (
            *dig(pod, "status", "containerStatuses", default=()),
            *dig(pod, "status", "initContainerStatuses", default=()),
        ):
            code = dig(status, "state", "terminated", "exitCode", default=0)
            named = codes.get("containerName") in (None, status.get("name"))
            if code and named and (code in codes["values"]) == (codes["operator"] == "In"):
                return f"Container {status.get('name')} for pod {where} failed with exit code {code}"
        return ""
    for pattern in rule.get("onPodConditions") or ():
        for condition in dig(pod, "status", "conditions", default=()):
            if (condition.get("type"), condition.get("status")) == (
                pattern.get("type"),
                pattern.get("status"),
            ):
                return f"Pod {where} has condition {condition['type']}"
    return ""


def failure_message(job: Object, pods: Iterable[Object]) -> str:
    """Why the policy fails the whole Job, empty when it does not."""
    policy = job["spec"].get("podFailurePolicy")
    if policy is None:
        return ""
    messages = (match_failure(policy, pod).message for pod in pods if has_failed(job, pod))
    return next(filter(None, messages), "")


def fails_index(job: Object, pod: Object) -> bool:
    """Whether this failed pod is the last its index may have."""
    match = match_failure(job["spec"].get("podFailurePolicy"), pod)
    return match.fails_index or (match.counts and failure_count(pod) >= job["spec"]["backoffLimitPerIndex"])


def index_annotations(job: Object, replaced: Object | None) -> dict[str, str]:
    """How often the index has failed, for the pod that replaces `replaced`."""
    counted = ignored = 0
    if replaced is not None:
        counted = failure_count(replaced)
        text = (replaced["metadata"].get("annotations") or {}).get(words.INDEX_IGNORED_FAILURE_COUNT, "")
        ignored = int(text) if text.isdecimal() else 0
        if match_failure(job["spec"].get("podFailurePolicy"), replaced).counts:
            counted += 1
        else:
            ignored += 1
    found = {words.INDEX_FAILURE_COUNT: str(counted)}
    if ignored:
        found[words.INDEX_IGNORED_FAILURE_COUNT] = str(ignored)
    return found


def match_success(policy: Mapping[str, Any] | None, completions: int, succeeded: set[int]) -> str:
    """Which rule declares the Job a success already, empty when none does."""
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        text, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        relevant = succeeded
        if text is not None:
            wanted = parse_indexes(text, completions)
            relevant = succeeded & wanted
            count = len(wanted) if count is None else count
        if count is not None and len(relevant) >= count:
            return f"Matched rules at index {number}"
    return ""
