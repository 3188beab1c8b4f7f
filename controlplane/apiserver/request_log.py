"""The latest requests and the streams that are open: what `netkit api requests` shows.

An observer of the core, read through the path /debug/requests. Keeps a bounded number of short records in memory and
writes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple

import orjson

from controlplane.apiserver.messages import ApiResponse, json_response
from controlplane.apiserver.options import Query
from controlplane.apiserver.passage import Passage
from controlplane.errors import Object

PATH = ("debug", "requests")
_KEPT = 5000
_UNREAD = 2000
"""Records a reader may leave unread; it then loses the oldest and is told how many."""


class Record(NamedTuple):
    """One request. `time` is when it arrived (seconds since 1970), `seconds` how long it took, `size` in bytes.

    `path` names what no resource is; `code` 0 = still open.
    """

    time: float
    user: str
    agent: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    path: str
    code: int
    seconds: float
    waited: float
    size: int
    remote: str

    def as_json(self) -> Object:
        return {
            "time": round(self.time, 6), "user": self.user, "agent": self.agent, "verb": self.verb,
            "group": self.group, "resource": self.resource, "subresource": self.subresource,
            "namespace": self.namespace, "name": self.name, "path": self.path, "code": self.code,
            "seconds": round(self.seconds, 6), "waited": round(self.waited, 6), "size": self.size,
            "remote": self.remote,
        }  # fmt: skip


class RequestLog:
    """See `passage.Observer`."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._latest: deque[Record] = deque(maxlen=kept)
        self._open: dict[int, Passage] = {}
        self._readers: set[_Reader] = set()
        self.total = 0

    def received(self, passage: Passage) -> None:
        return None

    def begun(self, passage: Passage) -> None:
        self._open[id(passage)] = passage
        self._tell(record(passage))

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        self.total += 1
        self._open.pop(id(passage), None)
        done = record(passage, passage.code)
        self._latest.append(done)
        self._tell(done)

    def answer(self, query: Query) -> ApiResponse:
        """The latest requests as one document, or (`follow=true`) a line for each from now on."""
        if query.flag("follow"):
            return ApiResponse(200, {"Content-Type": "application/json"}, self._follow(), is_watch=True)
        return json_response(
            200,
            {
                "total": self.total,
                "open": [record(passage).as_json() for passage in self._open.values()],
                "latest": [one.as_json() for one in self._latest],
            },
        )

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        reader = _Reader()
        self._readers.add(reader)
        try:
            while True:
                yield b"".join([orjson.dumps(obj) + b"\n" for obj in await reader.take()])
        finally:
            self._readers.discard(reader)

    def _tell(self, one: Record) -> None:
        for reader in self._readers:
            reader.offer(one)


class _Reader:
    """Lines for one client that follows."""

    def __init__(self) -> None:
        self._waiting: deque[Record] = deque(maxlen=_UNREAD)
        self._lost = 0
        self._some = asyncio.Event()

    def offer(self, one: Record) -> None:
        self._lost += len(self._waiting) == _UNREAD
        self._waiting.append(one)
        self._some.set()

    async def take(self) -> list[Object]:
        """What has come since the last time, at least one record."""
        await self._some.wait()
        self._some.clear()
        taken = [one.as_json() for one in self._waiting]
        if self._lost:
            taken.insert(0, {"lost": self._lost})
        self._waiting.clear()
        self._lost = 0
        return taken


def record(passage: Passage, code: int = 0) -> Record:
    """A passage as a record; code 0 while it is open."""
    request, info = passage.request, passage.info
    return Record(
        passage.received, request.user.name, request.headers.get("user-agent", "")[:200], info.verb, info.group,
        info.resource, info.subresource, info.namespace, info.name, "" if info.is_resource else info.path,
        code, passage.seconds, passage.waited, passage.size, request.remote,
    )  # fmt: skip
