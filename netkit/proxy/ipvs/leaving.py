"""Real servers on their way out: they get no new connection and go when their last one has ended.

Sans I/O: told the time and what the kernel says of connections, it answers what may be deleted. Used by `backend`.
As in kube-proxy, they are looked at every minute; UDP and SCTP do not wait, because their connections have no end
that one could wait for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from netkit.kernel.ipvs_values import RealServer, ServerKey, Target, Transport

LOOK_SECONDS: Final = 60.0


class Leaving:
    """Who is leaving. Times are seconds of any clock that never goes back; a look is due every `look_seconds`."""

    def __init__(self, look_seconds: float = LOOK_SECONDS) -> None:
        self.look_seconds = look_seconds
        self._targets: dict[ServerKey, set[Target]] = {}
        self._next_look: float | None = None

    def __bool__(self) -> bool:
        return bool(self._targets)

    def __contains__(self, which: tuple[ServerKey, Target]) -> bool:
        return which[1] in self._targets.get(which[0], ())

    def of(self, key: ServerKey) -> frozenset[Target]:
        """Those that leave a virtual server."""
        return frozenset(self._targets.get(key, ()))

    def leave(self, key: ServerKey, reals: Iterable[RealServer], now: float) -> list[Target]:
        """These real servers, whose weight is 0 from now on, are not wanted any more: which can be deleted at once.

        The others are kept in mind. The first look is a minute after the first of them began to leave.
        """
        gone, staying = [], set()
        for real in reals:
            if not waits(key.transport) or not real.connections:
                gone.append(real.target)
            else:
                staying.add(real.target)
        self.drop(key, gone)
        if staying:
            self._targets.setdefault(key, set()).update(staying)
            if self._next_look is None:
                self._next_look = now + self.look_seconds
        return gone

    def drop(self, key: ServerKey, targets: Iterable[Target] | None = None) -> None:
        """These (None: all of the virtual server) do not leave any more: they are back, or deleted."""
        left = self._targets.get(key, set())
        left.difference_update(left.copy() if targets is None else targets)
        if not left:
            self._targets.pop(key, None)
        if not self._targets:
            self._next_look = None

    def delay(self, now: float) -> float | None:
        """Seconds until the next look (0: now), None while nobody leaves."""
        return None if self._next_look is None else max(0.0, self._next_look - now)

    def due(self, now: float) -> tuple[ServerKey, ...]:
        """The virtual servers to look at if it is time; then the next time is a minute later."""
        if self._next_look is None or now < self._next_look:
            return ()
        self._next_look = now + self.look_seconds
        return tuple(self._targets)

    def looked(self, key: ServerKey, reals: Iterable[RealServer]) -> list[Target]:
        """Told all real servers of a virtual server: those that can be deleted now, which leave until they are dropped.
        Those not among them are gone, those with a weight again are back.
        """
        found = {real.target: real for real in reals}
        mine = self.of(key)
        self.drop(key, [target for target in mine if target not in found or found[target].weight])
        return [target for target in self.of(key) if not found[target].connections]


def waits(transport: Transport) -> bool:
    """Whether connections of this protocol are waited for."""
    return transport is Transport.TCP
