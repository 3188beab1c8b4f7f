"""Serves one builtin container's UDP port on a bound socket. Used by `builtin`; answers come from
`behaviours`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from netkit.node.runtime.behaviours import Endpoint, Facts, answer_datagram
from netkit.node.runtime.meter import Spent


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, behaviour: str, facts: Facts, spent: Spent) -> None:
        self._spent = spent
        self._behaviour = behaviour
        self._facts = facts
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        assert self._transport is not None
        with self._spent:
            client = Endpoint(str(addr[0]).removeprefix("::ffff:"), addr[1])
            self._transport.sendto(answer_datagram(self._behaviour, data, self._facts, client), addr)


async def serve_datagrams(
    bound: socket.socket, behaviour: str, facts: Facts, spent: Spent
) -> asyncio.DatagramTransport:
    """Answer on `bound` until the transport given back is closed."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(behaviour, facts, spent), sock=bound
    )
    return transport
