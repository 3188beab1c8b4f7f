"""The node ports of the cluster. Called by `services`; in memory only."""

from __future__ import annotations

import random

from controlplane.apiserver.allocation.cluster_ips import AllocationError
from controlplane.apiserver.allocation.pool import NumberPool

DEFAULT_FIRST, DEFAULT_LAST = 30000, 32767


def _static_band(size: int) -> int:
    """How many of the first ports are left to explicit requests."""
    return 0 if size <= 16 else min(max(16, size // 32), 128)


class NodePorts:
    """Hands out ports `first`..`last`, both included."""

    def __init__(
        self, first: int = DEFAULT_FIRST, last: int = DEFAULT_LAST, rng: random.Random | None = None
    ) -> None:
        self._first = first
        self._last = last
        size = last - first + 1
        self._pool = NumberPool(size, _static_band(size), rng)

    def allocate(self, port: int) -> None:
        """Take that port. Raises AllocationError when it is taken or not of the range."""
        if not self._first <= port <= self._last:
            raise AllocationError(
                f"provided port is not in the valid range. "
                f"The range of valid ports is {self._first}-{self._last}"
            )
        if not self._pool.take(port - self._first):
            raise AllocationError("provided port is already allocated")

    def allocate_next(self) -> int:
        """Take any free port. Raises AllocationError when there is none."""
        number = self._pool.choose()
        if number is None:
            raise AllocationError("range is full")
        return self._first + number

    def release(self, port: int) -> None:
        """Free a port; one that is not of the range is nobody's."""
        if self._first <= port <= self._last:
            self._pool.free(port - self._first)

    def clear(self) -> None:
        self._pool.clear()

    def __contains__(self, port: int) -> bool:
        return port - self._first in self._pool
