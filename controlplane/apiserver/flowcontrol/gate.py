"""The gate in front of the handlers: finds a request's priority level and waits for a seat in it.

The core calls `enter` before it authorizes and `leave` on what it got. Counts what happens, for /metrics.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from controlplane.apiserver.authz import MASTERS
from controlplane.apiserver.flowcontrol.queues import LevelConfig, PriorityLevel, Rejected
from controlplane.apiserver.flowcontrol.rules import Flow, FlowSchema, classify, in_order
from controlplane.apiserver.passage import Passage, Seat
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import TooManyRequests

PATIENCE_SECONDS = 15.0
"""How long a request waits for its turn: a quarter of the default request timeout, as upstream."""
RETRY_AFTER = 1
_REMEMBERED = 4096
_OBJECTS_PER_SEAT = 100
_WIDEST = 10

EXEMPT = LevelConfig("exempt", exempt=True)
CATCH_ALL = LevelConfig("catch-all", seats=5)
_NO_SCHEMA = FlowSchema("catch-all", "", CATCH_ALL.name, 10_000, "ByUser", ())
_MASTERS = FlowSchema("exempt", "", EXEMPT.name, 1, "", ())


class Gate(Protocol):
    async def enter(self, passage: Passage) -> Seat:
        """Wait for the request's turn. Raises TooManyRequests."""


class _FreeSeat:
    def leave(self) -> None:
        return None


class OpenGate:
    """Lets everyone in at once."""

    def __init__(self) -> None:
        self._seat = _FreeSeat()

    async def enter(self, passage: Passage) -> Seat:
        return self._seat


@dataclass(slots=True)
class _Place:
    """Where the requests of one kind of one user go: their flow, its level, and what their answers say of it."""

    flow: Flow
    level: PriorityLevel
    headers: Mapping[str, str]


@dataclass(slots=True)
class _TakenSeat:
    level: PriorityLevel
    width: int

    def leave(self) -> None:
        self.level.leave(self.width)


@dataclass(frozen=True, slots=True)
class WaitObserved:
    """How long one request waited: seconds, and whether it was let in."""

    schema: str
    level: str
    seconds: float
    dispatched: bool


class FairGate:
    """Seats by priority level. `total_seats` are shared out to the levels by their shares.

    `count_of(group, plural, namespace)` says how many objects a list would go through; one of many takes several seats.
    """

    def __init__(
        self, total_seats: int, count_of: Callable[[str, str, str], int], patience: float = PATIENCE_SECONDS
    ) -> None:
        self._total = total_seats
        self._count_of = count_of
        self._patience = patience
        self._schemas: list[FlowSchema] | None = None
        """None before the objects were read: nobody waits until it is known who would have to."""
        self._remembered: OrderedDict[tuple[object, ...], _Place] = OrderedDict()
        self.levels: dict[str, PriorityLevel] = {
            config.name: PriorityLevel(config) for config in (EXEMPT, CATCH_ALL)
        }
        self.dispatched: Counter[tuple[str, str]] = Counter()
        self.rejected: Counter[tuple[str, str, str]] = Counter()
        self.on_wait: Callable[[WaitObserved], None] | None = None
        self.before_each: Callable[[], None] | None = None

    @property
    def total_seats(self) -> int:
        return self._total

    def configure(self, schemas: Sequence[FlowSchema], levels: Sequence[LevelConfig]) -> None:
        """Take over the objects as they are now. The levels `exempt` and `catch-all` are always there."""
        wanted = {config.name: config for config in (EXEMPT, CATCH_ALL, *levels)}
        for name, config in wanted.items():
            if name in self.levels:
                self.levels[name].reconfigure(config)
            else:
                self.levels[name] = PriorityLevel(config)
        for name in self.levels.keys() - wanted.keys():
            level = self.levels[name]
            if level.executing or level.waiting:
                level.reconfigure(replace(level.config, seats=max(level.config.seats, 1)))
            else:
                del self.levels[name]
        self._schemas = in_order([schema for schema in schemas if schema.level in wanted])
        self._remembered.clear()

    async def enter(self, passage: Passage) -> Seat:
        """See `Gate`. The passage learns how long it waited."""
        if self.before_each is not None:
            self.before_each()
        place = self._place(passage.request.user, passage.info)
        flow, level = place.flow, place.level
        passage.headers = place.headers
        if level.config.exempt:
            level.executing += 1
            level.occupied += 1
            self.dispatched[flow.schema.name, level.config.name] += 1
            return _TakenSeat(level, 1)
        width = self._width(passage.info)
        began = time.perf_counter()
        try:
            width = await level.enter(f"{flow.schema.name}\0{flow.distinguisher}", width, self._patience)
        except Rejected as error:
            self.rejected[flow.schema.name, level.config.name, error.reason] += 1
            self._waited(flow, time.perf_counter() - began, dispatched=False)
            raise TooManyRequests(
                "too many requests, please try again later", retry_after=RETRY_AFTER
            ) from None
        passage.waited = time.perf_counter() - began
        self.dispatched[flow.schema.name, level.config.name] += 1
        self._waited(flow, passage.waited, dispatched=True)
        return _TakenSeat(level, width)

    def _waited(self, flow: Flow, seconds: float, *, dispatched: bool) -> None:
        if self.on_wait is not None:
            self.on_wait(WaitObserved(flow.schema.name, flow.schema.level, seconds, dispatched))

    def _place(self, user: UserInfo, info: RequestInfo) -> _Place:
        key = (
            user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace,
            "" if info.is_resource else info.path,
        )  # fmt: skip
        found = self._remembered.get(key)
        if found is None:
            flow = self._classify(user, info)
            level = self.levels[flow.schema.level]
            headers = {
                "X-Kubernetes-Pf-Flowschema-Uid": flow.schema.uid,
                "X-Kubernetes-Pf-Prioritylevel-Uid": level.config.uid,
            }
            found = _Place(flow, level, headers)
            self._remembered[key] = found
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    def _classify(self, user: UserInfo, info: RequestInfo) -> Flow:
        """The flow by the schemas; without one, administrators are exempt and all others share a narrow level."""
        if self._schemas is None:
            return Flow(_MASTERS, "")
        found = classify(self._schemas, user, info)
        if found is None:
            found = Flow(_MASTERS, "") if MASTERS in user.groups else Flow(_NO_SCHEMA, user.name)
        return found

    def _width(self, info: RequestInfo) -> int:
        """Seats a request takes: one, but lists and new watches more when there is much to go through."""
        if info.verb not in ("list", "watch") or not info.is_resource:
            return 1
        objects = self._count_of(info.group, info.resource, info.namespace)
        return min(1 + objects // _OBJECTS_PER_SEAT, _WIDEST)
