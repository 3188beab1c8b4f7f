"""A server with its counts, limits, audit log and list of requests, asked over TLS."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from support.apiserver import GUEST_TOKEN, Served, serving
from support.client_wait import until

from controlplane.apiserver.app import ServerConfig
from controlplane.apiserver.flowcontrol.follow import apply_objects
from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.apiserver.metrics.requests import RequestMetrics
from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.passage import begin
from controlplane.apiserver.registry import Registry
from controlplane.resources.catalog import KINDS
from controlplane.store.memory import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"
LIMIT = 20.0


@asynccontextmanager
async def server(directory: Path, settings: OperationSettings | None = None) -> AsyncIterator[Served]:
    registry = Registry(MemoryStore(), KINDS)
    await registry.start()
    config = ServerConfig(operation=settings or OperationSettings())
    try:
        async with serving(registry, directory, config=config) as served:
            yield served
    finally:
        await registry.close()


def config_map(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"k": "v"}}


async def text(api: Served, path: str, **arguments: Any) -> str:
    async with api.session.get(api.url + path, **arguments) as answer:
        assert answer.status == 200
        return await answer.text()


def sample(exposed: str, start: str) -> float:
    for line in exposed.splitlines():
        if line.startswith(start):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no sample {start} in\n{exposed}")


async def test_requests_are_counted_under_upstreams_names(tmp_path: Path) -> None:
    async with server(tmp_path) as api:
        await api.json("POST", MAPS, 201, json=config_map("a"))
        await api.json("GET", f"{MAPS}/a")
        await api.json("GET", f"{MAPS}/none", 404)
        await api.json("GET", "/api/v1/namespaces/default/nonsense", 404)
        exposed = await text(api, "/metrics")
    labels = 'resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"}'
    plain = {
        match[0]: float(match[1])
        for match in re.findall(r"^(apiserver_request_total\{.*\}) (.*)$", exposed, re.MULTILINE)
    }
    found = {
        key: value for key, value in plain.items() if 'resource="configmaps"' in key and 'verb="GET"' in key
    }
    assert sorted(re.findall(r'code="(\d+)"', " ".join(found))) == ["200", "404"], labels
    assert not any("nonsense" in key for key in plain), "clients cannot make up labels"
    assert sample(exposed, 'apiserver_storage_objects{resource="configmaps"}') == 1
    assert sample(exposed, 'apiserver_current_inflight_requests{request_kind="mutating"}') == 0
    assert sample(exposed, "process_resident_memory_bytes") > 1e6
    assert 'le="0.005"' in exposed
    assert "kubernetes_build_info{" in exposed


async def test_open_watches_are_a_gauge(tmp_path: Path) -> None:
    start = 'apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps"'
    async with server(tmp_path) as api:
        async with api.session.get(api.url + MAPS + "?watch=true") as answer:
            assert answer.status == 200
            assert sample(await text(api, "/metrics"), start) == 1
        async with asyncio.timeout(LIMIT):
            while sample(await text(api, "/metrics"), start):
                pass  # each look is a request of its own


def test_a_watch_ends_as_what_it_began_although_its_kind_is_gone() -> None:
    served = True
    metrics = RequestMetrics(lambda info: served)
    watch = begin(ApiRequest("GET", "/apis/example.com/v1/widgets", [("watch", "true")]))
    metrics.begun(watch)
    served = False
    metrics.ended(watch, ApiResponse(200, {}, b""))
    named = {series.description.name: series for series in metrics.series()}
    gauge = named["apiserver_longrunning_requests"]
    assert [sample.value for sample in gauge.collect().samples] == [0]


async def test_openmetrics_on_request_and_slis(tmp_path: Path) -> None:
    async with server(tmp_path) as api:
        exposed = await text(
            api, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert exposed.endswith("# EOF\n")
        await text(api, "/readyz")
        assert (
            sample(await text(api, "/metrics/slis"), 'kubernetes_healthcheck{name="ping",type="readyz"}') == 1
        )


async def test_every_answer_has_an_audit_id(tmp_path: Path) -> None:
    async with server(tmp_path) as api:
        async with api.session.get(api.url + MAPS) as answer:
            assert len(answer.headers["Audit-Id"]) == 36
        async with api.session.get(api.url + MAPS, headers={"Audit-ID": "mine"}) as answer:
            assert answer.headers["Audit-Id"] == "mine"


@pytest.mark.parametrize("query", ["timeout=soon", "timeout=5", "timeout=1x"])
async def test_a_timeout_that_is_no_duration(tmp_path: Path, query: str) -> None:
    async with server(tmp_path) as api:
        status = await api.json("GET", f"{MAPS}?{query}", 400)
        assert status["message"] == "invalid timeout specified in the request URL"


async def test_a_request_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(tmp_path, OperationSettings(request_timeout=0.05)) as api:

        async def never(*arguments: Any) -> None:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(Registry, "get", never)
        status = await api.json("GET", f"{MAPS}/a", 504)
        assert (status["reason"], "did not complete" in status["message"]) == ("Timeout", True)


async def audited(directory: Path, rules: list[dict[str, Any]]) -> tuple[OperationSettings, Path]:
    policy, log = directory / "policy.yaml", directory / "audit" / "audit.log"
    document = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}
    policy.write_text(yaml.safe_dump(document))
    return OperationSettings(audit_policy_file=policy, audit_log_path=log), log


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_the_audit_log_tells_each_stage_at_its_level(tmp_path: Path) -> None:
    rules = [
        {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps"]}]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "None"},
    ]
    settings, log = await audited(tmp_path, rules)
    async with server(tmp_path, settings) as api:
        await api.json("POST", MAPS, 201, json=config_map("a"))
        secret = {"metadata": {"name": "s"}, "stringData": {"password": "hidden"}}
        await api.json("POST", "/api/v1/namespaces/default/secrets", 201, json=secret)
        await api.json("GET", "/api/v1/namespaces/default/pods")
        await api.json("GET", f"{MAPS}/none", 404)
    told = events(log)
    assert [(event["stage"], event["level"]) for event in told[:4]] == [
        ("RequestReceived", "RequestResponse"),
        ("ResponseComplete", "RequestResponse"),
        ("RequestReceived", "Metadata"),
        ("ResponseComplete", "Metadata"),
    ]
    created, gone = told[1], told[-1]
    assert created["objectRef"] == {
        "resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1",
    }  # fmt: skip
    assert created["requestObject"]["data"] == created["responseObject"]["data"] == {"k": "v"}
    assert created["user"]["username"] == "kubernetes-admin"
    assert created["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert created["sourceIPs"] == ["127.0.0.1"]
    assert gone["responseStatus"]["code"] == 404
    assert gone["responseStatus"]["reason"] == "NotFound"
    assert "hidden" not in log.read_text()
    assert not any(event.get("objectRef", {}).get("resource") == "pods" for event in told)
    assert log.stat().st_mode & 0o077 == 0, "bodies may hold secrets"


async def test_a_watch_is_told_when_it_starts_and_when_it_ends(tmp_path: Path) -> None:
    settings, log = await audited(tmp_path, [{"level": "Metadata", "verbs": ["watch"]}])
    async with server(tmp_path, settings) as api:
        async with api.session.get(api.url + MAPS + "?watch=true&timeoutSeconds=1") as answer:
            assert [event["stage"] for event in events(log)] == ["RequestReceived", "ResponseStarted"]
            await answer.read()
        await until(lambda: len(events(log)) == 3, LIMIT)
        assert events(log)[-1]["stage"] == "ResponseComplete"


async def test_refused_credentials_are_told_too(tmp_path: Path) -> None:
    settings, log = await audited(tmp_path, [{"level": "Metadata"}])
    async with server(tmp_path, settings) as api:
        connector = aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(api.url + MAPS) as answer,
        ):
            assert answer.status == 401
    assert events(log)[-1]["responseStatus"]["code"] == 401


async def test_the_list_of_requests(tmp_path: Path) -> None:
    async with server(tmp_path) as api:
        await api.json("GET", f"{MAPS}/none", 404)
        document = await api.json("GET", "/debug/requests")
        (one,) = [record for record in document["latest"] if record["resource"] == "configmaps"]
        assert (one["verb"], one["name"], one["code"], one["user"]) == (
            "get",
            "none",
            404,
            "kubernetes-admin",
        )
        async with api.session.get(api.url + "/debug/requests?follow=true") as following:
            await api.json("POST", MAPS, 201, json=config_map("a"))
            async with asyncio.timeout(LIMIT):
                async for line in following.content:
                    record = json.loads(line)
                    if record["verb"] == "create":
                        break
            assert (record["resource"], record["code"]) == ("configmaps", 201)


async def test_guests_see_neither_counts_nor_requests(tmp_path: Path) -> None:
    async with server(tmp_path) as api:
        connector = aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
        headers = {"Authorization": f"Bearer {GUEST_TOKEN}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            for path in ("/metrics", "/debug/requests", "/metrics/slis"):
                async with session.get(api.url + path) as answer:
                    assert answer.status == 403


def level(name: str, shares: int) -> dict[str, Any]:
    queuing = {"queues": 8, "handSize": 2, "queueLengthLimit": 2}
    limited = {"nominalConcurrencyShares": shares, "limitResponse": {"type": "Queue", "queuing": queuing}}
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {"type": "Limited", "limited": limited}}


async def test_a_flood_gets_429_and_others_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    schema = {
        "metadata": {"name": "all", "uid": "uid-all"},
        "spec": {
            "priorityLevelConfiguration": {"name": "small"},
            "matchingPrecedence": 100,
            "distinguisherMethod": {"type": "ByNamespace"},
            "rules": [{"subjects": [{"kind": "Group", "group": {"name": "*"}}], "resourceRules": [rule]}],
        },
    }
    async with server(tmp_path, OperationSettings(max_requests_inflight=1)) as api:
        apply_objects(api.server.operation.gate, [schema], [level("small", 1)])
        await api.json("POST", MAPS, 201, json=config_map("a"))
        go = asyncio.Event()
        inner = Registry.get

        async def slow(self: Registry, *arguments: Any) -> Any:
            await go.wait()
            return await inner(self, *arguments)

        monkeypatch.setattr(Registry, "get", slow)

        async def one(namespace: str) -> tuple[int, str]:
            path = f"/api/v1/namespaces/{namespace}/configmaps/a"
            async with api.session.get(api.url + path) as answer:
                return answer.status, answer.headers.get("Retry-After", "")

        flood = [asyncio.create_task(one("default")) for _ in range(12)]
        await until(lambda: sum(task.done() for task in flood) == 12 - 5, LIMIT)
        modest = asyncio.create_task(one("other"))
        await until(lambda: api.server.operation.gate.levels["small"].waiting == 5, LIMIT)
        go.set()
        answers = await asyncio.gather(*flood)
        assert sorted(answers) == [(200, "")] * 5 + [(429, "1")] * 7
        assert (await modest)[0] == 404, "the other namespace's request was answered"
        exposed = await text(api, "/metrics")
        assert sample(exposed, "apiserver_flowcontrol_rejected_requests_total{") == 7
