"""Conversion by a webhook: a real TLS server, and servers that fail or lie."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from support.apiserver import Served
from support.custom import CRDS, GROUP, WIDGETS, definition, version, widget
from support.definitions import made

from controlplane.apiserver.pki import CertificateAuthority

BETA = WIDGETS.replace("/v1/", "/v1beta1/")
Spoil = Callable[[dict[str, Any]], Any]


class Hook:
    """Moves `spec.size` to `spec.length` and back. `spoil` edits the answer before it is sent."""

    def __init__(self) -> None:
        self.reviews: list[dict[str, Any]] = []
        self.spoil: Spoil = lambda answer: answer
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.reviews.append(review)
        wanted = review["request"]["desiredAPIVersion"]
        response = {
            "uid": review["request"]["uid"],
            "result": {"status": "Success"},
            "convertedObjects": [_converted(obj, wanted) for obj in review["request"]["objects"]],
        }
        answer = {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}
        return web.Response(
            status=self.status, text=json.dumps(self.spoil(answer)), content_type="application/json"
        )


def _converted(obj: dict[str, Any], wanted: str) -> dict[str, Any]:
    spec = dict(obj["spec"])
    old, new = ("length", "size") if wanted.endswith("/v1") else ("size", "length")
    if old in spec:
        spec[new] = spec.pop(old)
    return {**obj, "apiVersion": wanted, "spec": spec}


@asynccontextmanager
async def serving(hook: Hook, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """The hook's clientConfig."""
    authority = CertificateAuthority.load_or_create(directory)
    paths = authority.ensure("hook", "hook", ips=[ip_address("127.0.0.1")], client=False, server=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(paths.cert, paths.key)
    application = web.Application()
    application.router.add_post("/convert", hook.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    bundle = base64.b64encode(authority.certificate_pem).decode()
    try:
        yield {"url": f"https://127.0.0.1:{port}/convert", "caBundle": bundle}
    finally:
        await runner.cleanup()


def converted_definition(config: dict[str, Any]) -> dict[str, Any]:
    length = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"length": {"type": "integer", "minimum": 1}}}
        },
    }
    webhook = {"clientConfig": config, "conversionReviewVersions": ["v1"]}
    return definition(
        version(),
        version("v1beta1", storage=False, schema=length, selectableFields=[{"jsonPath": ".spec.length"}]),
        conversion={"strategy": "Webhook", "webhook": webhook},
    )


def beta(name: str, **spec: Any) -> dict[str, Any]:
    return widget(name, f"{GROUP}/v1beta1", **spec)


async def test_objects_are_converted_both_ways(api: Served, tmp_path: Path) -> None:
    hook = Hook()
    async with serving(hook, tmp_path / "hook") as config:
        await made(api, converted_definition(config))
        await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
        assert hook.reviews == []
        new = await api.json("POST", BETA, 201, json=beta("b", length=4))
        assert (new["apiVersion"], new["spec"]) == (f"{GROUP}/v1beta1", {"length": 4})
        assert (await api.json("GET", f"{WIDGETS}/b"))["spec"] == {"size": 4}
        listed = await api.json("GET", BETA)
        assert [each["spec"] for each in listed["items"]] == [{"length": 3}, {"length": 4}]
        selected = await api.json("GET", f"{BETA}?fieldSelector=spec.length=4")
        assert [each["metadata"]["name"] for each in selected["items"]] == ["b"]
        refused = await api.json("POST", BETA, 422, json=beta("c", length=0))
        assert "spec.length in body should be greater than or equal to 1" in refused["message"]
        merge = {"Content-Type": "application/merge-patch+json"}
        await api.json("PATCH", f"{BETA}/a", json={"spec": {"length": 9}}, headers=merge)
        assert (await api.json("GET", f"{WIDGETS}/a"))["spec"] == {"size": 9}
        sent = hook.reviews[0]
        assert (sent["kind"], sent["apiVersion"]) == ("ConversionReview", "apiextensions.k8s.io/v1")


def _set(**fields: Any) -> Spoil:
    return lambda answer: {**answer, "response": {**answer["response"], **fields}}


def _object(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(answer: dict[str, Any]) -> Any:
        for obj in answer["response"]["convertedObjects"]:
            change(obj)
        return answer

    return spoil


LIES: list[tuple[Spoil, str]] = [
    (_set(result={"status": "Failed", "message": "no way"}), "failed: no way"),
    (_set(result={"status": "Failed"}), "failed: response.result.status was 'Failed', not 'Success'"),
    (_set(uid="other"), "failed: expected response.uid="),
    (_set(convertedObjects=[]), "returned 0 objects, expected 1"),
    (lambda answer: {**answer, "kind": "Other"},
     "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got "
     "apiextensions.k8s.io/v1, Kind=Other"),
    (lambda answer: {"apiVersion": answer["apiVersion"], "kind": answer["kind"]}, "failed: no response provided"),
    (lambda answer: [], "failed: couldn't get version/kind"),
    (_object(lambda obj: obj.update(kind="Gadget")), "invalid kind (expected Widget, received Gadget)"),
    (_object(lambda obj: obj.update(apiVersion="x/v1")),
     f"invalid groupVersion (expected {GROUP}/v1beta1, received x/v1)"),
    (_object(lambda obj: obj["metadata"].update(name="other")), "must have the same name: a != other"),
    (_object(lambda obj: obj["metadata"].update(uid="other")), "must have the same UID: "),
    (_object(lambda obj: obj["metadata"].update(labels={"a": 1})),
     "metadata.labels[a] must be a string, but is int64 in converted object"),
    (_object(lambda obj: obj.pop("metadata")), "must have the same name: a != "),
]  # fmt: skip


async def test_hooks_that_lie_change_nothing(api: Served, tmp_path: Path) -> None:
    hook = Hook()
    async with serving(hook, tmp_path / "hook") as config:
        await made(api, converted_definition(config))
        before = await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
        for spoil, expected in LIES:
            hook.spoil = spoil
            refused = await api.json("GET", BETA, 500)
            assert refused["message"].startswith(f"conversion webhook for {GROUP}/v1, Kind=Widget")
            assert expected in refused["message"]
            assert refused.get("reason", "") == ""
            assert await api.json("GET", f"{WIDGETS}/a") == before
        hook.spoil = lambda answer: answer
        assert (await api.json("GET", f"{BETA}/a"))["spec"] == {"length": 3}


async def test_a_hook_may_change_labels_and_annotations_alone(api: Served, tmp_path: Path) -> None:
    hook = Hook()
    hook.spoil = _object(
        lambda obj: obj["metadata"].update(labels={"a": "b"}, generateName="x", finalizers=["y/z"])
    )
    async with serving(hook, tmp_path / "hook") as config:
        await made(api, converted_definition(config))
        await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
        metadata = (await api.json("GET", f"{BETA}/a"))["metadata"]
        assert metadata["labels"] == {"a": "b"}
        assert "generateName" not in metadata
        assert "finalizers" not in metadata


async def test_hooks_that_cannot_be_asked(api: Served, tmp_path: Path) -> None:
    hook = Hook()
    async with serving(hook, tmp_path / "hook") as config:
        other = CertificateAuthority.load_or_create(tmp_path / "other")
        wrong = {**config, "caBundle": base64.b64encode(other.certificate_pem).decode()}
        await made(api, converted_definition(wrong))
        await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
        refused = await api.json("GET", BETA, 500)
        assert "x509: certificate signed by unknown authority" in refused["message"]
        await api.json("POST", BETA, 500, json=beta("b", length=4))
        await api.json("GET", f"{WIDGETS}/b", 404)
        found = await api.json("GET", f"{CRDS}/widgets.{GROUP}")
        found["spec"]["conversion"]["webhook"]["clientConfig"] = config
        await api.json("PUT", f"{CRDS}/widgets.{GROUP}", json=found)
        hook.status = 503
        async with api.session.get(f"{api.url}{BETA}") as answer:
            assert answer.status == 500


async def test_a_service_that_is_not_there(api: Served) -> None:
    service = {"namespace": "default", "name": "hook", "path": "/convert"}
    found = await made(api, converted_definition({"service": service}))
    assert found["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"] == 443
    await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
    refused = await api.json("GET", BETA, 500)
    assert refused["message"] == (
        f"conversion webhook for {GROUP}/v1, Kind=Widget failed: Post "
        '"https://hook.default.svc:443/convert?timeout=30s": service "hook" not found'
    )


async def test_a_hook_that_hangs_holds_up_no_change_of_the_definition(api: Served, tmp_path: Path) -> None:
    hook, second = Hook(), Hook()
    asked, release = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        asked.set()
        await release.wait()
        return web.Response(status=500)

    hook.answer = hang  # type: ignore[method-assign]
    async with serving(hook, tmp_path / "hook") as config, serving(second, tmp_path / "second") as other:
        found = await made(api, converted_definition(config))
        await api.json("POST", WIDGETS, 201, json=widget("a", size=3))
        reading = asyncio.ensure_future(api.session.get(f"{api.url}{BETA}/a"))
        await asyncio.wait_for(asked.wait(), 10)
        found["spec"]["conversion"]["webhook"]["clientConfig"] = other
        await api.json("PUT", f"{CRDS}/widgets.{GROUP}", json=found)
        async with await asyncio.wait_for(reading, 10) as answer:
            assert answer.status == 503, await answer.text()
        assert (await api.json("GET", f"{BETA}/a"))["spec"] == {"length": 3}
        release.set()
