"""PriorityClass, RuntimeClass, APIService, FlowSchema, PriorityLevelConfiguration, ComponentStatus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.resources import defaulted, faults, said, update_faults

from controlplane.meta.objects import clone
from controlplane.resources.apiregistration import PRIORITIES, local_api_service
from controlplane.resources.catalog import (
    API_SERVICE,
    COMPONENT_STATUS,
    FLOW_SCHEMA,
    PRIORITY_CLASS,
    PRIORITY_LEVEL,
    RUNTIME_CLASS,
)
from controlplane.resources.core.component_status import component
from controlplane.resources.flowcontrol.defaults import LEVEL_SPECS, SCHEMA_SPECS, default_objects
from controlplane.resources.scheduling import SYSTEM_CLASSES

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
STAMP = "2026-01-01T00:00:00Z"
META = {"name": "x", "creationTimestamp": STAMP}
RESERVED = "priority class names with 'system-' prefix are reserved for system use only. error:"


def priority_class(name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"metadata": {**META, "name": name}, **fields}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (priority_class(value=1000000000), []),
        (priority_class(value=-5), []),
        *((known, []) for known in SYSTEM_CLASSES.values()),
        (
            priority_class(value=1000000001),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        (
            priority_class("system-mine"),
            [f"metadata.name: Forbidden: {RESERVED} system-mine is not a known system priority class"],
        ),
        (
            priority_class("system-node-critical", value=1),
            [
                f"metadata.name: Forbidden: {RESERVED} value of system-node-critical PriorityClass must be "
                "2000001000"
            ],
        ),
        (
            priority_class(preemptionPolicy="Sometimes"),
            [
                'preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", '
                '"Never"'
            ],
        ),
    ],
)
def test_faults_of_priority_classes(obj: Any, expected: list[str]) -> None:
    assert faults(PRIORITY_CLASS, obj) == expected


def test_priorities_stay() -> None:
    assert update_faults(PRIORITY_CLASS, priority_class(value=2), priority_class(value=1)) == [
        "value: Forbidden: may not be changed in an update."
    ]
    assert update_faults(PRIORITY_CLASS, priority_class(preemptionPolicy="Never"), priority_class()) == [
        'preemptionPolicy: Invalid value: "Never": field is immutable'
    ]
    assert PRIORITY_CLASS.row is not None
    obj = defaulted(PRIORITY_CLASS, priority_class(value=7, globalDefault=False))
    assert "globalDefault" not in obj
    assert PRIORITY_CLASS.row(obj, NOW) == ("x", 7, False, "60s", "PreemptLowerPriority")


def test_runtime_classes() -> None:
    obj: dict[str, Any] = {"metadata": META, "handler": "kata", "overhead": {"podFixed": {"cpu": "1000m"}}}
    assert faults(RUNTIME_CLASS, obj) == []
    assert defaulted(RUNTIME_CLASS, obj)["overhead"]["podFixed"] == {"cpu": "1"}
    assert faults(RUNTIME_CLASS, {"handler": ""})[0].startswith(
        'handler: Invalid value: "": a lowercase RFC 1123 label'
    )
    toleration = {"key": "a", "operator": "Exists"}
    twice = {**obj, "scheduling": {"tolerations": [toleration, toleration]}}
    assert len(faults(RUNTIME_CLASS, twice)) == 1
    assert faults(RUNTIME_CLASS, twice)[0].startswith("scheduling.tolerations[1]: Duplicate value")
    assert update_faults(RUNTIME_CLASS, {**obj, "handler": "runc"}, obj) == [
        'handler: Invalid value: "runc": field is immutable'
    ]


def api_service(name: str = "v1.example.com", **spec: Any) -> dict[str, Any]:
    base = {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10}
    return {"metadata": {**META, "name": name}, "spec": {**base, **spec}}


REMOTE = {"namespace": "default", "name": "metrics"}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (api_service(), []),
        (api_service(service=REMOTE, insecureSkipTLSVerify=True), []),
        (
            api_service("other"),
            [
                'metadata.name: Invalid value: "other": must be `spec.version+"."+spec.group`: "v1.example.com"'
            ],
        ),
        (
            api_service("v2.", group="", version="v2"),
            ["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
        ),
        (
            api_service(groupPriorityMinimum=20001, versionPriority=0),
            [
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ],
        ),
        (
            api_service(caBundle="YWJj", insecureSkipTLSVerify=True),
            [
                'spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle',
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        ),
        (
            api_service(service=REMOTE, caBundle="YWJj", insecureSkipTLSVerify=True),
            ["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
        ),
        (
            api_service(service={}),
            ["spec.service.namespace: Required value", "spec.service.name: Required value"],
        ),
    ],
)
def test_faults_of_api_services(obj: Any, expected: list[str]) -> None:
    assert faults(API_SERVICE, obj) == expected


def test_rows_of_api_services() -> None:
    assert API_SERVICE.row is not None
    local = local_api_service("apps/v1", PRIORITIES["apps/v1"])
    local["metadata"]["creationTimestamp"] = STAMP
    API_SERVICE.default(local)
    assert faults(API_SERVICE, local) == []
    API_SERVICE.prepare_create(local)
    assert API_SERVICE.row(local, NOW) == ("v1.apps", "Local", "True", "60s")
    remote = api_service(service=REMOTE)
    API_SERVICE.prepare_create(remote)
    assert API_SERVICE.row(remote, NOW) == ("v1.example.com", "default/metrics", "Unknown", "60s")
    remote["status"] = {
        "conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]
    }
    assert API_SERVICE.row(remote, NOW)[2] == "False (MissingEndpoints)"
    bad = {"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}}
    assert said(API_SERVICE.validate_status(bad, {})) == [
        'status.conditions[0].status: Unsupported value: "Maybe": supported values: "True", "False", "Unknown"'
    ]


@pytest.mark.parametrize("kind_and_specs", [(FLOW_SCHEMA, SCHEMA_SPECS), (PRIORITY_LEVEL, LEVEL_SPECS)])
def test_the_first_objects_of_flow_control_are_valid_and_whole(kind_and_specs: Any) -> None:
    kind, specs = kind_and_specs
    for obj in default_objects(specs):
        before = clone(obj["spec"])
        assert faults(kind, obj) == []
        assert defaulted(kind, obj)["spec"] == before


def flow_schema(rule: Any = None, name: str = "x", **spec: Any) -> dict[str, Any]:
    base = {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 5}
    rules = [] if rule is None else [rule]
    return {"metadata": {**META, "name": name}, "spec": {**base, "rules": rules, **spec}}


USER = {"kind": "User", "user": {"name": "u"}}
RESOURCES = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}
RULE = "spec.rules[0]"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (flow_schema({"subjects": [USER], "resourceRules": [RESOURCES]}), []),
        (
            flow_schema(matchingPrecedence=1),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have "
                "matchingPrecedence 1"
            ],
        ),
        (
            flow_schema(matchingPrecedence=10001),
            ["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
        ),
        (
            flow_schema(priorityLevelConfiguration={}),
            ["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
        ),
        (
            flow_schema({}),
            [
                f"{RULE}.subjects: Required value: subjects must contain at least one value",
                f"{RULE}: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        ),
        (
            flow_schema(
                {"subjects": [{"kind": "User", "group": {"name": "g"}}], "resourceRules": [RESOURCES]}
            ),
            [
                f"{RULE}.subjects[0].user: Required value: user is required when subject kind is 'User'",
                f"{RULE}.subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ],
        ),
        (
            flow_schema({"subjects": [USER], "resourceRules": [{**RESOURCES, "namespaces": []}]}),
            [
                f"{RULE}.resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped "
                "must supply at least one namespace"
            ],
        ),
        (
            flow_schema(
                {"subjects": [USER], "nonResourceRules": [{"verbs": ["*", "get"], "nonResourceURLs": ["x"]}]}
            ),
            [
                f'{RULE}.nonResourceRules[0].verbs: Invalid value: []string{{"*", "get"}}: if \'*\' is present, must '
                "not specify other verbs",
                f'{RULE}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: "x": must start with slash',
            ],
        ),
    ],
)
def test_faults_of_flow_schemas(obj: Any, expected: list[str]) -> None:
    assert faults(FLOW_SCHEMA, obj) == expected


def test_mandatory_objects_stay_as_they_are() -> None:
    changed = {
        "metadata": {"name": "catch-all"},
        "spec": {**SCHEMA_SPECS["catch-all"], "matchingPrecedence": 9},
    }
    assert faults(FLOW_SCHEMA, changed)[0].endswith("spec of 'catch-all' must equal the fixed value")


def level(limited: Any, name: str = "x") -> dict[str, Any]:
    return {"metadata": {**META, "name": name}, "spec": {"type": "Limited", "limited": limited}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (level({"limitResponse": {"type": "Queue", "queuing": {}}}), []),
        (
            level({"limitResponse": {"type": "Reject", "queuing": {}}}),
            [
                "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not "
                "Limited"
            ],
        ),
        (
            level({"limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 5}}}),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)"
            ],
        ),
        (
            level({"limitResponse": {"type": "Queue", "queuing": {"queues": 512, "handSize": 8}}}),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize "
                "512 and handSize 8 should not be greater than 60"
            ],
        ),
        (
            {"metadata": META, "spec": {"type": "Exempt"}},
            ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"],
        ),
    ],
)
def test_faults_of_priority_levels(obj: Any, expected: list[str]) -> None:
    assert faults(PRIORITY_LEVEL, obj) == expected


def test_rows_of_component_statuses() -> None:
    assert COMPONENT_STATUS.row is not None
    assert COMPONENT_STATUS.row(component("etcd-0", ""), NOW) == ("etcd-0", "Healthy", "ok", "")
    assert COMPONENT_STATUS.row(component("s", "down"), NOW) == ("s", "Unhealthy", "down", "")
