"""Type checking of ValidatingAdmissionPolicies, and the status that tells of it."""

from __future__ import annotations

from typing import Any

from support.client_fake import FakeApi
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.policy_status import PolicyStatusController
from controlplane.controllers.policy_status.checking import expression_warnings
from controlplane.resources.catalog import KINDS, VALIDATING_ADMISSION_POLICY


def policy(*expressions: str, resources: tuple[str, ...] = ("deployments",), **spec: Any) -> dict[str, Any]:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": list(resources)}
    return {
        "metadata": {"name": "p", "generation": 1},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression} for expression in expressions],
            **spec,
        },
    }


def test_fields_that_are_not_there() -> None:
    found = expression_warnings(
        policy("object.spec.replicas > 1", "object.foobar > 1", resources=("deployments", "replicasets")),
        KINDS,
    )
    assert found == [
        {
            "fieldRef": "spec.validations[1].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'foobar'\n"
            " | object.foobar > 1\n | ......^\n"
            "apps/v1, Kind=ReplicaSet: ERROR: <input>:1:7: undefined field 'foobar'\n"
            " | object.foobar > 1\n | ......^",
        }
    ]


def test_types_that_do_not_fit() -> None:
    (found,) = expression_warnings(policy("object.spec.replicas == 'many'"), KINDS)
    assert "found no matching overload for '_==_' applied to '(int, string)'" in found["warning"]


def test_maps_lists_and_variables_are_typed() -> None:
    sound = policy(
        "object.metadata.labels['app'] == 'x' && object.spec.selector.matchLabels.all(k, k != '')",
        "variables.names.all(n, n.startsWith('a'))",
        "object.spec.template.spec.containers.all(c, has(c.resources) && c.?image.orValue('') != '')",
        variables=[{"name": "names", "expression": "object.spec.template.spec.containers.map(c, c.name)"}],
    )
    assert expression_warnings(sound, KINDS) == []
    broken = policy("variables.names.all(n, n > 1)", variables=sound["spec"]["variables"])
    assert len(expression_warnings(broken, KINDS)) == 1


def test_wildcards_are_not_checked() -> None:
    assert expression_warnings(policy("object.foobar == 1", resources=("*",)), KINDS) == []


async def test_the_status_follows_the_generation() -> None:
    api = FakeApi()
    client = api.client()
    informers = Informers(client)
    controller = PolicyStatusController(client, informers, KINDS)

    def status() -> dict[str, Any]:
        found = api.get(VALIDATING_ADMISSION_POLICY, "p") or {}
        return found.get("status") or {}

    async with running(informers.run(), controller.run()):
        await client.create(VALIDATING_ADMISSION_POLICY, policy("object.foobar == 1"))
        await until(lambda: status().get("observedGeneration") == 1)
        assert len(status()["typeChecking"]["expressionWarnings"]) == 1
        present = api.get(VALIDATING_ADMISSION_POLICY, "p")
        assert present is not None
        changed = {
            **policy("object.spec.replicas == 1"),
            "metadata": {**present["metadata"], "generation": 2},
        }
        await client.update(VALIDATING_ADMISSION_POLICY, changed)
        await until(lambda: status().get("observedGeneration") == 2)
        assert status()["typeChecking"] == {}
