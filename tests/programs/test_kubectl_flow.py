"""Priority and fairness as kubectl meets it: an answer 429 says when to come again, and kubectl does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.apiserver import Served
from support.client_wait import until
from support.kubectl import Kubectl

pytestmark = pytest.mark.kubectl

LIMIT = 20.0
LEVEL = {
    "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
    "kind": "PriorityLevelConfiguration",
    "metadata": {"name": "narrow"},
    "spec": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}},
    },
}


def schema(user: str) -> dict[str, Any]:
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "narrow"},
        "spec": {
            "priorityLevelConfiguration": {"name": "narrow"},
            "matchingPrecedence": 50,
            "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [rule]}],
        },
    }


async def test_kubectl_comes_again_when_it_is_sent_away(api: Served, kubectl: Kubectl) -> None:
    for name, obj in (("level", LEVEL), ("schema", schema("ann"))):
        await kubectl("create", "-f", kubectl.write(f"{name}.json", json.dumps(obj)))
    listed = (await kubectl("get", "flowschemas", "narrow", "--no-headers")).split()
    assert listed[:4] == ["narrow", "narrow", "50", "<none>"]
    assert listed[-1] == "False"
    await kubectl("create", "rolebinding", "ann", "--clusterrole=view", "--user=ann")
    gate = api.server.operation.gate
    seats = gate.levels["narrow"].config.seats
    taken = [await gate.levels["narrow"].enter("other", 1, 1.0) for _ in range(seats)]
    asking = asyncio.create_task(kubectl.run("get", "configmaps", "-o", "name", "--as=ann"))
    await until(lambda: sum(gate.rejected.values()) > 0, LIMIT)
    for width in taken:
        gate.levels["narrow"].leave(width)
    result = await asking
    assert result.code == 0, result.err
    metrics = await kubectl("get", "--raw", "/metrics")
    start = 'apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow"'
    assert any(line.startswith(start) for line in metrics.splitlines())
