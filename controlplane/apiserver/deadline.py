"""How long a request may take: the server's limit, or less when the client says so (`timeout=5s`).

Called by the core for everything but watches and streams.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from controlplane.apiserver.options import Query
from controlplane.errors import BadRequest, ServerTimeout

DEFAULT_SECONDS = 60.0
T = TypeVar("T")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a duration in Go's form (`1m30s`, `500ms`, `-2s`). Raises ValueError."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, end = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != end:
            break
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not rest or end != len(rest):
        raise ValueError(f"invalid duration {text!r}")
    return sign * total


def seconds(query: Query, limit: float) -> float | None:
    """The seconds this request may take when it says so, else None. Raises BadRequest for what is no duration."""
    text = query.text("timeout")
    if not text:
        return None
    try:
        asked = duration(text)
    except ValueError as error:
        raise BadRequest("invalid timeout specified in the request URL") from error
    return min(asked, limit) if asked > 0 else limit


def exceeded() -> ServerTimeout:
    return ServerTimeout(
        "Timeout: request did not complete within requested timeout - context deadline exceeded"
    )


class Deadlines:
    """One limit for many calls, with one timer for all of them: a timer each would cost more than most calls."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._running: dict[int, tuple[float, asyncio.Task[object]]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def keep(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result. Raises ServerTimeout when it takes longer than the limit; it is cancelled then."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._number += 1
        number = self._number
        self._running[number] = (loop.time() + self.limit, task)
        if self._timer is None:
            self._timer = loop.call_later(self.limit, self._strike)
        try:
            return await call()
        except asyncio.CancelledError:
            if number in self._running or task.uncancel() > 0:
                raise
            raise exceeded() from None
        finally:
            self._running.pop(number, None)

    def _strike(self) -> None:
        """Cancel what is over its time, oldest first, and come again for the next."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for number, (moment, task) in list(self._running.items()):
            if moment > loop.time():
                self._timer = loop.call_at(moment, self._strike)
                return
            del self._running[number]
            task.cancel()
