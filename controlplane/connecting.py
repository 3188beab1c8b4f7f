"""Byte streams over sockets that are connected already, with or without TLS; cancelled, they leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
import ssl


async def open_stream(
    sock: socket.socket, tls: ssl.SSLContext | None, server_name: str, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`; the socket belongs to the stream from now on. Raises OSError (TLS faults too).

    That function loses the socket's transport when it is cancelled before the handshake has begun: it closes the TLS
    one on top, which does nothing yet. `limit` in bytes, as `StreamReader` takes it.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    try:
        transport: asyncio.Transport
        if tls is None:
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        else:
            plain, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            upgraded = await loop.start_tls(plain, protocol, tls, server_hostname=server_name)
            assert upgraded is not None
            transport = upgraded
            protocol.connection_made(transport)
    except BaseException:
        sock.close()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
