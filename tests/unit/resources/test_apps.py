import pytest
from support.resources import faults, said, update_faults, workload

from controlplane.resources.catalog import DEPLOYMENT, REPLICA_SET


def templated(**spec):
    obj = workload()
    obj["spec"]["template"]["spec"].update(spec)
    return obj


def rolling(**numbers):
    return workload(strategy={"type": "RollingUpdate", "rollingUpdate": numbers})


MISMATCH = (
    'spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match '
    "template `labels`"
)


@pytest.mark.parametrize(
    "obj",
    [
        workload(),
        workload(strategy={"type": "Recreate"}),
        rolling(maxSurge=1, maxUnavailable=0),
        rolling(maxSurge="0%", maxUnavailable="100%"),
        workload(selector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}),
    ],
)
def test_good_deployments(obj):
    assert faults(DEPLOYMENT, obj) == []


PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
    "regex used for validation is '[0-9]+%')"
)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (workload(replicas=-1), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (workload(selector=None), ["spec.selector: Required value", MISMATCH]),
        (
            workload(selector={}),
            [
                "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), "
                "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for deployment"
            ],
        ),
        (
            workload(selector={"matchLabels": {"app": "other"}}),
            [
                'spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does '
                "not match template `labels`"
            ],
        ),
        (
            workload(template={"spec": {"containers": [{"name": "a", "image": "b"}]}}),
            [
                "spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does "
                "not match template `labels`"
            ],
        ),
        (
            templated(restartPolicy="Never"),
            ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
        ),
        (
            templated(activeDeadlineSeconds=5),
            [
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is "
                "not Supported"
            ],
        ),
        (templated(containers=[]), ["spec.template.spec.containers: Required value"]),
        (
            rolling(maxSurge=0, maxUnavailable=0),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ],
        ),
        (
            rolling(maxSurge=0, maxUnavailable="0%"),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0%: may not be 0 when `maxSurge` is 0"
            ],
        ),
        (
            rolling(maxUnavailable="101%"),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 101%: must not be greater than 100%"
            ],
        ),
        (
            rolling(maxSurge="some"),
            [f"spec.strategy.rollingUpdate.maxSurge: Invalid value: some: {PERCENT}"],
        ),
        (
            rolling(maxSurge=-1),
            [
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"
            ],
        ),
        (
            workload(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            [
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
            ],
        ),
        (
            workload(strategy={"type": "Slow"}),
            [
                'spec.strategy: Unsupported value: apps.DeploymentStrategy{Type:"Slow", '
                'RollingUpdate:(*apps.RollingUpdateDeployment)(nil)}: supported values: "Recreate", '
                '"RollingUpdate"'
            ],
        ),
        (
            workload(minReadySeconds=600),
            ["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        ),
        (
            workload(selector={"matchExpressions": [{"key": "app", "operator": "In"}]}),
            [
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is "
                "'In' or 'NotIn'",
                "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), "
                'MatchExpressions:[]v1.LabelSelectorRequirement{v1.LabelSelectorRequirement{Key:"app", '
                'Operator:"In", Values:[]string(nil)}}}: invalid label selector',
            ],
        ),
    ],
)  # fmt: skip
def test_faults(obj, expected):
    assert faults(DEPLOYMENT, obj) == expected


def test_template_metadata_is_blamed_without_metadata_in_the_path():
    obj = workload()
    obj["spec"]["template"]["metadata"]["annotations"] = {"-": "x"}
    (fault,) = faults(DEPLOYMENT, obj)
    assert fault.startswith('spec.template.annotations: Invalid value: "-": ')


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET])
def test_the_selector_is_immutable(kind):
    new = workload(selector={"matchLabels": {"app": "web", "tier": "x"}})
    assert update_faults(kind, workload(replicas=3), workload()) == []
    assert update_faults(kind, new, workload()) == [
        'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"web", "tier":"x"}, '
        "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    ]


def test_replica_sets_share_the_rules():
    assert faults(REPLICA_SET, workload("ReplicaSet")) == []
    obj = workload("ReplicaSet", replicas=-1, selector={"matchLabels": {"a": "b"}})
    assert len(faults(REPLICA_SET, obj)) == 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}, []),
        (
            {"replicas": 1, "readyReplicas": 2},
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
        ),
        (
            {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
            ["status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"],
        ),
        (
            {"observedGeneration": -1},
            ["status.observedGeneration: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ],
)
def test_status(status, expected):
    for kind in (DEPLOYMENT, REPLICA_SET):
        assert said(kind.validate_status({"status": status}, {})) == expected


def test_create_clears_the_status():
    obj = {**workload(), "status": {"replicas": 5}}
    DEPLOYMENT.prepare_create(obj)
    assert obj["status"] == {}
