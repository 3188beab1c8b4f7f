"""Versions that another API server serves: who may ask, what it is told, what is seen when it does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import GUEST_TOKEN, TOKEN, Served, cluster
from support.extension import ADDRESS, GROUP, NAMESPACE, ROOT, SERVICE, VERSION, Extension, extension_server
from yarl import URL

from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.user import UserInfo

NAME = f"{VERSION}.{GROUP}"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
FLUNDERS = f"{ROOT}/namespaces/default/flunders"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.fixture
async def extension(tmp_path: Path) -> AsyncIterator[Extension]:
    async with extension_server(tmp_path) as server:
        yield server


@pytest.fixture
async def api(tmp_path: Path, extension: Extension) -> AsyncIterator[Served]:
    async with cluster(tmp_path, extension.dial) as served:
        yield served


async def available(api: Served, status: str, reason: str, name: str = NAME) -> str:
    """Wait until the condition says so; returns its message."""
    query = f"?watch=1&fieldSelector=metadata.name={name}"
    async with asyncio.timeout(10), api.session.get(api.url + API_SERVICES + query) as answer:
        async for line in answer.content:
            conditions = json.loads(line)["object"]["status"].get("conditions") or [{}]
            if (conditions[0].get("status"), conditions[0].get("reason")) == (status, reason):
                return str(conditions[0]["message"])
    raise AssertionError("the watch ended")


async def backed(api: Served, extension: Extension) -> None:
    """The namespace and the Service with an endpoint."""
    await api.json("POST", "/api/v1/namespaces", 201, json={"metadata": {"name": NAMESPACE}})
    base = f"/api/v1/namespaces/{NAMESPACE}"
    await api.json("POST", f"{base}/services", 201, json=extension.service())
    await api.json("POST", f"{base}/endpoints", 201, json=extension.endpoints())


async def registered(api: Served, extension: Extension, **changes: Any) -> None:
    await backed(api, extension)
    await api.json("POST", API_SERVICES, 201, json=extension.api_service(**changes))
    await available(api, "True", "Passed")


async def test_objects_are_made_read_and_deleted_over_there(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    made = await api.json("POST", FLUNDERS, 201, json={"metadata": {"name": "a"}})
    assert made["kind"] == "Flunder"
    assert [item["metadata"]["name"] for item in (await api.json("GET", FLUNDERS))["items"]] == ["a"]
    refused = await api.json("POST", FLUNDERS, 409, json={"metadata": {"name": "a"}})
    assert refused["reason"] == "AlreadyExists"
    assert (await api.json("DELETE", f"{FLUNDERS}/a"))["status"] == "Success"
    assert (await api.json("GET", f"{FLUNDERS}/a", 404))["message"] == f'flunders.{GROUP} "a" not found'


async def test_who_asks_is_told_and_nothing_secret_goes_along(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "X-Remote-User": "intruder",
        "X-Remote-Group": "system:masters",
        "X-Remote-Extra-Scope": "all",
        "Impersonate-User": "ann",
        "Impersonate-Group": "system:masters",
        "Impersonate-Extra-scopes%2fone": "view",
        "X-Forwarded-For": "1.2.3.4",
        "X-Own": "kept",
    }
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))) as s,
        s.get(f"{api.url}{FLUNDERS}?labelSelector=a%3Db&x=1", headers=headers) as answer,
    ):
        assert answer.status == 200
    seen = extension.asked[-1]
    assert seen.headers.getall("X-Remote-User") == ["ann"]
    assert seen.headers.getall("X-Remote-Group") == ["system:masters", "system:authenticated"]
    assert {name: value for name, value in seen.headers.items() if name.startswith("X-Remote-Extra")} == {
        "X-Remote-Extra-scopes%2Fone": "view"
    }
    assert seen.headers["X-Own"] == "kept"
    assert seen.headers.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert not [name for name in seen.headers if name.lower().startswith(("authorization", "impersonate"))]
    assert dict(seen.query) == {"labelSelector": "a=b", "x": "1"}


async def test_this_server_authorizes_first(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
    ) as s:
        async with s.get(api.url + FLUNDERS, headers={"Authorization": f"Bearer {GUEST_TOKEN}"}) as answer:
            assert answer.status == 403
            assert "cannot list resource" in (await answer.json())["message"]
        async with s.get(api.url + FLUNDERS) as answer:
            assert answer.status == 401
    assert extension.asked == []


@pytest.mark.parametrize("service", [False, True])
async def test_without_a_server_behind_it(api: Served, extension: Extension, service: bool) -> None:
    if service:
        await api.json("POST", "/api/v1/namespaces", 201, json={"metadata": {"name": NAMESPACE}})
        base = f"/api/v1/namespaces/{NAMESPACE}"
        await api.json("POST", f"{base}/services", 201, json=extension.service())
    await api.json("POST", API_SERVICES, 201, json=extension.api_service())
    if not service:
        message = await available(api, "False", "ServiceNotFound")
        assert message == f'service/{SERVICE} in "{NAMESPACE}" is not present'
    else:
        message = await available(api, "False", "EndpointsNotFound")
        assert message == f'cannot find endpoints for service/{SERVICE} in "{NAMESPACE}"'
        empty = {**extension.endpoints(), "subsets": []}
        await api.json("POST", f"/api/v1/namespaces/{NAMESPACE}/endpoints", 201, json=empty)
        message = await available(api, "False", "MissingEndpoints")
        assert (
            message == f'endpoints for service/{SERVICE} in "{NAMESPACE}" have no addresses with port name ""'
        )
    async with api.session.get(api.url + FLUNDERS) as answer:
        assert (answer.status, await answer.text()) == (503, "service unavailable\n")
    document = await api.json("GET", "/apis", headers={"Accept": AGGREGATED})
    group = next(item for item in document["items"] if item["metadata"]["name"] == GROUP)
    assert group["versions"] == [{"version": VERSION, "freshness": "Stale"}]
    if service:
        endpoints = f"/api/v1/namespaces/{NAMESPACE}/endpoints/{SERVICE}"
        await api.json("PUT", endpoints, json=extension.endpoints())
        await available(api, "True", "Passed")
        await api.json("GET", FLUNDERS)
        await api.json("DELETE", f"/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}")
        await available(api, "False", "ServiceNotFound")


async def test_a_port_the_service_does_not_have(api: Served, extension: Extension) -> None:
    await backed(api, extension)
    spec = {"namespace": NAMESPACE, "name": SERVICE, "port": 444}
    await api.json("POST", API_SERVICES, 201, json=extension.api_service(service=spec))
    message = await available(api, "False", "ServicePortError")
    assert message == f'service/{SERVICE} in "{NAMESPACE}" is not listening on port 444'


async def test_a_certificate_nobody_trusts(api: Served, extension: Extension) -> None:
    await backed(api, extension)
    await api.json("POST", API_SERVICES, 201, json=extension.api_service(caBundle=None))
    message = await available(api, "False", "FailedDiscoveryCheck")
    url = f"https://{ADDRESS}:{extension.port}{ROOT}"
    assert message == (
        f'failing or missing response from {url}: Get "{url}": tls: failed to verify certificate: x509: certificate '
        "signed by unknown authority"
    )
    changed = extension.api_service(caBundle=None, insecureSkipTLSVerify=True)
    stored = await api.json("GET", f"{API_SERVICES}/{NAME}")
    await api.json("PUT", f"{API_SERVICES}/{NAME}", json={**stored, "spec": changed["spec"]})
    await available(api, "True", "Passed")
    await api.json("GET", FLUNDERS)


async def test_a_server_that_answers_badly(api: Served, extension: Extension) -> None:
    extension.status = 500
    await backed(api, extension)
    await api.json("POST", API_SERVICES, 201, json=extension.api_service())
    message = await available(api, "False", "FailedDiscoveryCheck")
    assert message.endswith(f"bad status from https://{ADDRESS}:{extension.port}{ROOT}: 500")
    extension.status = 200
    await available(api, "True", "Passed")


async def test_a_server_that_went_away_after_the_check(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    moved = extension.endpoints()
    moved["subsets"][0]["addresses"] = [{"ip": "10.1.1.9"}]
    await api.json("PUT", f"/api/v1/namespaces/{NAMESPACE}/endpoints/{SERVICE}", json=moved)
    async with api.session.get(api.url + FLUNDERS) as answer:
        assert answer.status == 503
        assert await answer.text() in (
            f"error trying to reach service: dial tcp 10.1.1.9:{extension.port}: connect: connection refused\n",
            "service unavailable\n",
        )
    assert "connection refused" in await available(api, "False", "FailedDiscoveryCheck")


async def test_discovery_in_both_forms(api: Served, extension: Extension) -> None:
    await registered(api, extension, groupPriorityMinimum=17_750, versionPriority=3)
    document = await api.json("GET", "/apis", headers={"Accept": AGGREGATED})
    names = [item["metadata"]["name"] for item in document["items"]]
    assert names[:4] == ["apiregistration.k8s.io", "apps", "events.k8s.io", GROUP]
    version = document["items"][3]["versions"][0]
    assert (version["version"], version["freshness"]) == (VERSION, "Current")
    (resource,) = version["resources"]
    assert resource["responseKind"] == {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    assert (resource["scope"], resource["shortNames"], resource["categories"]) == (
        "Namespaced",
        ["fl"],
        ["pets"],
    )
    assert [sub["subresource"] for sub in resource["subresources"]] == ["status", "exec"]
    row = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    groups = (await api.json("GET", "/apis"))["groups"]
    assert groups[3] == {"name": GROUP, "versions": [row], "preferredVersion": row}
    assert (await api.json("GET", f"/apis/{GROUP}"))["versions"] == [row]
    assert (await api.json("GET", ROOT))["groupVersion"] == f"{GROUP}/{VERSION}"
    index = await api.json("GET", "/openapi/v3")
    url = index["paths"][ROOT[1:]]["serverRelativeURL"]
    assert "com.example.wardle.v1.Flunder" in (await api.json("GET", url))["components"]["schemas"]
    await api.json("DELETE", f"{API_SERVICES}/{NAME}")
    await api.json("GET", ROOT, 404)
    await api.json("GET", FLUNDERS, 404)
    assert GROUP not in json.dumps(await api.json("GET", "/apis", headers={"Accept": AGGREGATED}))
    assert ROOT[1:] not in (await api.json("GET", "/openapi/v3"))["paths"]


async def test_versions_are_ordered_by_their_priority(api: Served, extension: Extension) -> None:
    for version, priority in (("v1", 5), ("v2beta1", 5), ("v2", 5), ("v3alpha1", 9)):
        await api.json(
            "POST", API_SERVICES, 201, json=extension.api_service(version=version, versionPriority=priority)
        )
    group = await api.json("GET", f"/apis/{GROUP}")
    assert [row["version"] for row in group["versions"]] == ["v3alpha1", "v2", "v1", "v2beta1"]


async def test_a_group_of_this_server_cannot_be_taken_over(api: Served, extension: Extension) -> None:
    await backed(api, extension)
    stored = await api.json("GET", f"{API_SERVICES}/v1.apps")
    taken = extension.api_service(group="apps")["spec"]
    await api.json("PUT", f"{API_SERVICES}/v1.apps", json={**stored, "spec": taken})
    assert (await api.json("GET", "/apis/apps/v1/deployments"))["kind"] == "DeploymentList"
    assert (await api.json("GET", "/apis/apps/v1"))["resources"]
    async with asyncio.timeout(10):
        while (await api.json("GET", f"{API_SERVICES}/v1.apps"))["spec"] != stored["spec"]:
            pass  # each look is a request of its own
    assert extension.asked == []


@pytest.mark.parametrize(
    "path",
    [
        f"{API_SERVICES}/v1.apps",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/exempt",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ],
)
async def test_what_the_server_made_comes_back(api: Served, path: str) -> None:
    before = (await api.json("GET", path))["metadata"]["uid"]
    await api.json("DELETE", path)
    async with asyncio.timeout(10):
        while True:
            async with api.session.get(api.url + path) as answer:
                if answer.status == 200 and (await answer.json())["metadata"]["uid"] != before:
                    return


async def test_extension_servers_learn_whom_to_believe(api: Served) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = (await api.json("GET", path))["data"]
    assert data["client-ca-file"] == api.authority.certificate_pem.decode()
    assert data["requestheader-client-ca-file"].startswith("-----BEGIN CERTIFICATE-----")
    assert data["requestheader-client-ca-file"] != data["client-ca-file"]
    assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
    assert json.loads(data["requestheader-username-headers"]) == ["X-Remote-User"]


async def test_watches_upgrades_and_long_answers_pass(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    await api.json("POST", FLUNDERS, 201, json={"metadata": {"name": "a"}})
    async with api.session.get(f"{api.url}{FLUNDERS}?watch=true") as answer:
        assert json.loads(await answer.content.readline())["type"] == "ADDED"
    async with api.session.ws_connect(
        f"{api.url}{FLUNDERS}/a/exec", protocols=["v5.channel.k8s.io"]
    ) as socket_:
        assert socket_.protocol == "v5.channel.k8s.io"
        await socket_.send_str("abc")
        assert await socket_.receive_str() == "cba"
    async with api.session.get(f"{api.url}{FLUNDERS}/a/huge") as answer:
        assert len(await answer.read()) == 3 * 1024 * 1024


@pytest.mark.parametrize(
    "trick", ["..%2f..%2fsecrets", "%2e%2e/x", "a/proxy/%2e%2e/%2e%2e/b", "a/proxy/..%2fb"]
)
async def test_no_path_leads_elsewhere(api: Served, extension: Extension, trick: str) -> None:
    await registered(api, extension)
    url = URL(f"{api.url}{FLUNDERS}/{trick}", encoded=True)
    async with api.session.get(url) as answer:
        assert answer.status == 400, await answer.text()
    assert extension.asked == []


async def test_a_name_with_a_line_break_adds_no_header(api: Served, extension: Extension) -> None:
    await registered(api, extension)
    request = ApiRequest(
        "GET", FLUNDERS, user=UserInfo("ann\r\nX-Remote-User: root", groups=("system:masters",))
    )
    answer = await api.server.handle(request)
    assert answer.status == 503
    assert extension.asked == []
