"""What a cluster's API server was asked: the latest requests, those that are open, and new ones as they come.

Called by `netkit api requests`. Reads the server's own list; changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from statistics import median
from typing import Any

from controlplane.client.client import Client

_PATH = "/debug/requests"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request. `time` in seconds since 1970, `seconds` its duration, `waited` of them in the server's queue.

    `code` 0 = still open (a watch, a log that is followed, a tunnel). `size` in bytes of the answer.
    """

    time: float
    user: str
    agent: str
    verb: str
    what: str
    namespace: str
    name: str
    code: int
    seconds: float
    waited: float
    size: int


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Requests of one user for one thing: how many, how many of them are open or failed, and their median duration."""

    user: str
    agent: str
    verb: str
    what: str
    count: int
    open: int
    failed: int
    per_second: float
    median_seconds: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Requests of one part of the cluster or one person; `mostly` are the most frequent verbs and things."""

    who: str
    count: int
    open: int
    failed: int
    per_second: float
    mostly: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Texts that must be contained in a call's user (or its agent), what it is about, and its verb; empty = any.

    `since`: only calls that came after it, in seconds since 1970.
    """

    user: str = ""
    what: str = ""
    verb: str = ""
    namespace: str = ""
    since: float = 0.0

    def lets_through(self, call: ApiCall) -> bool:
        return (
            (self.user in call.user or self.user in call.agent)
            and self.what in call.what
            and self.verb in ("", call.verb)
            and self.namespace in ("", call.namespace)
            and (call.time >= self.since or call.code == 0)
        )


async def read(client: Client, wanted: Filter) -> tuple[list[ApiCall], list[ApiCall]]:
    """The calls that are over, oldest first, and those that are open. Raises StatusError, ConnectionFailed."""
    document = json.loads((await client.raw("GET", _PATH)).body)
    latest, still_open = (
        [call for call in map(call_of, document[key]) if wanted.lets_through(call)]
        for key in ("latest", "open")
    )
    return latest, still_open


async def follow(client: Client, wanted: Filter) -> AsyncGenerator[ApiCall | int, None]:
    """Calls as they end, or begin when they stay open; a number says how many were lost since the reader was slow."""
    async with aclosing(client.raw_lines(_PATH, (("follow", "true"),))) as told:
        async for line in told:
            document = json.loads(line)
            if "lost" in document:
                yield int(document["lost"])
                continue
            call = call_of(document)
            if wanted.lets_through(call):
                yield call


def call_of(record: Mapping[str, Any]) -> ApiCall:
    """One record as the server gives it."""
    resource = str(record["resource"])
    if resource and record["group"]:
        resource = f"{resource}.{record['group']}"
    if record["subresource"]:
        resource = f"{resource}/{record['subresource']}"
    return ApiCall(
        time=float(record["time"]),
        user=str(record["user"]),
        agent=str(record["agent"]).partition(" ")[0],
        verb=str(record["verb"]),
        what=resource or str(record["path"]),
        namespace=str(record["namespace"]),
        name=str(record["name"]),
        code=int(record["code"]),
        seconds=float(record["seconds"]),
        waited=float(record["waited"]),
        size=int(record["size"]),
    )


def grouped(latest: Sequence[ApiCall], still_open: Iterable[ApiCall]) -> list[CallGroup]:
    """Calls by user, agent, verb and what they are about, the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[ApiCall]] = {}
    for call in (*latest, *still_open):
        groups.setdefault((call.user, call.agent, call.verb, call.what), []).append(call)
    span = _span(latest)
    found = [
        CallGroup(
            *key,
            count=len(calls),
            open=sum(call.code == 0 for call in calls),
            failed=sum(call.code >= 400 for call in calls),
            per_second=round(len(calls) / span, 2),
            median_seconds=round(median([call.seconds for call in calls if call.code] or [0.0]), 6),
        )
        for key, calls in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.user, group.what, group.verb))


def callers(latest: Sequence[ApiCall], still_open: Iterable[ApiCall]) -> list[Caller]:
    """Calls by who asks, the busiest first."""
    found: dict[str, list[ApiCall]] = {}
    for call in (*latest, *still_open):
        found.setdefault(who(call), []).append(call)
    span = _span(latest)
    rows = [
        Caller(
            name,
            count=len(calls),
            open=sum(call.code == 0 for call in calls),
            failed=sum(call.code >= 400 for call in calls),
            per_second=round(len(calls) / span, 2),
            mostly=tuple(
                text for text, _ in Counter(f"{call.verb} {call.what}" for call in calls).most_common(_MOSTLY)
            ),
        )
        for name, calls in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.count, row.who))


_MOSTLY = 3
_PREFIXES = (
    "system:serviceaccount:kube-system:",
    "system:serviceaccount:",
    "system:node:",
    "system:",
    "netkit:",
)


def who(call: ApiCall) -> str:
    """Who asks, short: the user's name without Kubernetes' prefixes, and the program where that says more."""
    user = next(
        (call.user.removeprefix(prefix) for prefix in _PREFIXES if call.user.startswith(prefix)), call.user
    )
    program, _, part = call.agent.partition("/")
    if program in ("", user):
        return user
    return f"{user} ({program})" if part != user else f"{user} (in {program})"


def _span(latest: Sequence[ApiCall]) -> float:
    """Seconds the calls are spread over, at least one."""
    times = [call.time for call in latest]
    return max(max(times) - min(times), 1.0) if times else 1.0
