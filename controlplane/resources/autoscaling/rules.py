"""What makes HorizontalPodAutoscalers valid (pkg/apis/autoscaling/validation, v1.32). Pure, for version v2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.quantity import Quantity
from controlplane.resources.core.resource_names import validate_container_name
from controlplane.resources.fieldpath import not_supported
from controlplane.resources.rules import Field

_LONGEST_PERIOD = 1800
_LONGEST_WINDOW = 3600
_POLICY_TYPES = ("Percent", "Pods")
_TARGET_TYPES = ("Utilization", "Value", "AverageValue")
_RAW_OR_UTILIZATION = "must set either a target raw value or a target utilization"


def validate(autoscaler: Object) -> Sequence[Cause]:
    spec = Field.root(autoscaler)["spec"]
    least, most = spec["minReplicas"], spec["maxReplicas"]
    if isinstance(least.value, int) and least.value < 1:
        least.invalid("must be greater than or equal to 1")
    maximum = most.value or 0
    if maximum < 1:
        most.of(maximum).invalid("must be greater than 0")
    if isinstance(least.value, int) and maximum < least.value:
        most.of(maximum).invalid("must be greater than or equal to `minReplicas`")
    _reference(spec["scaleTargetRef"])
    for metric in spec["metrics"]:
        _metric(metric)
    for direction in ("scaleUp", "scaleDown"):
        if spec["behavior"][direction].value is not None:
            _rules(spec["behavior"][direction])
    return spec.causes


def validate_status(new: Object, old: Object) -> Sequence[Cause]:
    status = Field.root(new)["status"]
    status["currentReplicas"].not_negative()
    status["desiredReplicas"].not_negative()
    return status.causes


def path_segment(text: str) -> Sequence[str]:
    """Upstream's messages about a text that becomes part of a path."""
    if text in (".", ".."):
        return (f"may not be '{text}'",)
    return [f"may not contain '{character}'" for character in ("/", "%") if character in text]


def _reference(reference: Field) -> None:
    for name in ("kind", "name"):
        reference[name].required().check(path_segment)


def _metric(metric: Field) -> None:
    wanted = metric["type"]
    if not wanted.present:
        wanted.required("must specify a metric source type")
    present = [name for name in _SOURCES if metric[name].value is not None]
    if len(present) >= 1:
        _SOURCES[present[0]](metric[present[0]])
    expected = _BY_TYPE.get(wanted.text, "")
    if not expected:
        wanted.fail(not_supported(wanted.path, wanted.text, sorted(_BY_TYPE)))
    elif metric[expected].value is None:
        metric[expected].required("must populate information for the given metric source")
    if len(present) != 1:
        for name in present:
            if name != expected:
                metric[name].forbidden("must populate the given metric source only")


def _identifier(metric: Field) -> None:
    metric["name"].required("must specify a metric name").check(path_segment)


def _target(target: Field) -> None:
    kind = target["type"]
    kind.required("must specify a metric target type")
    if kind.value not in _TARGET_TYPES:
        kind.of(kind.text).invalid("must be either Utilization, Value, or AverageValue")
    for name in ("value", "averageValue"):
        _positive(target[name])
    utilization = target["averageUtilization"]
    if isinstance(utilization.value, int) and utilization.value < 1:
        utilization.invalid("must be greater than 0")


def _positive(amount: Field) -> None:
    if amount.value is None:
        return
    try:
        quantity = Quantity.parse(str(amount.value))
    except ValueError as error:
        amount.invalid(str(error))
        return
    if quantity.nanos <= 0:
        amount.of(str(quantity)).invalid("must be positive")


def _object(source: Field) -> None:
    _reference(source["describedObject"])
    _identifier(source["metric"])
    target = source["target"]
    _target(target)
    if target["value"].value is None and target["averageValue"].value is None:
        target["averageValue"].required("must set either a target value or averageValue")


def _pods(source: Field) -> None:
    _identifier(source["metric"])
    target = source["target"]
    _target(target)
    if target["averageValue"].value is None:
        target["averageValue"].required("must specify a positive target averageValue")


def _external(source: Field) -> None:
    _identifier(source["metric"])
    target = source["target"]
    _target(target)
    raw, average = target["value"].value, target["averageValue"].value
    if raw is None and average is None:
        target["averageValue"].required("must set either a target value for metric or a per-pod target")
    if raw is not None and average is not None:
        target["value"].forbidden("may not set both a target value for metric and a per-pod target")


def _resource(source: Field) -> None:
    source["name"].required("must specify a resource name")
    _amount_or_utilization(source["target"])


def _container_resource(source: Field) -> None:
    name = source["name"]
    name.required("must specify a resource name")
    if name.present:
        validate_container_name(name)
    source["container"].required("must specify a container")
    _amount_or_utilization(source["target"])


def _amount_or_utilization(target: Field) -> None:
    _target(target)
    utilization, amount = target["averageUtilization"].value, target["averageValue"].value
    if utilization is None and amount is None:
        target["averageUtilization"].required(_RAW_OR_UTILIZATION)
    if utilization is not None and amount is not None:
        target["averageValue"].forbidden("may not set both a target raw value and a target utilization")


_SOURCES: Mapping[str, Callable[[Field], None]] = {
    "object": _object,
    "external": _external,
    "pods": _pods,
    "resource": _resource,
    "containerResource": _container_resource,
}
_BY_TYPE = {"ContainerResource": "containerResource", "External": "external", "Object": "object", "Pods": "pods",
            "Resource": "resource"}  # fmt: skip


def _rules(rules: Field) -> None:
    window = rules["stabilizationWindowSeconds"]
    if isinstance(window.value, int) and window.value < 0:
        window.invalid("must be greater than or equal to zero")
    if isinstance(window.value, int) and window.value > _LONGEST_WINDOW:
        window.invalid(f"must be less than or equal to {_LONGEST_WINDOW}")
    rules["selectPolicy"].one_of("Disabled", "Max", "Min")
    policies = rules["policies"]
    policies.required("must specify at least one Policy")
    for policy in policies:
        kind = policy["type"]
        if kind.value not in _POLICY_TYPES:
            kind.fail(not_supported(kind.path, kind.text, _POLICY_TYPES))
        for name in ("value", "periodSeconds"):
            field = policy[name]
            if (field.value or 0) <= 0:
                field.of(field.value or 0).invalid("must be greater than zero")
        if (policy["periodSeconds"].value or 0) > _LONGEST_PERIOD:
            policy["periodSeconds"].invalid(f"must be less than or equal to {_LONGEST_PERIOD}")
