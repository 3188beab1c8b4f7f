"""The FlowSchemas and PriorityLevelConfigurations every cluster starts with (apiserver's flow control bootstrap,
v1.32). Those called `exempt` and `catch-all` are mandatory: nobody may change what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.errors import Object

AUTO_UPDATE_ANNOTATION = "apf.kubernetes.io/autoupdate-spec"

_ALL = ("*",)
_LEADER_VERBS = ("get", "create", "update")


def _limited(shares: int, lendable: int, queues: tuple[int, int, int] | None) -> Object:
    """`queues`: how many, hand size, length limit; None rejects instead of queuing."""
    response: Object = {"type": "Reject"}
    if queues is not None:
        number, hand, length = queues
        response = {
            "type": "Queue",
            "queuing": {"queues": number, "handSize": hand, "queueLengthLimit": length},
        }
    return {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": shares,
            "limitResponse": response,
            "lendablePercent": lendable,
        },
    }


LEVEL_SPECS: Mapping[str, Object] = {
    "exempt": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    "catch-all": _limited(5, 0, None),
    "system": _limited(30, 33, (64, 6, 50)),
    "node-high": _limited(40, 25, (64, 6, 50)),
    "leader-election": _limited(10, 0, (16, 4, 50)),
    "workload-high": _limited(40, 50, (128, 6, 50)),
    "workload-low": _limited(100, 90, (128, 6, 50)),
    "global-default": _limited(20, 50, (128, 6, 50)),
}
MANDATORY = ("exempt", "catch-all")


def _groups(*names: str) -> list[Object]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Object]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _system_accounts() -> list[Object]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}]


def _resources(
    verbs: Sequence[str] = _ALL,
    groups: Sequence[str] = _ALL,
    resources: Sequence[str] = _ALL,
    namespaces: Sequence[str] = _ALL,
    *,
    cluster_scope: bool = True,
) -> Object:
    rule: Object = {"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)}
    if cluster_scope:
        rule["clusterScope"] = True
    rule["namespaces"] = list(namespaces)
    return rule


def _paths(verbs: Sequence[str] = _ALL, paths: Sequence[str] = _ALL) -> Object:
    return {"verbs": list(verbs), "nonResourceURLs": list(paths)}


def _schema(
    level: str,
    precedence: int,
    method: str,
    subjects: list[Object],
    resource_rules: list[Object],
    path_rules: list[Object],
) -> Object:
    rule: Object = {"subjects": subjects}
    if resource_rules:
        rule["resourceRules"] = resource_rules
    if path_rules:
        rule["nonResourceRules"] = path_rules
    spec: Object = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    }
    if method:
        spec["distinguisherMethod"] = {"type": method}
    return spec


def _everything(level: str, precedence: int, method: str, subjects: list[Object]) -> Object:
    return _schema(level, precedence, method, subjects, [_resources()], [_paths()])


def _leader_rules(namespace: str) -> list[Object]:
    return [
        _resources(_LEADER_VERBS, ("",), ("endpoints", "configmaps"), (namespace,), cluster_scope=False),
        _resources(_LEADER_VERBS, ("coordination.k8s.io",), ("leases",), cluster_scope=False),
    ]


_USER, _NAMESPACE = "ByUser", "ByNamespace"
_EVERYBODY = ("system:unauthenticated", "system:authenticated")

SCHEMA_SPECS: Mapping[str, Object] = {
    "exempt": _everything("exempt", 1, "", _groups("system:masters")),
    "catch-all": _everything("catch-all", 10000, _USER, _groups(*_EVERYBODY)),
    "system-nodes": _everything("system", 500, _USER, _groups("system:nodes")),
    "system-node-high": _schema(
        "node-high",
        400,
        _USER,
        _groups("system:nodes"),
        [
            _resources(_ALL, ("",), ("nodes", "nodes/status")),
            _resources(_ALL, ("coordination.k8s.io",), ("leases",), cluster_scope=False),
        ],
        [],
    ),
    "probes": _schema(
        "exempt", 2, "", _groups(*_EVERYBODY), [], [_paths(("get",), ("/healthz", "/readyz", "/livez"))]
    ),
    "system-leader-election": _schema(
        "leader-election",
        100,
        _USER,
        [*_users("system:kube-controller-manager", "system:kube-scheduler"), *_system_accounts()],
        _leader_rules("kube-system"),
        [],
    ),
    "endpoint-controller": _schema(
        "workload-high",
        150,
        _USER,
        [
            *_users("system:kube-controller-manager"),
            *(
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}
                for name in ("endpoint-controller", "endpointslicemirroring-controller")
            ),
        ],
        [_resources(_LEADER_VERBS, ("",), ("endpoints",), cluster_scope=False)],
        [],
    ),
    "workload-leader-election": _schema(
        "leader-election", 200, _USER, _system_accounts(), _leader_rules("*"), []
    ),
    "kube-controller-manager": _everything(
        "workload-high", 800, _NAMESPACE, _users("system:kube-controller-manager")
    ),
    "kube-scheduler": _everything("workload-high", 800, _NAMESPACE, _users("system:kube-scheduler")),
    "kube-system-service-accounts": _everything("workload-high", 900, _NAMESPACE, _system_accounts()),
    "service-accounts": _everything("workload-low", 9000, _USER, _groups("system:serviceaccounts")),
    "global-default": _everything("global-default", 9900, _USER, _groups(*_EVERYBODY)),
}


def default_objects(specs: Mapping[str, Object]) -> list[Object]:
    """What to create at the first start."""
    return [
        {"metadata": {"name": name, "annotations": {AUTO_UPDATE_ANNOTATION: "true"}}, "spec": spec}
        for name, spec in specs.items()
    ]
