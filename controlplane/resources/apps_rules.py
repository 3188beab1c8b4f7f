"""What makes Deployments and ReplicaSets valid (pkg/apis/apps/validation, v1.32). Pure.

The rules about replicas, selector and template serve every kind that keeps a number of pods alive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.names import regex_error
from controlplane.resources.fieldpath import Literal, invalid, not_supported, quoted, string_list, string_map
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import IMMUTABLE, Field, same

_PERCENT = "[0-9]+%"
_PERCENT_MESSAGE = regex_error(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, ("1%", "93%")
)


def validate_deployment(deployment: Object) -> Sequence[Cause]:
    field = Field.root(deployment)
    spec = field["spec"]
    _replicas_selector_template(spec)
    _strategy(spec["strategy"])
    spec["revisionHistoryLimit"].not_negative()
    deadline = spec["progressDeadlineSeconds"].not_negative()
    if isinstance(deadline.value, int) and deadline.value <= (spec["minReadySeconds"].value or 0):
        deadline.invalid("must be greater than minReadySeconds")
    return field.causes


def validate_replica_set(replica_set: Object) -> Sequence[Cause]:
    field = Field.root(replica_set)
    _replicas_selector_template(field["spec"])
    return field.causes


def validate_update(new: Object, old: Object) -> Sequence[Cause]:
    """The selector stays what it is."""
    field = Field.root(new)
    selector = field["spec"]["selector"]
    if not same(selector.value, (old.get("spec") or {}).get("selector")):
        selector.of(go_selector(selector.value or {})).invalid(IMMUTABLE)
    return field.causes


def _replicas_selector_template(spec: Field) -> None:
    spec["replicas"].not_negative()
    spec["minReadySeconds"].not_negative()
    selector = spec["selector"]
    if selector.value is None:
        selector.required()
    else:
        validate_label_selector(selector)
        if not selector["matchLabels"].value and not selector["matchExpressions"].value:
            selector.of(go_selector(selector.value)).invalid("empty selector is invalid for deployment")
    template = spec["template"]
    _selector_matches(selector, template)
    validate_template(template)
    policy = template["spec"]["restartPolicy"]
    if policy.present and policy.value != "Always":
        policy.fail(not_supported(policy.path, policy.value, ["Always"]))
    deadline = template["spec"]["activeDeadlineSeconds"]
    if deadline.value is not None:
        deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported")


def _selector_matches(selector: Field, template: Field) -> None:
    try:
        parsed = LabelSelector.from_object(selector.value)
    except ValueError:
        selector.of(go_selector(selector.value)).invalid("invalid label selector")
        return
    labels = template["metadata"]["labels"]
    if parsed.requirements and not parsed.matches(labels.value or {}):
        labels.fail(
            invalid(labels.path, string_map(labels.value), "`selector` does not match template `labels`")
        )


def _strategy(strategy: Field) -> None:
    rolling = strategy["rollingUpdate"]
    match strategy["type"].value:
        case "Recreate":
            if rolling.value is not None:
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'")
        case "RollingUpdate":
            unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]
            _count_or_percent(unavailable)
            _count_or_percent(surge)
            if _amount(unavailable.value) == 0 and _amount(surge.value) == 0:
                _shown_plainly(unavailable).invalid("may not be 0 when `maxSurge` is 0")
            if isinstance(unavailable.value, str) and _amount(unavailable.value) > 100:
                _shown_plainly(unavailable).invalid("must not be greater than 100%")
        case _:
            strategy.fail(not_supported(strategy.path, _go_strategy(strategy), ["Recreate", "RollingUpdate"]))


def _go_strategy(strategy: Field) -> Literal:
    """The struct upstream blames for an unknown type; a pointer's address means nothing to anybody."""
    pointer = "nil" if strategy["rollingUpdate"].value is None else "..."
    return Literal(
        f"apps.DeploymentStrategy{{Type:{quoted(strategy['type'].text)}, "
        f"RollingUpdate:(*apps.RollingUpdateDeployment)({pointer})}}"
    )


def _count_or_percent(field: Field) -> None:
    if isinstance(field.value, str):
        if not re.fullmatch(_PERCENT, field.value):
            _shown_plainly(field).invalid(_PERCENT_MESSAGE)
    else:
        field.not_negative()


def _amount(value: object) -> int:
    """The number in `3` or `25%`; a text that is no percentage counts as 0, as upstream has it."""
    if isinstance(value, int):
        return value
    return int(value[:-1]) if isinstance(value, str) and re.fullmatch(_PERCENT, value) else 0


def _shown_plainly(field: Field) -> Field:
    """Go prints a number-or-text without quotes."""
    return field.of(Literal(field.value))


def go_selector(selector: Object) -> Literal:
    """A `metav1.LabelSelector` as Go prints the struct."""
    expressions = selector.get("matchExpressions")
    listed = "[]v1.LabelSelectorRequirement(nil)"
    if expressions:
        parts = (
            f"v1.LabelSelectorRequirement{{Key:{quoted(e.get('key', ''))}, Operator:{quoted(e.get('operator', ''))}, "
            f"Values:{string_list(e.get('values'))}}}"
            for e in expressions
        )
        listed = f"[]v1.LabelSelectorRequirement{{{', '.join(parts)}}}"
    labels = string_map(selector.get("matchLabels"))
    return Literal(f"v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{listed}}}")


def validate_deployment_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    status["unavailableReplicas"].not_negative()
    _status_counts(status, "updatedReplicas", "readyReplicas", "availableReplicas")
    collisions = status["collisionCount"].not_negative()
    before = (old.get("status") or {}).get("collisionCount")
    if before is not None and (collisions.value is None or collisions.value < before):
        collisions.of(collisions.value or 0).invalid("cannot be decremented")
    return field.causes


def validate_replica_set_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    _status_counts(field["status"], "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    return field.causes


def _status_counts(status: Field, *names: str) -> None:
    """None of the counts is negative or more than `replicas`; available pods are ready ones."""
    replicas = status["replicas"].not_negative().value or 0
    status["observedGeneration"].not_negative()
    for name in names:
        count = status[name].not_negative()
        if (count.value or 0) > replicas:
            count.invalid("cannot be greater than status.replicas")
    available = status["availableReplicas"]
    if (available.value or 0) > (status["readyReplicas"].value or 0):
        available.invalid("cannot be greater than readyReplicas")
