"""The client of the Kubernetes API: the only door to the API for controllers, scheduler and everything in
netkit.

All calls take a `Kind` and work on plain dicts. A refusal is raised as the class of `controlplane.errors`
that the answer's Status stands for; a server that cannot be reached as `ConnectionFailed`. Nothing is cached
here (see `informer`), and nothing is retried except what the server asks to be retried by `Retry-After`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from controlplane import errors
from controlplane.client.transport import Query, Response, Stream, Transport, lines
from controlplane.errors import Object, StatusError
from controlplane.resources.kind import Kind

_RETRIES = 5
_RETRY_LIMIT_SECONDS = 5.0
_WATCH_SECONDS = (300, 600)

_BY_CODE: Mapping[int, type[StatusError]] = {
    cls.code: cls
    for cls in (
        errors.BadRequest, errors.Unauthorized, errors.Forbidden, errors.NotFound, errors.MethodNotAllowed,
        errors.NotAcceptable, errors.Conflict, errors.Gone, errors.RequestEntityTooLarge,
        errors.UnsupportedMediaType, errors.Invalid, errors.TooManyRequests, errors.InternalError,
        errors.ServiceUnavailable, errors.ServerTimeout,
    )
}  # fmt: skip


class PatchType(StrEnum):
    """Content type of a patch."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class EventType(StrEnum):
    """What a watch says about an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class ObjectList:
    """`revision` is the list's resourceVersion: a watch from there misses nothing."""

    items: list[Object]
    revision: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One frame of a watch. A bookmark's object holds nothing but its resourceVersion."""

    type: EventType
    object: Object


class Client:
    """Talks to one API server through `transport`, which it closes with itself.

    `user_agent` is what the server records as field manager (the part before the slash) and in its logs.
    """

    def __init__(self, transport: Transport, user_agent: str = "kube-netkit") -> None:
        self._transport = transport
        self._headers = {"accept": "application/json", "user-agent": user_agent}

    def named(self, user_agent: str) -> Client:
        """A client over the same transport under another name; only one of them is to be closed."""
        return Client(self._transport, user_agent)

    async def close(self) -> None:
        """Drop all connections."""
        await self._transport.close()

    async def get(self, kind: Kind, name: str, namespace: str = "", subresource: str = "") -> Object:
        """One object. Raises NotFound."""
        return await self._call("GET", kind.path(namespace, name, subresource))

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
    ) -> ObjectList:
        """All objects of a kind, in one namespace or (empty) in all of them, as of one revision.

        `limit` > 0 fetches in pages of that size. Every item carries its apiVersion and kind.
        """
        query = _selectors(label_selector, field_selector)
        if limit:
            query.append(("limit", str(limit)))
        items: list[Object] = []
        token = ""
        while True:
            page = await self._call(
                "GET", kind.path(namespace), [*query, *([("continue", token)] if token else [])]
            )
            for item in page.get("items") or ():
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                items.append(item)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue", "")
            if not token:
                return ObjectList(items, str(metadata.get("resourceVersion", "")))

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", name: str = "", subresource: str = ""
    ) -> Object:
        """Create `obj` (in its own namespace unless given) and return it as stored.

        With `name` and `subresource` it posts to a subresource, e.g. a pod's `binding`. Raises AlreadyExists,
        Invalid.
        """
        namespace = namespace or obj.get("metadata", {}).get("namespace", "")
        return await self._call("POST", kind.path(namespace, name, subresource), (), obj)

    async def update(self, kind: Kind, obj: Object, subresource: str = "") -> Object:
        """Replace the object. With its resourceVersion in `obj` a lost race raises Conflict."""
        metadata = obj["metadata"]
        return await self._call(
            "PUT", kind.path(metadata.get("namespace", ""), metadata["name"], subresource), (), obj
        )

    async def update_status(self, kind: Kind, obj: Object) -> Object:
        """Replace the object's status; everything else in `obj` is ignored by the server."""
        return await self.update(kind, obj, "status")

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Any,
        namespace: str = "",
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
    ) -> Object:
        """Apply `patch` (a dict, or a list of operations for JSON patches) on the server."""
        query = (
            [("fieldManager", self._headers["user-agent"].split("/")[0])]
            if patch_type is PatchType.APPLY
            else []
        )
        return await self._call("PATCH", kind.path(namespace, name, subresource), query, patch, patch_type)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace: int | None = None,
        propagation: str = "",
        uid: str = "",
        revision: str = "",
    ) -> Object:
        """Delete one object; returns the object when deletion is pending, else a Status.

        `grace` in seconds (None = the object's own), `propagation` Background, Foreground or Orphan; `uid`
        and `revision` make it fail with Conflict when another object stands there by now. Raises NotFound.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", revision)) if value}
        if preconditions:
            options["preconditions"] = preconditions
        return await self._call("DELETE", kind.path(namespace, name), (), options)

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        propagation: str = "",
    ) -> None:
        """Delete everything of a kind in a namespace that the selectors match."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation:
            options["propagationPolicy"] = propagation
        await self._call("DELETE", kind.path(namespace), _selectors(label_selector, field_selector), options)

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        revision: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = True,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `revision` (empty: first everything present as ADDED), until the server ends the
        watch.

        Raises Expired when the revision is too old, ConnectionFailed when the connection breaks. Close the
        generator (`contextlib.aclosing`) when leaving it early.
        """
        query = _selectors(label_selector, field_selector)
        query.append(("watch", "true"))
        query.append(("timeoutSeconds", str(random.randint(*_WATCH_SECONDS))))
        if revision:
            query.append(("resourceVersion", revision))
        if bookmarks:
            query.append(("allowWatchBookmarks", "true"))
        async with self._transport.stream("GET", kind.path(namespace), query, self._headers) as stream:
            if stream.status >= 400:
                raise await _stream_error(stream)
            async with aclosing(lines(stream.chunks)) as frames:
                async for frame in frames:
                    parsed = orjson.loads(frame)
                    if parsed["type"] == "ERROR":
                        raise errors.from_status(parsed["object"], int(parsed["object"].get("code", 0)))
                    yield WatchEvent(EventType(parsed["type"]), parsed["object"])

    async def raw(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Any request as it is, e.g. `GET /version` or a pod's log. Raises the StatusError of a refusal."""
        return await self._send(method, path, query, {**self._headers, **(headers or {})}, body)

    async def raw_lines(self, path: str, query: Query = ()) -> AsyncGenerator[bytes, None]:
        """The lines of an endless answer as they come. Raises as `watch`; close the generator when leaving early."""
        async with self._transport.stream("GET", path, query, self._headers) as stream:
            if stream.status >= 400:
                raise await _stream_error(stream)
            async with aclosing(lines(stream.chunks)) as found:
                async for line in found:
                    yield line

    async def _call(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        if body is None:
            response = await self._send(method, path, query, self._headers, b"")
        else:
            headers = {**self._headers, "content-type": content_type}
            response = await self._send(method, path, query, headers, orjson.dumps(body))
        answer: Object = orjson.loads(response.body)
        return answer

    async def _send(
        self, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes
    ) -> Response:
        """One request, repeated while the server answers that it is overloaded and when to come back."""
        for attempt in range(_RETRIES + 1):
            response = await self._transport.request(method, path, query, headers, body)
            if response.status < 400:
                return response
            delay = response.headers.get("retry-after", "")
            if attempt == _RETRIES or not delay.isdigit() or response.status not in (429, 503, 504):
                break
            await asyncio.sleep(min(float(delay), _RETRY_LIMIT_SECONDS))
        raise _error(response.status, response.body)


def _selectors(label_selector: str, field_selector: str) -> list[tuple[str, str]]:
    pairs = (("labelSelector", label_selector), ("fieldSelector", field_selector))
    return [(name, value) for name, value in pairs if value]


def _error(status: int, body: bytes) -> StatusError:
    """The error of an answer; bodies that are no Status (proxies, crashed handlers) go by their code."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and parsed.get("kind") == "Status":
        return errors.from_status(parsed, status)
    text = body.decode(errors="replace").strip()[:500]
    return _BY_CODE.get(status, errors.InternalError)(text or f"the server answered {status}")


async def _stream_error(stream: Stream) -> StatusError:
    return _error(stream.status, b"".join([chunk async for chunk in stream.chunks]))
