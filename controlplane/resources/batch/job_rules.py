"""What makes a JobSpec valid (pkg/apis/batch/validation, v1.32). Pure.

`validate_spec` serves Jobs and the job templates of CronJobs; what a change may do is in `job_update`, the status in
`job_status`.
"""

from __future__ import annotations

import re

from controlplane.meta.labels import LabelSelector
from controlplane.meta.names import dns1123_label, dns1123_subdomain
from controlplane.resources.apps.rules import go_selector
from controlplane.resources.batch import words
from controlplane.resources.batch.indexes import count_indexes
from controlplane.resources.fieldpath import Literal, invalid, quoted_list, required, string_map
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import Field

_MANY = 100_000
_MANY_AT_ONCE = 10_000
_MANAGED_BY_MAX = 63
_RULES_MAX = 20
_EXIT_CODES_MAX = 255
_INDEXES_TEXT_MAX = 64 * 1024
_PATH = r"^[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$"
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_STATUSES = ("False", "True", "Unknown")
_OPERATORS = ("In", "NotIn")
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


def validate_spec(spec: Field) -> None:
    """Everything but the selector."""
    for name in _COUNTS:
        spec[name].not_negative()
    if spec["maxFailedIndexes"].value is not None and spec["backoffLimitPerIndex"].value is None:
        spec["backoffLimitPerIndex"].required("when maxFailedIndexes is specified")
    _managed_by(spec["managedBy"])
    mode = spec["completionMode"]
    mode.one_of(words.NON_INDEXED, words.INDEXED)
    if mode.value == words.INDEXED:
        _indexed(spec)
    elif mode.value in (None, words.NON_INDEXED):
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec[name].value is not None:
                spec[name].invalid("requires indexed completion mode")
    if spec["podFailurePolicy"].value is not None:
        _failure_policy(spec)
    if spec["successPolicy"].value is not None:
        if mode.value != words.INDEXED:
            spec["successPolicy"].invalid("requires indexed completion mode")
        else:
            _success_policy(spec)
    _replacement_policy(spec)
    validate_template(spec["template"])
    _restart_policy(spec)


def validate_selector(spec: Field) -> None:
    """The selector is there and matches the pods the Job will make."""
    selector = spec["selector"]
    labels = spec["template"]["metadata"]["labels"]
    if selector.value is None:
        selector.required()
        matches = False
    else:
        validate_label_selector(selector)
        try:
            matches = LabelSelector.from_object(selector.value).matches(labels.value or {})
        except ValueError:
            return
    if not matches:
        labels.fail(
            invalid(labels.path, string_map(labels.value), "`selector` does not match template `labels`")
        )


def validate_generated_selector(job: Field) -> None:
    """Unless the selector is the user's own, it and the labels are those the server generates."""
    spec = job["spec"]
    if spec["manualSelector"].value or spec["selector"].value is None:
        return
    uid, name = job["metadata"]["uid"], job["metadata"]["name"].text
    uid.required()
    expected = {
        words.LEGACY_CONTROLLER_UID: uid.text,
        words.LEGACY_JOB_NAME: name,
        words.CONTROLLER_UID: uid.text,
        words.JOB_NAME: name,
    }
    labels = spec["template"]["metadata"]["labels"]
    for key, wanted in expected.items():
        found = (labels.value or {}).get(key)
        path = f"{labels.path}[{key}]"
        if found is None:
            job.fail(required(path, f"must be '{wanted}'"))
        if found != wanted:
            job.fail(invalid(path, labels.value or {}, f"must be '{wanted}'"))
    selector = spec["selector"]
    try:
        generated = LabelSelector.from_object(selector.value).matches(expected)
    except ValueError:
        return
    if not generated:
        selector.of(go_selector(selector.value)).invalid("`selector` not auto-generated")


def validate_host_names(job: Field) -> None:
    """The pods of an indexed Job are called after it and their index."""
    spec, name = job["spec"], job["metadata"]["name"]
    completions = spec["completions"].value
    if spec["completionMode"].value == words.INDEXED and isinstance(completions, int) and completions > 0:
        longest = f"{name.text}-{completions - 1}"
        if dns1123_label(longest):
            name.invalid(f"will not able to create pod with invalid DNS label: {longest}")


def _managed_by(field: Field) -> None:
    if field.value is None:
        return
    text = field.text
    domain, slash, path = text.partition("/")
    if not text:
        field.of("").required()
    elif not slash or not domain or not path:
        field.invalid('must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        for message in dns1123_subdomain(domain):
            field.of(domain).invalid(message)
        if not re.match(_PATH, path):
            field.of(path).invalid(f"Invalid path (regex used for validation is '{_PATH}')")
    field.max_bytes(_MANAGED_BY_MAX)


def _indexed(spec: Field) -> None:
    completions, parallelism, failed = spec["completions"], spec["parallelism"], spec["maxFailedIndexes"]
    if completions.value is None:
        completions.required(f"when completion mode is {words.INDEXED}")
    if (parallelism.value or 0) > _MANY:
        parallelism.invalid(f"must be less than or equal to {_MANY} when completion mode is {words.INDEXED}")
    if completions.value is not None and (failed.value or 0) > completions.value:
        failed.invalid("must be less than or equal to completions")
    if (failed.value or 0) > _MANY:
        failed.invalid(f"must be less than or equal to {_MANY}")
    if (completions.value or 0) <= _MANY or spec["backoffLimitPerIndex"].value is None:
        return
    if failed.value is None:
        failed.required(f"must be specified when completions is above {_MANY}")
    for field in (parallelism, failed):
        if (field.value or 0) > _MANY_AT_ONCE:
            field.invalid(
                f"must be less than or equal to {_MANY_AT_ONCE} when completions are above {_MANY} and used with "
                "backoff limit per index"
            )


def _failure_policy(spec: Field) -> None:
    rules = spec["podFailurePolicy"]["rules"]
    rules.max_items(_RULES_MAX)
    pod = spec["template"]["spec"]
    names = {item["name"].text for field in ("containers", "initContainers") for item in pod[field]}
    for rule in rules:
        action = rule["action"]
        if not action.present:
            action.required(f"valid values: {quoted_list(_ACTIONS)}")
        elif action.value == "FailIndex":
            if spec["backoffLimitPerIndex"].value is None:
                action.invalid("requires the backoffLimitPerIndex to be set")
        else:
            action.one_of(*_ACTIONS)
        codes, conditions = rule["onExitCodes"], rule["onPodConditions"]
        if codes.value is not None:
            _exit_codes(codes, names)
        conditions.max_items(_RULES_MAX)
        for pattern in conditions:
            _condition(pattern)
        if codes.value is not None and len(conditions):
            fault_of_all(rule, "specifying both OnExitCodes and OnPodConditions is not supported")
        if codes.value is None and not len(conditions):
            fault_of_all(rule, "specifying one of OnExitCodes and OnPodConditions is required")


def fault_of_all(field: Field, detail: str) -> None:
    """A fault of which upstream shows no value."""
    cause = invalid(field.path, Literal(""), detail)
    field.fail(type(cause)(cause.reason, f"Invalid value: {detail}", cause.field))


def _condition(pattern: Field) -> None:
    if not pattern["type"].present:
        pattern["type"].of("").invalid("name part must be non-empty")
        pattern["type"].of("").invalid(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    pattern["type"].qualified_name()
    status = pattern["status"]
    if not status.present:
        status.required(f"valid values: {quoted_list(_STATUSES)}")
    status.one_of(*_STATUSES)


def _exit_codes(codes: Field, containers: set[str]) -> None:
    operator, values = codes["operator"], codes["values"]
    if not operator.present:
        operator.required(f"valid values: {quoted_list(_OPERATORS)}")
    operator.one_of(*_OPERATORS)
    name = codes["containerName"]
    if name.value is not None and name.value not in containers:
        name.invalid("must be one of the container or initContainer names in the pod template")
    if not len(values):
        values.of(Literal("[]int32(nil)" if values.value is None else "[]int32{}")).invalid(
            "at least one value is required"
        )
    values.max_items(_EXIT_CODES_MAX)
    seen: set[int] = set()
    for value in values:
        if operator.value == "In" and value.value == 0:
            value.invalid("must not be 0 for the In operator")
        if value.value in seen:
            value.duplicate()
        seen.add(value.value)
    given = values.value or []
    if given != sorted(given):
        values.of(Literal(f"[]int32{{{', '.join(map(str, given))}}}")).invalid("must be ordered")


def _success_policy(spec: Field) -> None:
    rules = spec["successPolicy"]["rules"]
    rules.required("at least one rules must be specified when the successPolicy is specified")
    rules.max_items(_RULES_MAX)
    completions = spec["completions"].value
    for rule in rules:
        indexes, count = rule["succeededIndexes"], rule["succeededCount"]
        if indexes.value is None and count.value is None:
            rule.of(None).required("at least one of succeededCount or succeededIndexes must be specified")
        if completions is None:
            continue
        total = 0
        if indexes.value is not None:
            indexes.max_bytes(_INDEXES_TEXT_MAX)
            try:
                total = count_indexes(indexes.text, completions)
            except ValueError as error:
                indexes.invalid(f"error parsing succeededIndexes: {error}")
        if count.value is not None:
            count.not_negative()
            if count.value > completions:
                count.invalid(
                    f"must be less than or equal to {completions} (the number of specified completions)"
                )
            if indexes.value is not None and count.value > total:
                count.invalid(
                    f"must be less than or equal to {total} (the number of indexes in the specified "
                    "succeededIndexes field)"
                )


def _replacement_policy(spec: Field) -> None:
    policy = spec["podReplacementPolicy"]
    if policy.value is None:
        return
    if spec["podFailurePolicy"].value is not None:
        policy.one_of("Failed")
    else:
        policy.one_of("Failed", "TerminatingOrFailed")


def _restart_policy(spec: Field) -> None:
    policy = spec["template"]["spec"]["restartPolicy"]
    if policy.text in ("", "Always"):
        policy.of(None).required('valid values: "OnFailure", "Never"')
    elif policy.value not in ("OnFailure", "Never"):
        policy.one_of("OnFailure", "Never")
    elif spec["podFailurePolicy"].value is not None and policy.value != "Never":
        policy.invalid('only "Never" is supported when podFailurePolicy is specified')
