"""Events about objects, sent in the background, counted and thinned out as client-go does.

Used by controllers, scheduler and node agents. Recording never blocks and never fails the caller: an event
that cannot be delivered is dropped with a log line.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta.objects import name, namespace, uid
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import EVENT
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"

_REMEMBERED = 4096
_SIMILAR_LIMIT = 10
_SIMILAR_SECONDS = 600.0
_BURST = 25
_REFILL_SECONDS = 300.0
_QUEUE_LIMIT = 1000
_ATTEMPTS = 12
_COMBINED = "(combined from similar events): "

V = TypeVar("V")


class _Recent(Generic[V]):
    """A map that forgets what was used longest ago."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > _REMEMBERED:
            self._values.popitem(last=False)


@dataclass(slots=True)
class _Tokens:
    """A bucket of events one object may still emit."""

    left: float = _BURST
    at: float = field(default_factory=time.monotonic)

    def take(self, moment: float) -> bool:
        self.left = min(_BURST, self.left + (moment - self.at) / _REFILL_SECONDS)
        self.at = moment
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class _Similar:
    """Different messages seen lately for the same object, reason and type."""

    messages: set[str] = field(default_factory=set)
    at: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Known:
    """The Event object that stands for a series of equal events."""

    name: str
    first: str
    count: int = 1


class EventRecorder:
    """Records events of one `component` (e.g. `kubelet`) on one `host`.

    Equal events raise the count of one Event object; more than ten different messages for the same reason
    within ten minutes are combined; an object may emit 25 at once and then one per five minutes.
    """

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._queue: deque[Object] = deque()
        self._task: asyncio.Task[None] | None = None
        self._known: _Recent[_Known] = _Recent()
        self._similar: _Recent[_Similar] = _Recent()
        self._tokens: _Recent[_Tokens] = _Recent()
        self._serial = time.time_ns()

    def event(
        self, kind: Kind, obj: Object, type_: str, reason: str, message: str, field_path: str = ""
    ) -> None:
        """Record that something happened to `obj`. Call it from inside the loop.

        `type_` is NORMAL or WARNING; `field_path` names a part of the object, e.g. `spec.containers{web}`.
        """
        moment = time.monotonic()
        involved = _reference(kind, obj, field_path)
        place = (involved["kind"], involved.get("namespace", ""), involved["name"], involved.get("uid", ""))
        tokens = self._tokens.get(place)
        if tokens is None:
            tokens = _Tokens()
            self._tokens.put(place, tokens)
        if not tokens.take(moment) or len(self._queue) >= _QUEUE_LIMIT:
            log.debug("%s: event %s dropped, too many of them", name(obj), reason)
            return
        message = self._combined((place, field_path, reason, type_), message, moment)
        self._queue.append(self._build(involved, type_, reason, message))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._deliver(), name="event recorder")

    async def flush(self) -> None:
        """Return when everything recorded so far was delivered or dropped."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Drop what is not delivered yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _combined(self, key: Hashable, message: str, moment: float) -> str:
        similar = self._similar.get(key)
        if similar is None or moment - similar.at > _SIMILAR_SECONDS:
            similar = _Similar()
            self._similar.put(key, similar)
        similar.at = moment
        if message in similar.messages or len(similar.messages) < _SIMILAR_LIMIT:
            similar.messages.add(message)
            return message
        return _COMBINED + message

    def _build(self, involved: Object, type_: str, reason: str, message: str) -> Object:
        self._serial = max(self._serial + 1, time.time_ns())
        place = involved.get("namespace") or "default"
        stamp = now()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{involved['name']}.{self._serial:x}", "namespace": place},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": self._source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "type": type_,
            "eventTime": None,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }

    async def _deliver(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            backoff = Backoff(0.1, 10.0)
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await self._send(event)
                    break
                except ConnectionFailed as error:
                    if attempt == _ATTEMPTS:
                        log.warning("%s: event dropped: %s", event["metadata"]["name"], error)
                    else:
                        await asyncio.sleep(backoff.next())
                except StatusError as error:
                    # E.g. the object's namespace is going away: nobody will read it there.
                    log.info("%s: event refused: %s", event["metadata"]["name"], error)
                    break

    async def _send(self, event: Object) -> None:
        """Create the event, or raise the count of the one that already says the same."""
        involved = event["involvedObject"]
        which = sorted(item for item in involved.items() if item[0] != "resourceVersion")
        key = (*which, event["type"], event["reason"], _series_text(event["message"]))
        known = self._known.get(key)
        if known is not None:
            patch = {
                "count": known.count + 1,
                "lastTimestamp": event["lastTimestamp"],
                "message": event["message"],
            }
            try:
                await self._client.patch(EVENT, known.name, patch, event["metadata"]["namespace"])
            except NotFound:
                # It has expired.
                event = {**event, "firstTimestamp": event["lastTimestamp"]}
            else:
                known.count += 1
                return
        await self._client.create(EVENT, event)
        self._known.put(key, _Known(event["metadata"]["name"], event["firstTimestamp"]))


def _series_text(message: str) -> str:
    """Combined events form one series whatever they say."""
    return _COMBINED if message.startswith(_COMBINED) else message


def _reference(kind: Kind, obj: Object, field_path: str) -> Object:
    reference: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "name": name(obj)}
    pairs = (
        ("namespace", namespace(obj)),
        ("uid", uid(obj)),
        ("resourceVersion", str(obj["metadata"].get("resourceVersion", ""))),
        ("fieldPath", field_path),
    )
    reference.update((key, value) for key, value in pairs if value)
    return reference
