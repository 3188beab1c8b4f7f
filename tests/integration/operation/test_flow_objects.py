"""FlowSchemas and PriorityLevelConfigurations of a running server: they decide from the moment they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import GUEST_TOKEN, Served, cluster

from controlplane.apiserver.authz.modes import AuthorizationSettings, Mode

BASE = "/apis/flowcontrol.apiserver.k8s.io/v1"
SCHEMAS, LEVELS = f"{BASE}/flowschemas", f"{BASE}/prioritylevelconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with cluster(tmp_path, settings=AuthorizationSettings((Mode.ALWAYS_ALLOW,))) as served:
        yield served


def level(name: str, shares: int) -> dict[str, Any]:
    limited = {"nominalConcurrencyShares": shares, "limitResponse": {"type": "Reject"}}
    return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}


def schema(name: str, to: str, user: str, precedence: int = 1000) -> dict[str, Any]:
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    subject = {"kind": "User", "user": {"name": user}}
    return {
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": to},
            "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [subject], "resourceRules": [rule]}],
        },
    }


@asynccontextmanager
async def guest(api: Served) -> AsyncIterator[aiohttp.ClientSession]:
    """The user bob."""
    connector = aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
    headers = {"Authorization": f"Bearer {GUEST_TOKEN}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield session


async def place(api: Served, session: aiohttp.ClientSession) -> tuple[str, str]:
    """The names of the schema and the level that an answer's headers name."""
    async with session.get(api.url + MAPS) as answer:
        assert answer.status == 200
        told = (
            answer.headers["X-Kubernetes-PF-FlowSchema-UID"],
            answer.headers["X-Kubernetes-PF-PriorityLevel-UID"],
        )
    schemas, levels = (await api.json("GET", SCHEMAS))["items"], (await api.json("GET", LEVELS))["items"]
    by_uid = {obj["metadata"]["uid"]: obj["metadata"]["name"] for obj in (*schemas, *levels)}
    return by_uid[told[0]], by_uid[told[1]]


async def test_objects_decide_at_once(api: Served) -> None:
    async with guest(api) as bob:
        assert await place(api, bob) == ("global-default", "global-default")
        assert await place(api, api.session) == ("exempt", "exempt")
        await api.json("POST", LEVELS, 201, json=level("own", 10))
        await api.json("POST", SCHEMAS, 201, json=schema("bob", "own", "bob"))
        assert await place(api, bob) == ("bob", "own")
        await api.json("DELETE", f"{LEVELS}/own")
        assert await place(api, bob) == ("global-default", "global-default")
        await api.json("POST", LEVELS, 201, json=level("own", 10))
        assert await place(api, bob) == ("bob", "own")
        await api.json("DELETE", f"{SCHEMAS}/bob")
        assert await place(api, bob) == ("global-default", "global-default")


@pytest.mark.parametrize(
    ("user", "groups", "path", "expected"),
    [
        ("system:node:node1", ["system:nodes"], "/api/v1/nodes/node1", "system-node-high"),
        ("system:node:node1", ["system:nodes"], "/api/v1/pods", "system-nodes"),
        ("system:kube-scheduler", [], "/api/v1/pods", "kube-scheduler"),
        (
            "system:kube-controller-manager",
            [],
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kcm",
            "system-leader-election",
        ),
        (
            "system:serviceaccount:default:app",
            ["system:serviceaccounts", "system:serviceaccounts:default"],
            "/api/v1/pods",
            "service-accounts",
        ),
        (
            "system:serviceaccount:kube-system:gc",
            ["system:serviceaccounts", "system:serviceaccounts:kube-system"],
            "/api/v1/pods",
            "kube-system-service-accounts",
        ),
        ("ann", [], "/healthz", "probes"),
        ("ann", [], "/version", "global-default"),
    ],
)
async def test_the_default_schemas(
    api: Served, user: str, groups: list[str], path: str, expected: str
) -> None:
    headers = [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)]
    async with api.session.get(api.url + path, headers=headers) as answer:
        uid = answer.headers["X-Kubernetes-PF-FlowSchema-UID"]
    assert uid == (await api.json("GET", f"{SCHEMAS}/{expected}"))["metadata"]["uid"]


async def test_a_schema_without_its_level_dangles(api: Served) -> None:
    await api.json("POST", SCHEMAS, 201, json=schema("bob", "own", "bob"))
    query = "?watch=1&fieldSelector=metadata.name=bob"
    wanted = ["True", "False", "True"]
    async with asyncio.timeout(10), api.session.get(api.url + SCHEMAS + query) as answer:
        async for line in answer.content:
            conditions = json.loads(line)["object"].get("status", {}).get("conditions") or [{}]
            if conditions[0].get("status") != wanted[0]:
                continue
            del wanted[0]
            if len(wanted) == 2:
                assert conditions[0]["reason"] == "NotFound"
                assert conditions[0]["message"] == (
                    'This FlowSchema references the PriorityLevelConfiguration object named "own" but there is no such '
                    "object"
                )
                await api.json("POST", LEVELS, 201, json=level("own", 10))
            elif wanted:
                assert conditions[0]["reason"] == "Found"
                await api.json("DELETE", f"{LEVELS}/own")
            else:
                return


async def test_suggested_objects_may_be_taken_over(api: Served) -> None:
    async def change(name: str, annotation: str) -> dict[str, Any]:
        patch = {
            "metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": annotation}},
            "spec": {"matchingPrecedence": 9000},
        }
        headers = {"Content-Type": "application/merge-patch+json"}
        body = json.dumps(patch)
        found: dict[str, Any] = await api.json("PATCH", f"{SCHEMAS}/{name}", data=body, headers=headers)
        return found

    assert (await change("service-accounts", "false"))["spec"]["matchingPrecedence"] == 9000
    await change("global-default", "true")
    async with asyncio.timeout(10):
        while (await api.json("GET", f"{SCHEMAS}/global-default"))["spec"]["matchingPrecedence"] != 9900:
            pass  # each look is a request of its own
    stored = await api.json("GET", f"{SCHEMAS}/service-accounts")
    assert stored["spec"]["matchingPrecedence"] == 9000


async def test_counts_of_the_servers_parts(api: Served) -> None:
    async with guest(api) as bob:
        await place(api, bob)
        async with bob.get(api.url + MAPS, headers={"Authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401
    async with api.session.get(f"{api.url}{MAPS}?watch=1") as answer:
        await api.json("POST", MAPS, 201, json={"metadata": {"name": "a"}})
        assert b"ADDED" in await answer.content.readline()
        async with api.session.get(f"{api.url}/metrics") as exposed:
            lines = (await exposed.text()).splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    assert values['authentication_attempts_total{result="failure"}'] == 1
    assert values['authentication_attempts_total{result="success"}'] > 3
    assert values['authorization_attempts_total{result="allowed"}'] > 3
    assert values['apiserver_watch_events_total{group="",kind="ConfigMap",version="v1"}'] >= 1
    async with api.session.get(f"{api.url}/debug/api_priority_and_fairness/dump_priority_levels") as answer:
        rows = [[cell.strip() for cell in row.split(",")] for row in (await answer.text()).splitlines()]
    assert rows[0][:3] == ["PriorityLevelName", "ActiveQueues", "IsIdle"]
    by_name = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    assert len(by_name) == 8
    assert by_name["exempt"]["ExecutingRequests"] == "1", "this one: a watch that has begun holds no seat"
    assert int(by_name["global-default"]["DispatchedRequests"]) >= 1
