"""The client's requests and errors, over a transport that records and answers by script."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from controlplane import errors
from controlplane.client.client import Client, EventType, PatchType
from controlplane.client.transport import Query, Response, Stream, lines
from controlplane.resources.catalog import DEPLOYMENT, NODE, POD


class Script:
    """Answers requests in order."""

    def __init__(self, *answers: Response | list[bytes]) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, str, dict[str, str], Mapping[str, str], Any]] = []

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        self.seen.append((method, path, dict(query), headers or {}, json.loads(body) if body else None))
        answer = self.answers.pop(0)
        assert isinstance(answer, Response)
        return answer

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AsyncIterator[Stream]:
        self.seen.append((method, path, dict(query), headers or {}, None))
        answer = self.answers.pop(0)
        if isinstance(answer, Response):
            yield Stream(answer.status, answer.headers, _chunks([answer.body]))
        else:
            yield Stream(200, {}, _chunks(answer))

    async def close(self) -> None:
        self.answers.clear()


async def _chunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def ok(body: Any) -> Response:
    return Response(200, {}, json.dumps(body).encode())


async def test_paths_bodies_and_content_types() -> None:
    script = Script(*(ok({}) for _ in range(7)))
    client = Client(script, "tester/1")
    await client.get(NODE, "n1")
    await client.create(POD, {"metadata": {"name": "p", "namespace": "a"}})
    await client.create(POD, {"target": {}}, "a", "p", "binding")
    await client.update_status(DEPLOYMENT, {"metadata": {"name": "d", "namespace": "a"}})
    await client.patch(POD, "p", [{"op": "test"}], "a", PatchType.JSON)
    await client.delete(POD, "p", "a", grace=0, propagation="Orphan", uid="u")
    await client.delete_collection(POD, "a", label_selector="x=y")
    assert [(method, path) for method, path, *_ in script.seen] == [
        ("GET", "/api/v1/nodes/n1"),
        ("POST", "/api/v1/namespaces/a/pods"),
        ("POST", "/api/v1/namespaces/a/pods/p/binding"),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/d/status"),
        ("PATCH", "/api/v1/namespaces/a/pods/p"),
        ("DELETE", "/api/v1/namespaces/a/pods/p"),
        ("DELETE", "/api/v1/namespaces/a/pods"),
    ]
    assert script.seen[4][3]["content-type"] == "application/json-patch+json"
    assert script.seen[4][3]["user-agent"] == "tester/1"
    assert script.seen[5][4] == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Orphan",
        "preconditions": {"uid": "u"},
    }
    assert script.seen[6][2] == {"labelSelector": "x=y"}


async def test_lists_follow_pages_and_items_know_their_kind() -> None:
    first = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}
    script = Script(ok(first), ok(last))
    found = await Client(script).list(POD, limit=1, field_selector="spec.nodeName=n1")
    assert [(item["kind"], item["metadata"]["name"]) for item in found.items] == [("Pod", "a"), ("Pod", "b")]
    assert found.revision == "7"
    assert script.seen[1][2] == {"fieldSelector": "spec.nodeName=n1", "limit": "1", "continue": "more"}


async def test_refusals_are_their_class() -> None:
    body = errors.invalid(
        "Service", "", "x", [errors.Cause("FieldValueInvalid", "Invalid value", "spec.ports")]
    )
    script = Script(
        Response(422, {}, json.dumps(body.status()).encode()),
        Response(404, {}, b"404 page not found"),
        Response(502, {}, b"<html>bad gateway</html>"),
    )
    client = Client(script)
    with pytest.raises(errors.Invalid) as caught:
        await client.get(POD, "p", "a")
    assert caught.value.causes[0].field == "spec.ports"
    with pytest.raises(errors.NotFound, match="page not found"):
        await client.get(POD, "p", "a")
    with pytest.raises(errors.InternalError, match="bad gateway"):
        await client.get(POD, "p", "a")


async def test_an_overloaded_server_says_when_to_come_back() -> None:
    busy = Response(429, {"retry-after": "0"}, b"{}")
    script = Script(busy, busy, ok({"kind": "Pod"}))
    assert await Client(script).get(POD, "p", "a") == {"kind": "Pod"}
    script = Script(Response(429, {}, b"{}"))
    with pytest.raises(errors.TooManyRequests):
        await Client(script).get(POD, "p", "a")


async def collect(client: Client, seen: list[EventType]) -> None:
    async with aclosing(client.watch(POD, "a", "5")) as events:
        async for event in events:
            seen.append(event.type)


async def test_watch_frames_over_chunk_borders_bookmarks_and_errors() -> None:
    frames = b"".join(
        json.dumps(frame).encode() + b"\n"
        for frame in (
            {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
            {"type": "ERROR", "object": errors.Expired("too old resource version: 5 (900)").status()},
        )
    )
    script = Script([frames[:11], frames[11:70], frames[70:]])
    seen: list[EventType] = []
    with pytest.raises(errors.Expired, match="too old"):
        await collect(Client(script), seen)
    assert seen == [EventType.ADDED, EventType.BOOKMARK]
    query = script.seen[0][2]
    assert query["resourceVersion"] == "5"
    assert query["allowWatchBookmarks"] == "true"
    assert 300 <= int(query["timeoutSeconds"]) <= 600


async def test_a_refused_watch_is_raised() -> None:
    script = Script(Response(403, {}, json.dumps(errors.Forbidden("pods is forbidden").status()).encode()))
    with pytest.raises(errors.Forbidden):
        await collect(Client(script), [])


async def test_lines_drop_an_unfinished_one() -> None:
    parts = [b"a", b"b\n", b"\n", b"c\nd\nun", b"finished"]
    assert [line async for line in lines(_chunks(parts))] == [b"ab", b"c", b"d"]
