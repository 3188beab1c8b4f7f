"""ValidatingAdmissionPolicy on a registry: what is refused, warned about and noted, with which words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.plugin import Remarks
from controlplane.apiserver.admission.policies import ValidatingAdmissionPolicy
from controlplane.apiserver.authz import Attributes, Decision, Verdict
from controlplane.apiserver.registry import Registry, UserInfo, WriteOptions
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.errors import Invalid, StatusError
from controlplane.resources.catalog import (
    CONFIG_MAP,
    DEPLOYMENT,
    KINDS,
    NAMESPACE,
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
)
from controlplane.store.memory import MemoryStore

BOB = UserInfo("bob", groups=("system:authenticated",))


class Paths:
    """An authorizer that lets everybody read paths and nothing else."""

    async def authorize(self, attributes: Attributes) -> Decision:
        info = attributes.info
        allowed = not info.is_resource and info.verb == "get"
        return Decision(Verdict.ALLOW if allowed else Verdict.NO_OPINION)


class Cluster:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.remarks = Remarks()

    async def policy(self, name: str = "p", **spec: Any) -> None:
        await self.create(VALIDATING_ADMISSION_POLICY, policy(name, **spec))

    async def binding(self, policy_name: str = "p", *actions: str, **spec: Any) -> None:
        body = {
            "metadata": {"name": f"{policy_name}-binding"},
            "spec": {"policyName": policy_name, "validationActions": list(actions or ("Deny",)), **spec},
        }
        await self.create(VALIDATING_ADMISSION_POLICY_BINDING, body)

    async def create(self, kind: Any, obj: dict[str, Any], user: UserInfo = BOB) -> None:
        self.remarks = Remarks()
        namespace = "shop" if kind.namespaced else ""
        await self.registry.create(kind, namespace, obj, WriteOptions(user=user, remarks=self.remarks))

    async def refusal(self, kind: Any, obj: dict[str, Any]) -> StatusError:
        with pytest.raises(StatusError) as caught:
            await self.create(kind, obj)
        return caught.value


def policy(name: str = "p", **spec: Any) -> dict[str, Any]:
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    base: dict[str, Any] = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.replicas <= 5"}],
    }
    return {"metadata": {"name": name}, "spec": {**base, **spec}}


def deployment(replicas: int = 9, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", **metadata},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    }


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    seat, kinds = AuthorizerSeat(Paths()), ServedKinds(KINDS)
    registry = Registry(MemoryStore(), kinds, validation=[ValidatingAdmissionPolicy(seat, kinds)])
    await registry.start()
    made = Cluster(registry)
    await made.create(NAMESPACE, {"metadata": {"name": "shop", "labels": {"env": "prod"}}})
    yield made
    await registry.close()


LEAD = "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: "


async def test_the_denial(cluster: Cluster) -> None:
    await cluster.policy()
    await cluster.binding()
    error = await cluster.refusal(DEPLOYMENT, deployment())
    assert error.message == LEAD + "failed expression: object.spec.replicas <= 5"
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.causes[0].message == error.message.partition("is forbidden: ")[2]
    await cluster.create(DEPLOYMENT, deployment(3))


async def test_without_binding_nothing_happens(cluster: Cluster) -> None:
    await cluster.policy()
    await cluster.create(DEPLOYMENT, deployment())


@pytest.mark.parametrize(
    ("validation", "message", "code"),
    [
        ({"message": "too many"}, "too many", 422),
        ({"message": "too many", "reason": "Forbidden"}, "too many", 403),
        ({"reason": "RequestEntityTooLarge"}, "failed expression: object.spec.replicas <= 5", 413),
        (
            {"messageExpression": "'%d is too many'.format([object.spec.replicas])", "message": "m"},
            "9 is too many",
            422,
        ),
        ({"messageExpression": "string(object.spec.none)", "message": "fallback"}, "fallback", 422),
        ({"messageExpression": "'a\\nb'", "message": "fallback"}, "fallback", 422),
        ({"messageExpression": "''"}, "failed expression: object.spec.replicas <= 5", 422),
    ],
)
async def test_messages_and_reasons(
    cluster: Cluster, validation: dict[str, Any], message: str, code: int
) -> None:
    await cluster.policy(validations=[{"expression": "object.spec.replicas <= 5", **validation}])
    await cluster.binding()
    error = await cluster.refusal(DEPLOYMENT, deployment())
    assert (error.message, error.code) == (LEAD + message, code)


async def test_warn_and_audit(cluster: Cluster) -> None:
    await cluster.policy(validations=[{"expression": "object.spec.replicas <= 5", "message": "too many"}])
    await cluster.binding("p", "Warn", "Audit")
    await cluster.create(DEPLOYMENT, deployment())
    assert cluster.remarks.warnings == [
        "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': too many"
    ]
    noted = json.loads(cluster.remarks.annotations["validation.policy.admission.k8s.io/validation_failure"])
    assert noted == [
        {
            "message": "too many",
            "policy": "p",
            "binding": "p-binding",
            "expressionIndex": 0,
            "validationActions": ["Warn", "Audit"],
        }
    ]


async def test_audit_annotations(cluster: Cluster) -> None:
    annotations = [
        {"key": "replicas", "valueExpression": "'has ' + string(object.spec.replicas)"},
        {"key": "none", "valueExpression": "null"},
    ]
    await cluster.policy(validations=[], auditAnnotations=annotations)
    await cluster.binding()
    await cluster.create(DEPLOYMENT, deployment())
    assert cluster.remarks.annotations == {"p/replicas": "has 9"}


@pytest.mark.parametrize(
    ("failure_policy", "expression", "message"),
    [
        (
            "Fail",
            "object.spec.none == 1",
            "expression 'object.spec.none == 1' resulted in error: no such key: none",
        ),
        ("Ignore", "object.spec.none == 1", ""),
        (
            "Fail",
            "variables.bad == 1",
            "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: "
            "no such key: none",
        ),
    ],
)
async def test_errors(cluster: Cluster, failure_policy: str, expression: str, message: str) -> None:
    await cluster.policy(
        failurePolicy=failure_policy,
        variables=[{"name": "bad", "expression": "object.spec.none"}],
        validations=[{"expression": expression}],
    )
    await cluster.binding()
    if not message:
        await cluster.create(DEPLOYMENT, deployment())
        return
    assert (await cluster.refusal(DEPLOYMENT, deployment())).message == LEAD + message


async def test_variables_build_on_each_other(cluster: Cluster) -> None:
    await cluster.policy(
        variables=[
            {"name": "images", "expression": "object.spec.template.spec.containers.map(c, c.image)"},
            {"name": "bad", "expression": "variables.images.filter(i, !i.startsWith('registry/'))"},
        ],
        validations=[
            {"expression": "variables.bad.size() == 0", "messageExpression": "'bad: ' + variables.bad[0]"}
        ],
    )
    await cluster.binding()
    assert (await cluster.refusal(DEPLOYMENT, deployment(1))).message == LEAD + "bad: nginx"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("request.operation == 'CREATE'", True),
        ("request.userInfo.username == 'bob' && 'system:authenticated' in request.userInfo.groups", True),
        ("request.kind.kind == 'Deployment' && request.resource.resource == 'deployments'", True),
        ("request.namespace == 'shop' && request.name == 'web' && !request.dryRun", True),
        ("oldObject == null", True),
        ("namespaceObject.metadata.labels['env'] == 'prod'", True),
        ("namespaceObject.metadata.name == 'other'", False),
        ("namespaceObject.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')", True),
        ("namespaceObject.metadata.UID != ''", True),
        ("object.metadata.name.startsWith('w')", True),
        ("authorizer.group('').resource('pods').check('create').allowed()", False),
        ("authorizer.serviceAccount('a', 'b').path('/api').check('get').allowed()", True),
        ("authorizer.requestResource.check('delete').reason() == ''", True),
        ("!authorizer.group('').resource('pods').check('x').allowed() || object.spec.none", True),
    ],
)
async def test_what_expressions_see(cluster: Cluster, expression: str, expected: bool) -> None:
    await cluster.policy(validations=[{"expression": expression}])
    await cluster.binding()
    if expected:
        await cluster.create(DEPLOYMENT, deployment())
    else:
        await cluster.refusal(DEPLOYMENT, deployment())


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({"matchConditions": [{"name": "m", "expression": "object.metadata.name == 'other'"}]}, False),
        ({"matchConditions": [{"name": "m", "expression": "object.metadata.name == 'web'"}]}, True),
    ],
)
async def test_match_conditions(cluster: Cluster, spec: dict[str, Any], asked: bool) -> None:
    await cluster.policy(**spec)
    await cluster.binding()
    if asked:
        await cluster.refusal(DEPLOYMENT, deployment())
    else:
        await cluster.create(DEPLOYMENT, deployment())


@pytest.mark.parametrize(
    ("match", "asked"),
    [
        ({"namespaceSelector": {"matchLabels": {"env": "prod"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"env": "test"}}}, False),
        ({"objectSelector": {"matchLabels": {"pick": "me"}}}, False),
        ({"excludeResourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
                                    "resources": ["*"], "resourceNames": ["web"]}]}, False),
        ({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["*"],
                             "resources": ["deployments"], "resourceNames": ["other"]}]}, False),
        ({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["*"],
                             "resources": ["*"]}]}, True),
    ],
)  # fmt: skip
async def test_match_resources_of_bindings(cluster: Cluster, match: dict[str, Any], asked: bool) -> None:
    await cluster.policy()
    await cluster.binding(matchResources=match)
    if asked:
        await cluster.refusal(DEPLOYMENT, deployment())
    else:
        await cluster.create(DEPLOYMENT, deployment())


PARAMS = {
    "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
    "validations": [
        {
            "expression": "object.spec.replicas <= int(params.data.max)",
            "messageExpression": "'at most ' + params.data.max",
        }
    ],
}


async def test_params_by_name(cluster: Cluster) -> None:
    await cluster.policy(**PARAMS)
    await cluster.binding(paramRef={"name": "limits", "parameterNotFoundAction": "Deny"})
    error = await cluster.refusal(DEPLOYMENT, deployment())
    assert error.message == LEAD + (
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    )
    await cluster.create(CONFIG_MAP, {"metadata": {"name": "limits"}, "data": {"max": "7"}})
    assert (await cluster.refusal(DEPLOYMENT, deployment())).message == LEAD + "at most 7"
    await cluster.create(DEPLOYMENT, deployment(7))


async def test_params_by_selector(cluster: Cluster) -> None:
    await cluster.policy(**PARAMS)
    ref = {"selector": {"matchLabels": {"l": "x"}}, "parameterNotFoundAction": "Allow", "namespace": "shop"}
    await cluster.binding(paramRef=ref)
    await cluster.create(DEPLOYMENT, deployment())
    for name, maximum in (("a", "20"), ("b", "8")):
        await cluster.create(
            CONFIG_MAP, {"metadata": {"name": name, "labels": {"l": "x"}}, "data": {"max": maximum}}
        )
    assert (await cluster.refusal(DEPLOYMENT, deployment(name="two"))).message.endswith("at most 8")


async def test_unknown_param_kinds(cluster: Cluster) -> None:
    await cluster.policy(**{**PARAMS, "paramKind": {"apiVersion": "x.org/v1", "kind": "Limit"}})
    await cluster.binding(paramRef={"name": "limits", "parameterNotFoundAction": "Deny"})
    error = await cluster.refusal(DEPLOYMENT, deployment())
    assert error.message == LEAD + (
        "failed to configure binding: failed to find resource referenced by paramKind: 'x.org/v1, Kind=Limit'"
    )


async def test_policies_cannot_lock_themselves_in(cluster: Cluster) -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}
    await cluster.policy(
        matchConstraints={"resourceRules": [everything]}, validations=[{"expression": "false"}]
    )
    await cluster.binding()
    await cluster.refusal(CONFIG_MAP, {"metadata": {"name": "x"}})
    await cluster.policy("other")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"validations": [{"expression": "object."}]}, "spec.validations[0].expression: Invalid value: \"object.\": "
         "compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'"),
        ({"validations": [{"expression": "object.a"}]},
         'spec.validations[0].expression: Invalid value: "object.a": must evaluate to bool'),
        ({"validations": [{"expression": "request.nothing == 1"}]},
         'spec.validations[0].expression: Invalid value: "request.nothing == 1": compilation failed: ERROR: '
         "<input>:1:8: undefined field 'nothing'"),
        ({"validations": [{"expression": "params.x == 1"}]},
         'spec.validations[0].expression: Invalid value: "params.x == 1": compilation failed: ERROR: <input>:1:1: '
         "undeclared reference to 'params' (in container '')"),
        ({"validations": [{"expression": "variables.x == 1"}], "variables": [{"name": "x", "expression": "'a'"}]},
         'spec.validations[0].expression: Invalid value: "variables.x == 1": compilation failed: ERROR: <input>:1:13: '
         "found no matching overload for '_==_' applied to '(string, int)'"),
        ({"validations": [{"expression": "true", "reason": "Maybe"}]},
         'spec.validations[0].reason: Unsupported value: "Maybe": supported values: "Forbidden", "Invalid", '
         '"RequestEntityTooLarge"'),
        ({"validations": [{"expression": "true", "messageExpression": "1"}]},
         'spec.validations[0].messageExpression: Invalid value: "1": must evaluate to string'),
        ({"variables": [{"name": "in", "expression": "1"}]},
         'spec.variables[0].name: Invalid value: "in": name is not a valid CEL identifier'),
        ({"matchConstraints": None}, "spec.matchConstraints: Required value"),
        ({"validations": []},
         "spec.validations: Required value: validations or auditAnnotations must contain at least one item"),
        ({"paramKind": {"apiVersion": "a/b/c", "kind": "X"}},
         'spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c'),
    ],
)  # fmt: skip
async def test_policies_are_validated(cluster: Cluster, spec: dict[str, Any], expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        await cluster.policy(**spec)
    cause = caught.value.causes[0]
    assert f"{cause.field}: {cause.message}".startswith(expected)


@pytest.mark.parametrize(
    ("actions", "spec", "expected"),
    [
        (("Deny", "Warn"), {}, "spec.validationActions: Invalid value: []string{\"Deny\", \"Warn\"}: must not contain "
         "both Deny and Warn"),
        (("Shout",), {}, 'spec.validationActions[0]: Unsupported value: "Shout": supported values: "Audit", "Deny", '
         '"Warn"'),
        (("Deny",), {"paramRef": {}}, "spec.paramRef: Required value: one of name or selector must be specified"),
        (("Deny",), {"paramRef": {"name": "x", "parameterNotFoundAction": "Explode"}},
         'spec.paramRef.parameterNotFoundAction: Unsupported value: "Explode": supported values: "Allow", "Deny"'),
        (("Deny",), {"policyName": ""}, "spec.policyName: Required value"),
    ],
)  # fmt: skip
async def test_bindings_are_validated(
    cluster: Cluster, actions: tuple[str, ...], spec: dict[str, Any], expected: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await cluster.binding("p", *actions, **spec)
    cause = caught.value.causes[0]
    assert f"{cause.field}: {cause.message}".startswith(expected)
