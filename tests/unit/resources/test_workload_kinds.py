"""DaemonSet, StatefulSet, ControllerRevision, ReplicationController, PodTemplate: defaults, rules, columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.resources import container, defaulted, faults, said, update_faults, workload

from controlplane.apiserver.registry.deletion_rules import Verdict, decide
from controlplane.apiserver.registry.requests import DeleteOptions, Propagation
from controlplane.errors import Object
from controlplane.meta.objects import annotations, clone
from controlplane.resources.catalog import (
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    POD_TEMPLATE,
    REPLICA_SET,
    REPLICATION_CONTROLLER,
    STATEFUL_SET,
)
from controlplane.resources.table import table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GENERATION = "deprecated.daemonset.template.generation"
PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
    "regex used for validation is '[0-9]+%')"
)
NO_SELECTOR = (
    "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), "
    "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for "
)
MISMATCH = (
    'spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match '
    "template `labels`"
)


def daemons(**spec: Any) -> Object:
    return workload("DaemonSet", **spec)


def rolling(**numbers: Any) -> Object:
    return daemons(updateStrategy={"type": "RollingUpdate", "rollingUpdate": numbers})


def stateful(**spec: Any) -> Object:
    return workload("StatefulSet", **spec)


def controller(**spec: Any) -> Object:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container()]}}
    return {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": labels, "template": template, **spec},
    }


def changed(obj: Object, **pod_spec: Any) -> Object:
    copy = clone(obj)
    copy["spec"]["template"]["spec"].update(pod_spec)
    return copy


def test_defaults_of_a_daemon_set() -> None:
    spec = defaulted(DAEMON_SET, daemons())["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
    }
    assert spec["revisionHistoryLimit"] == 10
    assert defaulted(DAEMON_SET, daemons(updateStrategy={"type": "OnDelete"}))["spec"]["updateStrategy"] == {
        "type": "OnDelete"
    }


def test_defaults_of_a_stateful_set() -> None:
    claim = {"metadata": {"name": "www"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}}}
    spec = defaulted(STATEFUL_SET, stateful(volumeClaimTemplates=[claim]))["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert spec["podManagementPolicy"] == "OrderedReady"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert (spec["replicas"], spec["revisionHistoryLimit"]) == (1, 10)
    assert spec["volumeClaimTemplates"] == [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "www", "creationTimestamp": None},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"},
            "status": {"phase": "Pending"},
        }
    ]
    bare = defaulted(STATEFUL_SET, stateful(updateStrategy={"type": "RollingUpdate"}))
    assert bare["spec"]["updateStrategy"] == {"type": "RollingUpdate"}


def test_a_replication_controller_takes_selector_and_labels_from_its_template() -> None:
    obj = controller()
    del obj["spec"]["selector"]
    found = defaulted(REPLICATION_CONTROLLER, obj)
    assert found["spec"]["selector"] == found["metadata"]["labels"] == {"app": "web"}
    assert found["spec"]["replicas"] == 1
    assert faults(REPLICATION_CONTROLLER, obj) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (REPLICA_SET, {"replicas": 0}),
        (REPLICATION_CONTROLLER, {"replicas": 0}),
        (STATEFUL_SET, {"replicas": 0, "availableReplicas": 0}),
        (
            DAEMON_SET,
            {
                "currentNumberScheduled": 0,
                "numberMisscheduled": 0,
                "desiredNumberScheduled": 0,
                "numberReady": 0,
            },
        ),
    ],
)
def test_the_status_of_a_new_object(kind: Any, expected: Object) -> None:
    obj = {**workload(), "status": {"replicas": 7, "conditions": []}}
    kind.prepare_create(obj)
    assert obj["status"] == expected


def test_the_server_counts_the_templates_of_a_daemon_set() -> None:
    first = defaulted(DAEMON_SET, daemons())
    first["metadata"]["annotations"] = {GENERATION: "41", "mine": "x"}
    DAEMON_SET.prepare_create(first)
    assert annotations(first) == {GENERATION: "1", "mine": "x"}
    scaled = defaulted(DAEMON_SET, daemons(minReadySeconds=5))
    DAEMON_SET.prepare_update(scaled, first)
    assert annotations(scaled) == {GENERATION: "1"}
    other = defaulted(DAEMON_SET, changed(daemons(), hostNetwork=True))
    DAEMON_SET.prepare_update(other, first)
    assert annotations(other) == {GENERATION: "2"}


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        (DAEMON_SET, daemons()),
        (DAEMON_SET, daemons(updateStrategy={"type": "OnDelete"})),
        (DAEMON_SET, rolling(maxUnavailable="10%")),
        (DAEMON_SET, rolling(maxUnavailable=0, maxSurge="100%")),
        (STATEFUL_SET, stateful()),
        (STATEFUL_SET, stateful(podManagementPolicy="Parallel", ordinals={"start": 3})),
        # What mounts a claim template's volume is not looked at.
        (
            STATEFUL_SET,
            changed(stateful(), containers=[container(volumeMounts=[{"name": "www", "mountPath": "/www"}])]),
        ),
        (REPLICATION_CONTROLLER, controller(replicas=0)),
        (CONTROLLER_REVISION, {"metadata": {"name": "a"}, "data": {}, "revision": 0}),
        (POD_TEMPLATE, {"metadata": {"name": "a"}, "template": {"spec": {"containers": [container()]}}}),
    ],
)
def test_good_objects(kind: Any, obj: Object) -> None:
    assert faults(kind, obj) == []


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            daemons(selector=None),
            [MISMATCH],
        ),
        (daemons(selector={}), [f"{NO_SELECTOR}daemonset"]),
        (daemons(selector={"matchLabels": {"app": "other"}}), [MISMATCH]),
        (
            changed(daemons(), restartPolicy="Never"),
            ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
        ),
        (
            changed(daemons(), activeDeadlineSeconds=5),
            [
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not "
                "Supported"
            ],
        ),
        (
            rolling(maxUnavailable=1, maxSurge=1),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when "
                "maxUnavailable is non-zero"
            ],
        ),
        (
            rolling(maxUnavailable=0),
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ],
        ),
        (
            rolling(maxUnavailable="a lot"),
            [
                f"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: a lot: {PERCENT}",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        ),
        (
            rolling(maxUnavailable="101%"),
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 101%: must not be greater than "
                "100%"
            ],
        ),
        (
            daemons(updateStrategy={"type": "Sometimes"}),
            [
                'spec.updateStrategy: Unsupported value: apps.DaemonSetUpdateStrategy{Type:"Sometimes", '
                "RollingUpdate:(*apps.RollingUpdateDaemonSet)(nil)}: supported values: "
                '"RollingUpdate", "OnDelete"'
            ],
        ),
        (
            daemons(revisionHistoryLimit=-1, minReadySeconds=-1),
            [
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
    ],
)
def test_bad_daemon_sets(obj: Object, expected: list[str]) -> None:
    assert faults(DAEMON_SET, obj) == expected


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            stateful(podManagementPolicy="Random"),
            ["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'"],
        ),
        (
            stateful(updateStrategy={"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            [
                "spec.updateStrategy.rollingUpdate: Invalid value: apps.RollingUpdateStatefulSetStrategy"
                "{Partition:1, MaxUnavailable:(*intstr.IntOrString)(nil)}: only allowed for updateStrategy "
                "'RollingUpdate'"
            ],
        ),
        (
            stateful(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": -1}}),
            [
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"
            ],
        ),
        (
            stateful(updateStrategy={"type": "Later"}),
            [
                'spec.updateStrategy: Invalid value: apps.StatefulSetUpdateStrategy{Type:"Later", '
                "RollingUpdate:(*apps.RollingUpdateStatefulSetStrategy)(nil)}: must be 'RollingUpdate' or "
                "'OnDelete'"
            ],
        ),
        (
            stateful(persistentVolumeClaimRetentionPolicy={"whenScaled": "Keep"}),
            [
                'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Keep": supported '
                'values: "Retain", "Delete"'
            ],
        ),
        (
            stateful(replicas=-1, ordinals={"start": -2}),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -2: must be greater than or equal to 0",
            ],
        ),
        (stateful(selector=None), ["spec.selector: Required value", MISMATCH]),
        (stateful(selector={}), [f"{NO_SELECTOR}statefulset"]),
        (stateful(selector={"matchLabels": {"app": "other"}}), [MISMATCH]),
        (
            changed(stateful(), restartPolicy="Never", activeDeadlineSeconds=1),
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not "
                "Supported",
            ],
        ),
    ],
)
def test_bad_stateful_sets(obj: Object, expected: list[str]) -> None:
    assert faults(STATEFUL_SET, obj) == expected


def test_stateful_sets_are_named_like_hosts() -> None:
    assert STATEFUL_SET.validate_name is not None
    assert list(STATEFUL_SET.validate_name("web")) == []
    assert list(STATEFUL_SET.validate_name("a.b")) == ["must not contain dots"]


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            controller(template=None, selector=None),
            ["spec.selector: Required value", "spec.template: Required value"],
        ),
        (controller(selector={"app": "other"}), [MISMATCH]),
        (controller(replicas=-1), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            changed(controller(), restartPolicy="OnFailure"),
            ['spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"'],
        ),
    ],
)
def test_bad_replication_controllers(obj: Object, expected: list[str]) -> None:
    assert faults(REPLICATION_CONTROLLER, obj) == expected


def test_warnings() -> None:
    dotted = {**workload(), "metadata": {"name": "a.b"}}
    for kind in (DEPLOYMENT, REPLICA_SET, REPLICATION_CONTROLLER):
        assert list(kind.warnings(dotted, None)) == [
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a "
            "DNS label is recommended: [must not contain dots]"
        ]
        assert not kind.warnings(dotted, dotted)
        assert not kind.warnings(workload(), None)
    assert list(STATEFUL_SET.warnings(stateful(revisionHistoryLimit=-1), None)) == [
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
    ]
    assert not STATEFUL_SET.warnings(stateful(), None)


def test_bad_controller_revisions() -> None:
    assert faults(CONTROLLER_REVISION, {"metadata": {"name": "a"}, "revision": -1}) == [
        "data: Required value: data is mandatory",
        "revision: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_what_may_not_change() -> None:
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}
    assert [
        each.split(":")[0] for each in update_faults(DAEMON_SET, daemons(selector=selector), daemons())
    ] == ["spec.selector"]
    forbidden = (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    )
    for spec in (
        {"selector": selector},
        {"serviceName": "other"},
        {"podManagementPolicy": "Parallel"},
        {"revisionHistoryLimit": 3},
        {"volumeClaimTemplates": [{"metadata": {"name": "www"}}]},
    ):
        assert update_faults(STATEFUL_SET, stateful(**spec), stateful()) == [forbidden]
    free = stateful(
        replicas=5,
        ordinals={"start": 1},
        minReadySeconds=3,
        updateStrategy={"type": "OnDelete"},
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete"},
    )
    assert update_faults(STATEFUL_SET, changed(free, hostNetwork=True), stateful()) == []
    assert update_faults(REPLICATION_CONTROLLER, controller(selector={"app": "x"}), controller()) == []
    old = {"metadata": {"name": "a"}, "data": {"a": 1}, "revision": 1}
    assert update_faults(CONTROLLER_REVISION, {**old, "revision": 2}, old) == []
    assert update_faults(CONTROLLER_REVISION, {**old, "data": {"a": 2}}, old) == [
        'data: Invalid value: {"a":2}: field is immutable'
    ]


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (
            STATEFUL_SET,
            {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "collisionCount": 1},
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented",
            ],
        ),
        (
            DAEMON_SET,
            {"numberReady": -1, "numberAvailable": -2},
            [
                "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
                "status.numberAvailable: Invalid value: -2: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ],
        ),
        (
            REPLICATION_CONTROLLER,
            {"replicas": 1, "readyReplicas": 1, "availableReplicas": 2},
            [
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
            ],
        ),
    ],
)
def test_bad_status(kind: Any, status: Object, expected: list[str]) -> None:
    old = {"status": {"collisionCount": 2}}
    assert said(kind.validate_status({"status": status}, old)) == expected


def test_node_fields_of_affinity() -> None:
    def wanting(key: str, operator: str, *values: str) -> Object:
        field = {"key": key, "operator": operator, "values": list(values)}
        terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        return changed(daemons(), affinity=affinity)

    place = (
        "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        ".nodeSelectorTerms[0].matchFields[0]"
    )
    assert faults(DAEMON_SET, wanting("metadata.name", "In", "node1")) == []
    assert faults(DAEMON_SET, wanting("metadata.name", "In", "node1", "node2")) == [
        f"{place}.values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node "
        "field selector"
    ]
    assert faults(DAEMON_SET, wanting("metadata.uid", "Exists")) == [
        f'{place}.operator: Invalid value: "Exists": not a valid selector operator',
        f'{place}.key: Invalid value: "metadata.uid": not a valid field selector key',
    ]


def test_rows() -> None:
    def cells(kind: Any, obj: Object) -> list[object]:
        found: list[object] = table(kind, [obj], NOW)["rows"][0]["cells"]
        return found

    born = {"name": "web", "creationTimestamp": "2026-01-01T23:59:00Z"}
    agents = {**changed(daemons(), nodeSelector={"disk": "fast"}), "metadata": born}
    agents["status"] = {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1}
    assert cells(DAEMON_SET, agents) == [
        "web", 3, 2, 1, 0, 0, "disk=fast", "60s", "web", "nginx:1.27", "app=web",
    ]  # fmt: skip
    peers = {**stateful(replicas=3), "metadata": born, "status": {"readyReplicas": 2}}
    assert cells(STATEFUL_SET, peers) == ["web", "2/3", "60s", "web", "nginx:1.27"]
    old = {**controller(replicas=3), "metadata": born, "status": {"replicas": 2, "readyReplicas": 1}}
    assert cells(REPLICATION_CONTROLLER, old) == ["web", 3, 2, 1, "60s", "web", "nginx:1.27", "app=web"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "controller": True}
    revision = {"metadata": {**born, "ownerReferences": [owner]}, "revision": 4}
    assert cells(CONTROLLER_REVISION, revision) == ["web", "daemonset.apps/agent", 4, "60s"]
    assert cells(CONTROLLER_REVISION, {"metadata": born}) == ["web", "<none>", 0, "60s"]
    template = {"metadata": born, "template": controller()["spec"]["template"]}
    assert cells(POD_TEMPLATE, template) == ["web", "web", "nginx:1.27", "app=web"]


@pytest.mark.parametrize(
    ("kind", "finalizers", "propagation", "expected"),
    [
        (REPLICATION_CONTROLLER, [], None, ["orphan"]),
        (REPLICATION_CONTROLLER, ["foregroundDeletion"], None, ["foregroundDeletion"]),
        (REPLICATION_CONTROLLER, [], Propagation.FOREGROUND, ["foregroundDeletion"]),
        (REPLICATION_CONTROLLER, [], Propagation.BACKGROUND, None),
        (REPLICA_SET, [], None, None),
    ],
)
def test_a_replication_controller_leaves_its_pods_unless_told_otherwise(
    kind: Any, finalizers: list[str], propagation: Propagation | None, expected: list[str] | None
) -> None:
    obj = {"metadata": {"name": "web", "finalizers": finalizers}}
    verdict, new = decide(kind, obj, DeleteOptions(propagation=propagation), NOW)
    if expected is None:
        assert verdict is Verdict.REMOVE
    else:
        assert (verdict, new["metadata"]["finalizers"]) == (Verdict.UPDATE, expected)
