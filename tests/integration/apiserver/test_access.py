"""Who may do what: certificates, tokens, nobody, impersonation; and the paths that are no resources."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import GUEST_TOKEN, TOKEN, FakeRegistry, Served, serving, subject

from controlplane.apiserver.app import ServerConfig
from controlplane.apiserver.authn.token_file import TokenFileAuthenticator
from controlplane.apiserver.pki import CertificateAuthority

PODS = "/api/v1/namespaces/default/pods"


async def ask(
    api: Served, path: str, headers: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """Without the administrator's certificate."""
    connector = aiohttp.TCPConnector(ssl=tls or api.client_tls(certificate=False))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(api.url + path, headers=headers) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}]
)
async def test_nobody_gets_nothing(api: Served, headers: dict[str, str]) -> None:
    for path in (PODS, "/version", "/healthz", "/"):
        code, status = await ask(api, path, headers)
        assert (code, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")


async def test_a_token_is_enough(api: Served) -> None:
    code, body = await ask(api, PODS, {"Authorization": f"Bearer {TOKEN}"})
    assert (code, body["kind"]) == (200, "PodList")


async def test_a_guest_is_told_what_is_forbidden(api: Served) -> None:
    guest = {"Authorization": f"Bearer {GUEST_TOKEN}"}
    code, status = await ask(api, PODS, guest)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert status["message"] == (
        'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    code, status = await ask(api, "/apis/apps/v1/namespaces/x/deployments/d/scale", guest)
    assert status["message"] == (
        'deployments.apps "d" is forbidden: User "bob" cannot get resource "deployments/scale" '
        'in API group "apps" in the namespace "x"'
    )
    code, status = await ask(api, "/api/v1/nodes/n", guest)
    assert status["message"].endswith('resource "nodes" in API group "" at the cluster scope')
    code, status = await ask(api, "/metrics", guest)
    assert status["message"] == 'forbidden: User "bob" cannot get path "/metrics"'
    assert (await ask(api, "/version", guest))[0] == 200
    assert (await ask(api, "/apis/apps/v1", guest))[0] == 200


async def test_components_and_nodes_may_work_but_not_impersonate(api: Served) -> None:
    for name, groups, path in (
        ("system:kube-proxy", [], "/api/v1/services"),
        ("system:node:n1", ["system:nodes"], "/api/v1/pods?fieldSelector=spec.nodeName=n1"),
    ):
        paths = api.authority.ensure(name.replace(":", "-"), name, groups)
        tls = api.client_tls(certificate=False)
        tls.load_cert_chain(paths.cert, paths.key)
        assert (await ask(api, PODS, tls=tls))[0] == 403
        assert (await ask(api, path, tls=tls))[0] == 200
        code, status = await ask(api, PODS, {"Impersonate-User": "root"}, tls)
        assert (code, status["message"]) == (
            403,
            f'users "root" is forbidden: User "{name}" cannot impersonate resource "users" in API group "" '
            "at the cluster scope",
        )


async def test_a_foreign_certificate_does_not_even_connect(api: Served, tmp_path: Path) -> None:
    other = CertificateAuthority.load_or_create(tmp_path / "other").ensure("x", "x", ["system:masters"])
    tls = api.client_tls(certificate=False)
    tls.load_cert_chain(other.cert, other.key)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await ask(api, PODS, tls=tls)


async def test_administrators_may_act_as_others(api: Served) -> None:
    status = await api.json("GET", PODS, 403, headers={"Impersonate-User": "alice"})
    assert 'User "alice" cannot list' in status["message"]
    headers = {"Impersonate-User": "alice", "Impersonate-Group": "system:masters"}
    await api.json("GET", PODS, headers=headers)
    await api.json("GET", PODS, 400, headers={"Impersonate-Group": "system:masters"})


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text('# comment\nt1,alice,u1,"a, b"\n\nt2,bob,u2\n')
    authenticator = TokenFileAuthenticator(path)
    assert {user.groups for user in authenticator._users.values()} == {("a", "b"), ()}
    path.write_text("t1,alice\n")
    with pytest.raises(ValueError, match=":1: expected token,user,uid"):
        TokenFileAuthenticator(path)


def test_subjects() -> None:
    peer = {"subject": ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "n"),))}
    assert subject(peer) == ("n", ("a", "b"))
    assert subject(None) == ("", ())


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json"


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery(api: Served, version: str) -> None:
    headers = {"Accept": AGGREGATED.format(version)}
    async with api.session.get(f"{api.url}/api?timeout=32s", headers=headers) as answer:
        expected = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        assert answer.headers["Content-Type"] == expected
        core = await answer.json(content_type=None)
    named = await api.json("GET", "/apis", headers=headers)
    assert core["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    resources = {entry["resource"]: entry for entry in core["items"][0]["versions"][0]["resources"]}
    assert resources["pods"]["shortNames"] == ["po"]
    assert resources["pods"]["scope"] == "Namespaced"
    assert "all" in resources["pods"]["categories"]
    evictions = [sub for sub in resources["pods"]["subresources"] if sub["subresource"] == "eviction"]
    assert evictions[0]["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    assert [group["metadata"]["name"] for group in named["items"]][:2] == ["apiregistration.k8s.io", "apps"]


async def test_legacy_discovery_with_and_without_a_closing_slash(api: Served) -> None:
    for slash in ("", "/"):
        assert (await api.json("GET", f"/api{slash}"))["versions"] == ["v1"]
        groups = await api.json("GET", f"/apis{slash}")
        assert groups["groups"][1]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
        assert (await api.json("GET", f"/version{slash}"))["minor"] == "32"
    assert (await api.json("GET", "/apis/apps"))["kind"] == "APIGroup"
    listed = await api.json("GET", "/apis/apps/v1")
    scale = [row for row in listed["resources"] if row["name"] == "deployments/scale"]
    assert scale[0]["group"] == "autoscaling"
    pods = await api.json("GET", "/api/v1")
    eviction = [row for row in pods["resources"] if row["name"] == "pods/eviction"]
    assert (eviction[0]["group"], eviction[0]["version"], eviction[0]["kind"]) == ("policy", "v1", "Eviction")


async def test_every_subresource_that_is_told_is_served(api: Served) -> None:
    methods = {"create": "POST", "get": "GET", "patch": "PATCH", "update": "PUT", "delete": "DELETE"}
    told = 0
    for path in ("/api/v1", "/apis/apps/v1"):
        for row in (await api.json("GET", path))["resources"]:
            resource, _, subresource = row["name"].partition("/")
            if not subresource:
                continue
            where = "namespaces/default/" if row["namespaced"] else ""
            for verb in row["verbs"]:
                told += 1
                async with api.session.request(
                    methods[verb], f"{api.url}{path}/{where}{resource}/none/{subresource}/"
                ) as answer:
                    status = await answer.json(content_type=None)
                unserved = "the server could not find the requested resource"
                assert answer.status != 405, (row["name"], verb)
                assert (status or {}).get("message") != unserved, (row["name"], verb)
    assert told > 20


async def test_openapi(api: Served) -> None:
    index = await api.json("GET", "/openapi/v3?timeout=32s")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    document = await api.json("GET", url)
    assert "/apis/apps/v1/namespaces/{namespace}/deployments/{name}" in document["paths"]
    await api.json("GET", "/openapi/v3/apis/none/v1", 404)
    accept = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    async with api.session.get(f"{api.url}/openapi/v2", headers=accept) as answer:
        assert (answer.status, (await answer.read())[:5]) == (200, b"\x0a\x032.0")
        assert answer.headers["Content-Type"] == (
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        )
        tag = answer.headers["ETag"]
    async with api.session.get(f"{api.url}/openapi/v2") as answer:
        swagger = await answer.json()
        assert (answer.headers["ETag"], swagger["swagger"]) == (tag, "2.0")
    async with api.session.get(f"{api.url}/openapi/v2", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def text(api: Served, path: str) -> tuple[int, str]:
    async with api.session.get(api.url + path) as answer:
        assert answer.content_type == "text/plain"
        return answer.status, await answer.text()


async def test_health(tmp_path: Path) -> None:
    async def ill() -> str:
        return "on fire"

    config = ServerConfig(health_checks={"controllers": ill})
    async with serving(FakeRegistry(), tmp_path, config=config) as api:
        for path in ("healthz", "livez", "readyz"):
            code, body = await text(api, f"/{path}")
            assert code == 500
            assert "[-]controllers failed: reason withheld" in body
            assert "on fire" not in body
            assert await text(api, f"/{path}?exclude=controllers") == (200, "ok")
            assert await text(api, f"/{path}/ping") == (200, "ok")
        code, body = await text(api, "/readyz?verbose&exclude=controllers")
        assert body == (
            "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n"
            "[+]controllers excluded: ok\n[+]shutdown ok\nreadyz check passed\n"
        )
        code, body = await text(api, "/livez?verbose&exclude=controllers&exclude=none")
        assert body == (
            "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]controllers excluded: ok\n"
            'warn: some health checks cannot be excluded: no matches for "none"\nlivez check passed\n'
        )
        assert await text(api, "/readyz/controllers") == (500, "internal server error: on fire\n")
        await api.server.stop_listening()
        assert await text(api, "/readyz/shutdown") == (
            500,
            "internal server error: process is shutting down\n",
        )
        assert await text(api, "/livez?exclude=controllers") == (200, "ok")
        await api.json("GET", "/livez/shutdown", 404)
        await api.json("GET", "/readyz/none", 404)


async def test_a_server_that_ends_keeps_no_connection(tmp_path: Path) -> None:
    """Else a client would go on asking it, and never the one that comes after it."""
    asked, free = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        asked.set()
        await free.wait()
        return ""

    config = ServerConfig(health_checks={"slow": slow})
    async with serving(FakeRegistry(), tmp_path, config=config) as api:
        asking = asyncio.create_task(api.session.get(api.url + "/livez/slow"))
        await asked.wait()
        closing = asyncio.create_task(api.server.close())
        # One step of the loop: `close` comes as far as it can while a request is under way.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        free.set()
        answer = await asking
        assert (answer.status, answer.headers.get("Connection")) == (200, "close")
        await closing


async def test_the_root_lists_the_paths(api: Served) -> None:
    assert "/apis/apps/v1" in (await api.json("GET", "/"))["paths"]


async def test_head_is_get_without_a_body(api: Served) -> None:
    async with api.session.head(f"{api.url}/version") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with asyncio.timeout(5), api.session.head(f"{api.url}{PODS}?watch=1") as answer:
        assert answer.status == 200
