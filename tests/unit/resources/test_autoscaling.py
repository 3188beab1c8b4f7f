"""HorizontalPodAutoscaler: defaults, validation, the two versions, targets as printed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.resources import defaulted, faults

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.resources.autoscaling.columns import targets
from controlplane.resources.autoscaling.conversion import BEHAVIOR, CONDITIONS, METRICS, to_v1, to_v2
from controlplane.resources.catalog import HORIZONTAL_POD_AUTOSCALER as HPA
from controlplane.resources.catalog import HORIZONTAL_POD_AUTOSCALER_V1 as HPA_V1
from controlplane.resources.catalog import KINDS

TARGET = {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}


def autoscaler(**spec: Any) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec},
    }


def cpu(**target: Any) -> Object:
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def pods(average: str = "1k") -> Object:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": "packets"}, "target": target}}


def test_defaults() -> None:
    spec = defaulted(HPA, autoscaler())["spec"]
    assert spec["minReplicas"] == 1
    assert spec["metrics"] == [cpu(type="Utilization", averageUtilization=80)]
    assert "behavior" not in spec
    behavior = defaulted(HPA, autoscaler(behavior={"scaleDown": {"selectPolicy": "Disabled"}}))["spec"][
        "behavior"
    ]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert len(behavior["scaleUp"]["policies"]) == 2
    assert behavior["scaleDown"]["selectPolicy"] == "Disabled"
    assert behavior["scaleDown"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 15}]


def test_v2_is_preferred() -> None:
    versions = [kind.version for kind in KINDS if kind.kind == "HorizontalPodAutoscaler"]
    assert versions == ["v2", "v1"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"minReplicas": 0}, ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]),
        ({"maxReplicas": 0}, ["spec.maxReplicas: Invalid value: 0: must be greater than 0",
                              "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`"]),
        ({"scaleTargetRef": {"name": "a/b"}},
         ["spec.scaleTargetRef.kind: Required value",
          "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"]),
        ({"metrics": [{"type": "Odd"}]},
         ['spec.metrics[0].type: Unsupported value: "Odd": supported values: "ContainerResource", "External", '
          '"Object", "Pods", "Resource"']),
        ({"metrics": [{"type": "Pods"}]},
         ["spec.metrics[0].pods: Required value: must populate information for the given metric source"]),
        ({"metrics": [cpu(type="Utilization")]},
         ["spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or "
          "a target utilization"]),
        ({"metrics": [cpu(type="Utilization", averageUtilization=0)]},
         ["spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"]),
        ({"metrics": [{**pods(), "resource": cpu(type="AverageValue", averageValue="1")["resource"]}]},
         ["spec.metrics[0].resource: Forbidden: must populate the given metric source only"]),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000}}},
         ["spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600"]),
        ({"behavior": {"scaleUp": {"policies": [{"type": "Odd", "value": 0, "periodSeconds": 1801}]}}},
         ['spec.behavior.scaleUp.policies[0].type: Unsupported value: "Odd": supported values: "Percent", "Pods"',
          "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
          "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"]),
    ],
)  # fmt: skip
def test_what_is_wrong(spec: Object, expected: list[str]) -> None:
    assert faults(HPA, autoscaler(**clone(spec))) == expected


# The two versions.


def test_cpu_has_a_field_of_its_own_in_v1() -> None:
    v1 = to_v1(defaulted(HPA, autoscaler(minReplicas=2)))
    assert v1["apiVersion"] == "autoscaling/v1"
    assert v1["spec"] == {
        "scaleTargetRef": TARGET, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80,
    }  # fmt: skip
    assert "annotations" not in v1["metadata"]


def test_what_v1_has_no_field_for_is_in_annotations() -> None:
    behavior = {
        "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}
    }
    v2 = autoscaler(metrics=[cpu(type="Utilization", averageUtilization=50), pods()], behavior=behavior)
    v2["status"] = {"conditions": [{"type": "AbleToScale", "status": "True"}]}
    annotations = to_v1(v2)["metadata"]["annotations"]
    assert orjson.loads(annotations[METRICS]) == [
        {"type": "Pods", "pods": {"metricName": "packets", "targetAverageValue": "1k"}}
    ]
    assert orjson.loads(annotations[BEHAVIOR]) == {
        "ScaleUp": {"SelectPolicy": "Max", "Policies": [{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}]}
    }
    assert orjson.loads(annotations[CONDITIONS]) == [{"type": "AbleToScale", "status": "True"}]


def test_annotations_that_cannot_be_read_are_dropped() -> None:
    v1 = {**autoscaler(), "apiVersion": "autoscaling/v1"}
    v1["metadata"] = {"name": "web", "annotations": {METRICS: "{", "other": "kept"}}
    v2 = to_v2(v1)
    assert v2["metadata"]["annotations"] == {"other": "kept"}
    assert "metrics" not in v2["spec"]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["", "Pods", "cpu", "x"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "pods", "resource", "name", "metricName", "selector", "ScaleUp", "Policies", "Type"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(_JSON, _JSON, _JSON)
def test_whatever_annotations_hold_is_answered(metrics: Any, behavior: Any, conditions: Any) -> None:
    v1 = {**autoscaler(), "apiVersion": "autoscaling/v1"}
    texts = {METRICS: metrics, BEHAVIOR: behavior, CONDITIONS: conditions}
    v1["metadata"] = {
        "name": "web",
        "annotations": {key: orjson.dumps(text).decode() for key, text in texts.items()},
    }
    v2 = to_v2(v1)
    HPA.default(v2)
    HPA.validate(v2)
    assert to_v1(v2)["kind"] == "HorizontalPodAutoscaler"
    assert HPA.row is not None
    HPA.row(v2, datetime(2026, 1, 1, tzinfo=UTC))


_AMOUNT = st.sampled_from(["1", "100m", "2Gi"])
_IDENTIFIER = st.sampled_from([{"name": "m"}, {"name": "m", "selector": {"matchLabels": {"a": "b"}}}])


def _average(amount: str) -> Object:
    return {"type": "AverageValue", "averageValue": amount}


_METRICS = st.one_of(
    st.builds(lambda a: {"type": "Resource", "resource": {"name": "memory", "target": _average(a)}}, _AMOUNT),
    st.builds(
        lambda n: {"type": "Resource", "resource": {"name": "cpu", "target": {
            "type": "Utilization", "averageUtilization": n}}},
        st.integers(1, 100),
    ),
    st.builds(
        lambda a: {"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "c", "target": _average(a)}},
        _AMOUNT,
    ),
    st.builds(lambda i, a: {"type": "Pods", "pods": {"metric": i, "target": _average(a)}}, _IDENTIFIER, _AMOUNT),
    st.builds(
        lambda i, a: {"type": "External", "external": {"metric": i, "target": {"type": "Value", "value": a}}},
        _IDENTIFIER, _AMOUNT,
    ),
    st.builds(
        lambda i, a: {"type": "Object", "object": {
            "describedObject": TARGET, "metric": i, "target": {"type": "Value", "value": a}}},
        _IDENTIFIER, _AMOUNT,
    ),
)  # fmt: skip


@given(st.lists(_METRICS, max_size=4))
def test_nothing_is_lost_on_the_way_through_v1(metrics: list[Object]) -> None:
    v2 = defaulted(HPA, autoscaler(metrics=metrics))
    back = to_v2(to_v1(v2))

    def ordered(obj: Object) -> list[bytes]:
        return sorted(orjson.dumps(m, option=orjson.OPT_SORT_KEYS) for m in obj["spec"]["metrics"])

    assert ordered(back) == ordered(v2)
    assert back["metadata"] == v2["metadata"]


def test_defaults_of_v1() -> None:
    v1 = defaulted(HPA_V1, {**autoscaler(), "apiVersion": "autoscaling/v1"})
    assert v1["spec"]["minReplicas"] == 1


# Printed.


@pytest.mark.parametrize(
    ("metrics", "current", "text"),
    [
        ([], [], "<none>"),
        ([cpu(type="Utilization", averageUtilization=80)], [], "cpu: <unknown>/80%"),
        (
            [cpu(type="Utilization", averageUtilization=80)],
            [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}],
            "cpu: 12%/80%",
        ),
        ([pods(), pods("2"), pods("3")], [], "<unknown>/1k, <unknown>/2 + 1 more..."),
        (
            [{"type": "External", "external": {"metric": {"name": "q"}, "target": _average("30")}}],
            [{"type": "External", "external": {"current": {"averageValue": "7"}}}],
            "7/30 (avg)",
        ),
    ],
)
def test_targets(metrics: list[Object], current: list[Object], text: str) -> None:
    assert targets(metrics, current) == text


def test_a_row() -> None:
    made = defaulted(HPA, autoscaler())
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert HPA.row is not None
    assert HPA_V1.row is not None
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    cells = ["web", "Deployment/web", "cpu: <unknown>/80%", "1", "5", 0, "60s"]
    assert list(HPA.row(made, now)) == cells
    assert list(HPA_V1.row(to_v1(made), now)) == cells
