"""Many calls of one kind, started in growing batches so that a hopeless one costs little.

Used by controllers that create many objects: a quota or a missing ServiceAccount refuses all of them alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controlplane.client.transport import ConnectionFailed
from controlplane.errors import StatusError

Failure = StatusError | ConnectionFailed


async def slow_start(
    count: int, call: Callable[[int], Awaitable[None]], initial: int = 1
) -> tuple[int, list[Failure]]:
    """Call `call(0)` ... `call(count - 1)` in batches of 1, 2, 4, ... at once; stop after the first failing
    batch.

    Returns how many calls succeeded and the failures. Other exceptions than API errors propagate.
    """
    done = 0
    started = 0
    size = min(count, initial)
    while started < count:
        results = await asyncio.gather(
            *(call(number) for number in range(started, started + size)), return_exceptions=True
        )
        started += size
        failures: list[Failure] = []
        for result in results:
            if isinstance(result, StatusError | ConnectionFailed):
                failures.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                done += 1
        if failures:
            return done, failures
        size = min(2 * size, count - started)
    return done, []
