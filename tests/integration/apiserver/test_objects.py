"""Objects over real TLS: every verb, and the faults a client can make."""

from __future__ import annotations

import asyncio
import gzip
import io
from typing import Any

import pytest
import yaml
from support.apiserver import Served
from support.protobuf import encode

from controlplane.apiserver.core import MAX_BODY
from controlplane.apiserver.registry import Registry
from controlplane.schema.protobuf import CONTENT_TYPE as PROTOBUF

MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def deployment(name: str, replicas: int = 2) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    }


async def test_the_life_of_an_object(api: Served) -> None:
    made = await api.json("POST", MAPS, 201, json=config_map("a", k="v"))
    assert (made["apiVersion"], made["kind"], made["data"]) == ("v1", "ConfigMap", {"k": "v"})
    read = await api.json("GET", f"{MAPS}/a")
    assert read == made
    read["data"]["k"] = "w"
    written = await api.json("PUT", f"{MAPS}/a", json=read)
    assert int(written["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    stale = await api.json("PUT", f"{MAPS}/a", 409, json=made)
    assert stale["reason"] == "Conflict"
    deleted = await api.json("DELETE", f"{MAPS}/a")
    assert (deleted["kind"], deleted["status"]) == ("Status", "Success")
    assert deleted["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    gone = await api.json("GET", f"{MAPS}/a", 404)
    assert (gone["message"], gone["reason"]) == ('configmaps "a" not found', "NotFound")


async def test_bodies_without_type_or_content_type_are_taken(api: Served) -> None:
    async with api.session.post(
        api.url + MAPS, data=b'{"metadata":{"name":"bare"}}', skip_auto_headers=["Content-Type"]
    ) as answer:
        assert answer.status == 201
    async with api.session.post(
        api.url + MAPS,
        data=b"metadata: {name: from-yaml}\ndata: {day: '2026-01-01'}\n",
        headers={"Content-Type": "application/yaml", "Accept": "application/yaml"},
    ) as answer:
        assert answer.status == 201
        assert answer.content_type == "application/yaml"
        assert yaml.safe_load(await answer.text())["data"] == {"day": "2026-01-01"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}},
         "the API version in the data (v2) does not match the expected API version (v1)"),
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}},
         'Secret in version "v1" cannot be handled as a ConfigMap: expected kind ConfigMap'),
        ({"metadata": {"name": "a", "namespace": "other"}},
         "the namespace of the provided object does not match the namespace sent on the request"),
        ({"metadata": {"name": "a"}, "data": {"k": 1}}, 'ConfigMap in version "v1" cannot be handled'),
        ([], "the object provided is unrecognized (must be of type ConfigMap)"),
    ],
)  # fmt: skip
async def test_bodies_that_do_not_belong_here(api: Served, body: Any, message: str) -> None:
    status = await api.json("POST", MAPS, 400, json=body)
    assert status["reason"] == "BadRequest"
    assert status["message"].startswith(message)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"metadata":'])
async def test_broken_bodies(api: Served, body: bytes) -> None:
    status = await api.json("POST", MAPS, 400, data=body, headers={"Content-Type": "application/json"})
    assert "unrecognized" in status["message"]


async def test_a_put_must_agree_with_its_path(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a"))
    other = await api.json("PUT", f"{MAPS}/a", 400, json=config_map("b"))
    assert other["message"] == "the name of the object (b) does not match the name on the URL (a)"
    nameless = await api.json("PUT", f"{MAPS}/a", 400, json={"metadata": {}})
    assert "name must be provided" in nameless["message"]
    elsewhere = {"metadata": {"name": "a", "namespace": "x"}}
    status = await api.json("PUT", f"{MAPS}/a", 400, json=elsewhere)
    assert "does not match the namespace on the request (default)" in status["message"]


async def test_unknown_fields_by_validation_mode(api: Served) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"selectorr": {"a": "b"}, "ports": [{"port": 80}]}}
    strict = await api.json("POST", f"{SERVICES}?fieldValidation=Strict", 400, json=body)
    assert strict["message"] == (
        'Service in version "v1" cannot be handled as a Service: '
        'strict decoding error: unknown field "spec.selectorr"'
    )
    async with api.session.post(api.url + SERVICES, json=body) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "unknown field \\"spec.selectorr\\""'
        assert "selectorr" not in (await answer.json())["spec"]
    body["metadata"]["name"] = "quiet"
    async with api.session.post(f"{api.url}{SERVICES}?fieldValidation=Ignore", json=body) as answer:
        assert (answer.status, "Warning" in answer.headers) == (201, False)
    wrong = await api.json("POST", f"{SERVICES}?fieldValidation=strict", 422, json=body)
    assert 'Unsupported value: "strict"' in wrong["message"]


async def test_doubled_fields_are_told(api: Served) -> None:
    body = b'{"metadata":{"name":"d"},"data":{"k":"1","k":"2"}}'
    headers = {"Content-Type": "application/json"}
    async with api.session.post(api.url + MAPS, data=body, headers=headers) as answer:
        assert answer.headers["Warning"] == '299 - "duplicate field \\"data.k\\""'
    status = await api.json("POST", f"{MAPS}?fieldValidation=Strict", 400, data=body, headers=headers)
    assert 'duplicate field "data.k"' in status["message"]


PATCHES = [
    ("application/merge-patch+json", b'{"data":{"k":"new","old":null}}'),
    ("application/strategic-merge-patch+json", b'{"data":{"k":"new","old":null}}'),
    ("application/json-patch+json",
     b'[{"op":"replace","path":"/data/k","value":"new"},{"op":"remove","path":"/data/old"}]'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "patch"), PATCHES)
async def test_patches(api: Served, kind: str, patch: bytes) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a", k="1", old="x"))
    headers = {"Content-Type": kind}
    patched = await api.json("PATCH", f"{MAPS}/a", data=patch, headers=headers)
    assert patched["data"] == {"k": "new"}
    if kind != "application/json-patch+json":
        again = await api.json("PATCH", f"{MAPS}/a", data=patch, headers=headers)
        assert again["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]


async def test_patches_that_go_wrong(api: Served) -> None:
    await api.json("POST", SERVICES, 201, json={"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    merge = {"Content-Type": "application/merge-patch+json"}
    path = f"{SERVICES}/s"
    strict = await api.json(
        "PATCH", f"{path}?fieldValidation=Strict", 422, data=b'{"spec":{"x":1}}', headers=merge
    )
    assert 'strict decoding error: unknown field "spec.x"' in strict["message"]
    assert strict["details"]["causes"][0]["field"] == "patch"
    typed = await api.json("PATCH", path, 422, data=b'{"spec":{"ports":"x"}}', headers=merge)
    assert "json: cannot unmarshal string" in typed["message"]
    broken = await api.json("PATCH", path, 400, data=b"{", headers=merge)
    assert broken["message"].startswith("error decoding patch")
    listed = await api.json("PATCH", path, 400, data=b"[]", headers=merge)
    assert "cannot unmarshal array into Go value of type map[string]interface {}" in listed["message"]
    for kind in ("application/json", "application/apply-patch+cbor", ""):
        status = await api.json("PATCH", path, 415, data=b"{}", headers={"Content-Type": kind})
        assert status["reason"] == "UnsupportedMediaType"
        assert "application/strategic-merge-patch+json" in status["message"]


async def test_other_bodies_are_named_as_unsupported(api: Served) -> None:
    headers = {"Content-Type": "application/cbor"}
    for method, path in (("POST", MAPS), ("DELETE", f"{MAPS}/a")):
        status = await api.json(method, path, 415, data=b"\xa0", headers=headers)
        assert "accepted media types include: application/json" in status["message"]


async def test_protobuf_bodies(api: Served) -> None:
    headers = {"Content-Type": PROTOBUF}
    body = encode({"metadata": {"name": "a"}, "data": {"k": ""}}, "v1", "ConfigMap")
    made = await api.json("POST", MAPS, 201, data=body, headers=headers)
    assert (made["metadata"]["name"], made["data"]) == ("a", {"k": ""})
    changed = encode({"metadata": {"name": "a"}, "data": {"k": "v"}}, "v1", "ConfigMap")
    assert (await api.json("PUT", f"{MAPS}/a", data=changed, headers=headers))["data"] == {"k": "v"}
    wrong = encode({"preconditions": {"uid": "another"}}, "v1", "DeleteOptions")
    assert (await api.json("DELETE", f"{MAPS}/a", 409, data=wrong, headers=headers))["reason"] == "Conflict"
    right = encode({"gracePeriodSeconds": 0}, "v1", "DeleteOptions")
    await api.json("DELETE", f"{MAPS}/a", data=right, headers=headers)
    await api.json("GET", f"{MAPS}/a", 404)


async def test_what_a_protobuf_body_cannot_be(api: Served) -> None:
    async def refused(method: str, path: str, body: bytes) -> str:
        status = await api.json(method, path, 400, data=body, headers={"Content-Type": PROTOBUF})
        assert status["reason"] == "BadRequest"
        return str(status["message"])

    assert "must be of type ConfigMap): provided data does not appear" in await refused("POST", MAPS, b"{}")
    assert "unexpected EOF" in await refused("DELETE", f"{MAPS}/a", b"k8s\0\x0a\x7f")
    other = encode({"metadata": {"name": "a"}}, "v1", "Secret")
    assert "cannot be handled as a ConfigMap" in await refused("POST", MAPS, other)
    assert "cannot be handled as DeleteOptions" in await refused("DELETE", f"{MAPS}/a", other)
    status = await api.json("PATCH", f"{MAPS}/a", 415, data=b"k8s\0", headers={"Content-Type": PROTOBUF})
    assert status["reason"] == "UnsupportedMediaType"


async def test_bodies_over_three_mebibytes_are_refused(api: Served) -> None:
    status = await api.json("POST", MAPS, 413, data=io.BytesIO(b"x" * (MAX_BODY + 1)))
    assert (status["reason"], status["message"]) == (
        "RequestEntityTooLarge",
        "Request entity too large: limit is 3145728",
    )


async def test_what_cannot_be_answered_as_asked(api: Served) -> None:
    status = await api.json("GET", MAPS, 406, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert status["reason"] == "NotAcceptable"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/nothings", 404),
        ("GET", "/apis/none.example.com/v1/things", 404),
        ("GET", "/apis/apps/v2/deployments", 404),
        ("GET", "/api/v1/configmaps/a", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", f"{MAPS}/a/status", 404),
        ("GET", f"{MAPS}/a/b/c", 404),
        ("POST", "/api/v1/configmaps", 405),
        ("POST", f"{MAPS}/a", 405),
        ("PUT", MAPS, 405),
        ("PATCH", MAPS, 405),
        ("POST", "/version", 405),
        ("OPTIONS", MAPS, 405),
        ("DELETE", f"{DEPLOYMENTS}/d/scale", 405),
    ],
)
async def test_paths_and_methods_that_are_not_served(api: Served, method: str, path: str, code: int) -> None:
    status = await api.json(method, path, code, json={} if method in ("POST", "PUT", "PATCH") else None)
    assert (status["kind"], status["code"], status["status"]) == ("Status", code, "Failure")


async def test_hostile_paths(api: Served) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(api.url.rpartition(":")[2]), ssl=api.client_tls()
    )
    try:
        for path in (
            "/api/v1/namespaces/default/../kube-system/configmaps",
            "/api/v1/namespaces/%2e%2e/pods",
        ):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 400 ")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert b'"Status"' in await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_chunked_lists_and_tables(api: Served) -> None:
    for number in range(5):
        await api.json("POST", MAPS, 201, json=config_map(f"c{number}"))
    first = await api.json("GET", f"{MAPS}?limit=2")
    assert (first["kind"], first["apiVersion"]) == ("ConfigMapList", "v1")
    assert first["metadata"]["remainingItemCount"] == 3
    names = [item["metadata"]["name"] for item in first["items"]]
    token = first["metadata"]["continue"]
    await api.json("POST", MAPS, 201, json=config_map("c9"))
    while token:
        page = await api.json("GET", MAPS, params={"limit": "2", "continue": token})
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = await api.json("GET", f"{MAPS}?limit=2", headers=accept)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert [row["cells"][0] for row in table["rows"]] == ["c0", "c1"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert table["metadata"]["continue"]
    whole = await api.json("GET", f"{MAPS}?includeObject=Object", headers=accept)
    assert whole["rows"][0]["object"]["kind"] == "ConfigMap"
    await api.json("GET", f"{MAPS}?includeObject=All", 400, headers=accept)


async def test_bare_metadata(api: Served) -> None:
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    body = await api.json("GET", "/api/v1/namespaces", headers=accept)
    assert body["kind"] == "PartialObjectMetadataList"
    assert body["items"][0].keys() == {"kind", "apiVersion", "metadata"}


async def test_selectors(api: Served) -> None:
    for name, tier in (("a", "web"), ("b", "db")):
        body = config_map(name)
        body["metadata"]["labels"] = {"tier": tier}
        await api.json("POST", MAPS, 201, json=body)

    async def names(**params: str) -> list[str]:
        body = await api.json("GET", MAPS, params=params)
        return [item["metadata"]["name"] for item in body["items"]]

    assert await names(labelSelector="tier in (web,cache)") == ["a"]
    assert await names(labelSelector="!tier") == []
    assert await names(fieldSelector="metadata.name=b") == ["b"]
    assert await names(fieldSelector="metadata.name!=b", labelSelector="tier") == ["a"]
    unknown = await api.json("GET", MAPS, 400, params={"fieldSelector": "spec.x=1"})
    assert unknown["message"] == "field label not supported: spec.x"
    await api.json("GET", MAPS, 400, params={"labelSelector": "a in (b"})
    await api.json("GET", MAPS, 400, params={"limit": "many"})


async def test_deletes_with_options(api: Served) -> None:
    made = await api.json("POST", MAPS, 201, json=config_map("a"))
    wrong = {"preconditions": {"uid": "another"}}
    assert (await api.json("DELETE", f"{MAPS}/a", 409, json=wrong))["reason"] == "Conflict"
    await api.json("DELETE", f"{MAPS}/a?dryRun=All")
    await api.json("DELETE", f"{MAPS}/a", json={"dryRun": ["All"]})
    await api.json("DELETE", f"{MAPS}/a", 422, json={"dryRun": ["Some"]})
    await api.json("DELETE", f"{MAPS}/a", 422, json={"propagationPolicy": "Sideways"})
    await api.json("DELETE", f"{MAPS}/a", 400, json={"kind": "Pod"})
    await api.json("DELETE", f"{MAPS}/a", 400, data=b"{", headers={"Content-Type": "application/json"})
    right = {"preconditions": {"uid": made["metadata"]["uid"]}, "propagationPolicy": "Background"}
    await api.json("DELETE", f"{MAPS}/a", json=right)


async def test_a_pending_deletion_answers_with_the_object(api: Served) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.json("POST", MAPS, 201, json=body)
    pending = await api.json("DELETE", f"{MAPS}/a")
    assert (pending["kind"], "deletionTimestamp" in pending["metadata"]) == ("ConfigMap", True)
    headers = {"Content-Type": "application/merge-patch+json"}
    await api.json("PATCH", f"{MAPS}/a", data=b'{"metadata":{"finalizers":null}}', headers=headers)
    await api.json("GET", f"{MAPS}/a", 404)


async def test_deleting_a_collection_answers_with_what_went(api: Served) -> None:
    for name in ("a", "b"):
        body = config_map(name)
        body["metadata"]["labels"] = {"go": name}
        await api.json("POST", MAPS, 201, json=body)
    gone = await api.json("DELETE", f"{MAPS}?labelSelector=go%3Da")
    assert (gone["kind"], [item["metadata"]["name"] for item in gone["items"]]) == ("ConfigMapList", ["a"])
    left = await api.json("GET", MAPS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["b"]


async def test_scale_and_status(api: Served) -> None:
    await api.json("POST", DEPLOYMENTS, 201, json=deployment("web"))
    scale = await api.json("GET", f"{DEPLOYMENTS}/web/scale")
    assert (scale["apiVersion"], scale["kind"], scale["spec"]) == ("autoscaling/v1", "Scale", {"replicas": 2})
    scale["spec"]["replicas"] = 3
    assert (await api.json("PUT", f"{DEPLOYMENTS}/web/scale", json=scale))["spec"] == {"replicas": 3}
    merge = {"Content-Type": "application/merge-patch+json"}
    patched = await api.json(
        "PATCH", f"{DEPLOYMENTS}/web/scale", data=b'{"spec":{"replicas":4}}', headers=merge
    )
    assert patched["spec"] == {"replicas": 4}
    assert (await api.json("GET", f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 4
    status = b'{"status":{"replicas":4,"observedGeneration":3},"spec":{"replicas":9}}'
    await api.json("PATCH", f"{DEPLOYMENTS}/web/status", data=status, headers=merge)
    read = await api.json("GET", f"{DEPLOYMENTS}/web/status")
    assert (read["spec"]["replicas"], read["status"]["replicas"]) == (4, 4)
    assert (await api.json("GET", f"{DEPLOYMENTS}/web/scale"))["status"]["replicas"] == 4
    table = await api.json(
        "GET", f"{DEPLOYMENTS}/web/scale", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    )
    assert table["rows"][0]["cells"][:3] == ["web", 4, 4]


PODS = "/api/v1/namespaces/default/pods"


async def test_binding_and_eviction(api: Served) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    await api.json("POST", PODS, 201, json=pod)
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    await api.json("POST", f"{PODS}/p/binding", 201, json=binding)
    assert (await api.json("GET", f"{PODS}/p"))["spec"]["nodeName"] == "n1"
    assert (await api.json("POST", f"{PODS}/p/binding", 409, json=binding))["reason"] == "Conflict"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "p", "namespace": "default"},
    }
    wrong = {**eviction, "metadata": {"name": "other"}}
    status = await api.json("POST", f"{PODS}/p/eviction", 400, json=wrong)
    assert status["message"] == "name in URL does not match name in Eviction object"
    dry = await api.json("POST", f"{PODS}/p/eviction?dryRun=All", 201, json=eviction)
    assert dry["status"] == "Success"
    assert "deletionTimestamp" not in (await api.json("GET", f"{PODS}/p"))["metadata"]
    short = {**eviction, "deleteOptions": {"gracePeriodSeconds": 7}}
    await api.json("POST", f"{PODS}/p/eviction", 201, json=short)
    assert (await api.json("GET", f"{PODS}/p"))["metadata"]["deletionGracePeriodSeconds"] == 7
    await api.json("DELETE", f"{PODS}/p", json={"gracePeriodSeconds": 0})
    await api.json("GET", f"{PODS}/p", 404)


async def test_large_answers_are_compressed_when_asked(api: Served) -> None:
    for number in range(4):
        await api.json("POST", MAPS, 201, json=config_map(f"big{number}", k="x" * 50_000))
    plain = {"Accept-Encoding": "identity"}
    async with api.session.get(api.url + MAPS, headers=plain) as answer:
        body = await answer.read()
        assert "Content-Encoding" not in answer.headers
    headers = {"Accept-Encoding": "gzip"}
    async with api.session.get(api.url + MAPS, headers=headers, auto_decompress=False) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await answer.read()) == body
    async with api.session.get(f"{api.url}{MAPS}?limit=1", headers=headers, auto_decompress=False) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_one_connection_serves_many_requests(api: Served) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(api.url.rpartition(":")[2]), ssl=api.client_tls()
    )
    try:
        for _ in range(3):
            writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert b"gitVersion" in await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_fault_inside_tells_nothing_and_is_logged_once(
    api: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Registry, "get", fail)
    status = await api.json("GET", f"{MAPS}/a", 500)
    assert status["reason"] == "InternalError"
    assert "secret" not in str(status)
    assert [record.exc_info is not None for record in caplog.records] == [True]
