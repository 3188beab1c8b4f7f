"""Which endpoint the next connection to a service port goes to: one after the other, or the one its client had.

Sans I/O: told clients and times, it answers with endpoints. Used by the proxies in `tcp` and `udp`. Behaves as
`LoadBalancerRR` of Kubernetes up to 1.25 (`pkg/proxy/userspace/roundrobin.go`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from netkit.proxy.addresses import Address
from netkit.proxy.endpoints import Endpoint


@dataclass(slots=True)
class _Session:
    endpoint: Endpoint
    last_used: float


class RoundRobin:
    """The choice for one service port. Times are seconds of any one clock.

    A new set of endpoints is shuffled and gone through from its start, so that proxies of several nodes do not all
    begin with the same one.
    """

    def __init__(self, shuffle: Callable[[list[Endpoint]], None] = random.shuffle) -> None:
        self._shuffle = shuffle
        self._endpoints: list[Endpoint] = []
        self._next = 0
        self._affinity_seconds: int | None = None
        self._sessions: dict[Address, _Session] = {}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in the order in which they are used, the next one first."""
        return (*self._endpoints[self._next :], *self._endpoints[: self._next])

    def configure(self, affinity_seconds: int | None) -> None:
        """Remember clients for so long after their last connection; None forgets them."""
        self._affinity_seconds = affinity_seconds
        if affinity_seconds is None:
            self._sessions.clear()

    def update(self, endpoints: Iterable[Endpoint]) -> frozenset[Endpoint]:
        """Choose among `endpoints` from now on: those that are gone. Their clients are forgotten.

        The same ones in whatever order change nothing.
        """
        new = list(endpoints)
        wanted = {endpoint.target for endpoint in new}
        if len(new) == len(self._endpoints) and wanted == {old.target for old in self._endpoints}:
            return frozenset()
        gone = frozenset(old for old in self._endpoints if old.target not in wanted)
        self._sessions = {
            client: session for client, session in self._sessions.items() if session.endpoint.target in wanted
        }
        self._shuffle(new)
        self._endpoints, self._next = new, 0
        return gone

    def choose(self, client: Address, now: float, *, afresh: bool = False) -> Endpoint | None:
        """The endpoint for a new connection of `client`; None if there is none at all.

        `afresh`: the one it had before does not answer.
        """
        if not self._endpoints:
            return None
        lasting = self._affinity_seconds
        if lasting is not None and not afresh:
            session = self._sessions.get(client)
            if session is not None and now - session.last_used < lasting:
                session.last_used = now
                return session.endpoint
        endpoint = self._endpoints[self._next]
        self._next = (self._next + 1) % len(self._endpoints)
        if lasting is not None:
            self._sessions[client] = _Session(endpoint, now)
        return endpoint

    def forget_idle(self, now: float) -> None:
        """Forget clients whose time is over."""
        lasting = self._affinity_seconds
        if lasting is not None:
            self._sessions = {
                client: session
                for client, session in self._sessions.items()
                if now - session.last_used < lasting
            }
