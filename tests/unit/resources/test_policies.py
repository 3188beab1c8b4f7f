"""PodDisruptionBudget, ResourceQuota and LimitRange: defaults, what validation says, rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.resources import defaulted, faults, update_faults

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.resources.catalog import LIMIT_RANGE, POD_DISRUPTION_BUDGET, RESOURCE_QUOTA

NOW = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)


def obj(**spec: Any) -> Object:
    return {"metadata": {"name": "x", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 1, "selector": {}}, []),
        ({"minAvailable": "50%"}, []),
        ({"minAvailable": -1}, ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]),
        ({"maxUnavailable": "120%"}, ["spec.maxUnavailable: Invalid value: 120%: must not be greater than 100%"]),
        (
            {"maxUnavailable": "few"},
            ["spec.maxUnavailable: Invalid value: few: a valid percent string must be a numeric string followed by an "
             "ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"],
        ),
        (
            {"minAvailable": 1, "maxUnavailable": 1},
            ['spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: minAvailable and maxUnavailable cannot be '
             "both set"],
        ),
        (
            {"unhealthyPodEvictionPolicy": "Never"},
            ['spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", '
             '"IfHealthyBudget"'],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_budget(spec: Object, expected: list[str]) -> None:
    assert faults(POD_DISRUPTION_BUDGET, obj(**clone(spec))) == expected


def test_the_row_of_a_budget() -> None:
    made = {**obj(maxUnavailable="20%"), "status": {"disruptionsAllowed": 2}}
    assert POD_DISRUPTION_BUDGET.row is not None
    assert list(POD_DISRUPTION_BUDGET.row(made, NOW)) == ["x", "N/A", "20%", 2, "5m"]


EXISTS = {"operator": "Exists"}
TERMS = "spec.scopeSelector.matchExpressions"


def selector(*terms: Object) -> Object:
    return {"scopeSelector": {"matchExpressions": list(terms)}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hard": {"cpu": "1", "count/widgets.example.com": "3", "requests.example.com/gpu": "1",
                   "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}, []),
        ({"hard": {"apples": "1"}},
         ['spec.hard[apples]: Invalid value: "apples": must be a standard resource for quotas']),
        ({"hard": {"pods": "1500m"}}, ['spec.hard[pods]: Invalid value: "1500m": must be an integer']),
        ({"hard": {"pods": "-1"}},
         ['spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0']),
        ({"scopes": ["Odd"]}, ['spec.scopes: Invalid value: []string{"Odd"}: unsupported scope']),
        ({"scopes": ["BestEffort"], "hard": {"cpu": "1"}},
         ['spec.scopes: Invalid value: []string{"BestEffort"}: unsupported scope applied to resource']),
        ({"scopes": ["BestEffort", "NotBestEffort"]},
         ['spec.scopes: Invalid value: []string{"BestEffort", "NotBestEffort"}: conflicting scopes']),
        (selector({"scopeName": "PriorityClass", "operator": "In"}),
         [f"{TERMS}[0].values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for "
          "scope selector"]),
        (selector({"scopeName": "PriorityClass", "operator": "Maybe"}),
         [f'{TERMS}[0].operator: Invalid value: "Maybe": not a valid selector operator']),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_quota(spec: Object, expected: list[str]) -> None:
    assert faults(RESOURCE_QUOTA, obj(**clone(spec))) == expected


def test_scopes_stay() -> None:
    assert update_faults(RESOURCE_QUOTA, obj(hard={"pods": "2"}), obj(hard={"pods": "1"})) == []
    assert update_faults(RESOURCE_QUOTA, obj(), obj(scopes=["BestEffort"])) == [
        "spec.scopes: Invalid value: []string{}: field is immutable"
    ]


def test_the_row_of_a_quota() -> None:
    amounts = {"limits.cpu": "2", "pods": "5", "requests.cpu": "1"}
    made = {**obj(hard=amounts), "status": {"hard": amounts, "used": {"pods": "3"}}}
    assert RESOURCE_QUOTA.row is not None
    assert list(RESOURCE_QUOTA.row(made, NOW)) == [
        "x",
        "5m",
        "pods: 3/5, requests.cpu: 0/1",
        "limits.cpu: 0/2",
    ]


def limits(type_: str = "Container", **amounts: Any) -> Object:
    return obj(limits=[{"type": type_, **amounts}])


def test_defaults_of_containers() -> None:
    [limit] = defaulted(LIMIT_RANGE, limits(max={"cpu": "2000m"}, min={"cpu": "1", "memory": "1024Ki"}))[
        "spec"
    ]["limits"]
    assert limit["default"] == {"cpu": "2"}
    assert limit["defaultRequest"] == {"cpu": "2", "memory": "1Mi"}
    [limit] = defaulted(LIMIT_RANGE, limits("Pod", max={"cpu": "2"}))["spec"]["limits"]
    assert set(limit) == {"type", "max"}


LIMIT = "spec.limits[0]"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (limits(max={"cpu": "2"}), []),
        (limits("Odd"), [f'{LIMIT}.type: Invalid value: "Odd": must be a standard limit type or fully qualified']),
        (limits("Pod", default={"cpu": "1"}),
         [f"{LIMIT}.default: Forbidden: may not be specified when `type` is 'Pod'"]),
        (limits("Pod", max={"apples": "1"}),
         [f'{LIMIT}.max[apples]: Invalid value: "apples": must be a standard resource for containers']),
        (limits("Pod", min={"cpu": "3"}, max={"cpu": "2"}),
         [f'{LIMIT}.min[cpu]: Invalid value: "3": min value 3 is greater than max value 2']),
        (limits(default={"cpu": "1"}, defaultRequest={"cpu": "2"}),
         [f'{LIMIT}.defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than default limit '
          "value 1"]),
        (limits("Pod", maxLimitRequestRatio={"cpu": "500m"}),
         [f'{LIMIT}.maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1']),
        (limits("Pod", min={"cpu": "1"}, max={"cpu": "2"}, maxLimitRequestRatio={"cpu": "3"}),
         [f'{LIMIT}.maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000']),
        (limits("PersistentVolumeClaim"),
         [f"{LIMIT}.limits: Required value: either minimum or maximum storage value is required, but neither was "
          "provided"]),
        (limits("PersistentVolumeClaim", max={"storage": "1Gi"}), []),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_limit_range(limit: Object, expected: list[str]) -> None:
    assert faults(LIMIT_RANGE, clone(limit)) == expected


def test_one_limit_of_each_type() -> None:
    made = obj(limits=[{"type": "Pod"}, {"type": "Pod"}])
    assert faults(LIMIT_RANGE, made) == ['spec.limits[1].type: Duplicate value: "Pod"']
