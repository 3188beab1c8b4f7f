"""Which numbers of a range are taken: by request, or chosen. Cluster addresses and node ports are numbered here. Pure.

The lower band is left to explicit requests as long as the upper one has room (KEP-3070, KEP-3668): what people write
into manifests collides less with what the server hands out.
"""

from __future__ import annotations

import itertools
import random

_PROBES = 16
"""Random tries before the band is searched in order."""


class NumberPool:
    """Numbers 0..size-1; those below `static` are chosen last. `rng` decides the choice."""

    def __init__(self, size: int, static: int, rng: random.Random | None = None) -> None:
        self._size = size
        self._static = static if static < size else 0
        self._rng = rng or random.SystemRandom()
        self._taken: set[int] = set()

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def take(self, number: int) -> bool:
        """Take one; False when it is taken already."""
        if number in self._taken:
            return False
        self._taken.add(number)
        return True

    def choose(self) -> int | None:
        """Take a free one; None when all are taken."""
        for low, high in ((self._static, self._size), (0, self._static)):
            number = self._search(low, high)
            if number is not None:
                self._taken.add(number)
                return number
        return None

    def free(self, number: int) -> None:
        self._taken.discard(number)

    def clear(self) -> None:
        self._taken.clear()

    def _search(self, low: int, high: int) -> int | None:
        if low >= high:
            return None
        start = low
        for _ in range(_PROBES):
            start = self._rng.randrange(low, high)
            if start not in self._taken:
                return start
        in_order = itertools.chain(range(start, high), range(low, start))
        return next((number for number in in_order if number not in self._taken), None)
