"""A socket on which the kernel tells of a namespace's links, addresses, routes and neighbours, as it happens.

`address_events` and `network_events` say which messages they want and what they mean.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, Generic, Self, TypeVar

from netkit.kernel import netns
from netkit.kernel.errors import from_os_error
from netkit.kernel.netlink import HEADER
from netkit.kernel.netns import Namespace

_ROUTE_PROTOCOL: Final = 0
_RECEIVED_AT_ONCE: Final = 1 << 16
_BUFFER_BYTES: Final = 4 << 20

E = TypeVar("E")


class EventsLost(Exception):
    """More happened than the socket could hold; nobody knows what."""


class RouteListener(ABC, Generic[E]):
    """Tells of everybody's changes, also the caller's own. Events count from its making on. Close it.

    `groups` are rtnetlink's, as bits; `what` is the ip(8) command that would show the same.
    """

    def __init__(self, ns: Namespace, groups: int, what: str) -> None:
        self._namespace = ns.name
        self._what = what
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = netns.socket_in(ns, socket.AF_NETLINK, kind, _ROUTE_PROTOCOL)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind((0, groups))

    @abstractmethod
    def event(self, kind: int, body: bytes) -> E | None:
        """What a message of this type says; None when nothing of interest."""

    async def next(self) -> tuple[E, ...]:
        """Wait for the next events. Raises EventsLost, or KernelError when the socket is of no use any more."""
        while True:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, _RECEIVED_AT_ONCE)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise EventsLost from error
                raise from_os_error(error, self._what, self._namespace) from error
            events = [
                event for kind, body in _messages(data) if (event := self.event(kind, body)) is not None
            ]
            if events:
                return tuple(events)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self.close()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, *_ = HEADER.unpack_from(data, offset)
        yield kind, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3
