"""Streams over connected sockets: bytes go both ways, and whoever stops waiting leaves nothing open."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from controlplane.apiserver.pki import CertificateAuthority
from controlplane.connecting import open_stream

NAME = "far.example"
LIMIT = 1024
STEPS = 20
"""More turns of the event loop than a TLS handshake on loopback takes."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


@pytest.fixture(params=[True, False], ids=["TLS", "plain"])
async def far(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[int, ssl.SSLContext | None]]:
    """A port that gives back a line, and the trust in it."""
    theirs = ours = None
    if request.param:
        authority = CertificateAuthority.load_or_create(tmp_path)
        paths = authority.ensure(
            "far", "far", (), [NAME], [ip_address("127.0.0.1")], client=False, server=True
        )
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(paths.cert, paths.key)
        ours = ssl.create_default_context(cafile=str(authority.certificate_path))
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=theirs)
    yield server.sockets[0].getsockname()[1], ours
    server.close()
    await server.wait_closed()


async def _connected(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def test_bytes_go_both_ways(far: tuple[int, ssl.SSLContext | None]) -> None:
    port, tls = far
    reader, writer = await open_stream(await _connected(port), tls, NAME, LIMIT)
    writer.write(b"hello\n")
    assert await reader.read() == b"hello\n"
    writer.close()
    await writer.wait_closed()


async def test_another_name_is_not_trusted(far: tuple[int, ssl.SSLContext | None]) -> None:
    port, tls = far
    if tls is None:
        return
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await open_stream(await _connected(port), tls, "near.example", LIMIT)


@pytest.mark.parametrize("steps", range(1, STEPS))
async def test_nothing_stays_open_when_cancelled(far: tuple[int, ssl.SSLContext | None], steps: int) -> None:
    port, tls = far
    sock = await _connected(port)
    number = sock.fileno()
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opening = asyncio.create_task(open_stream(sock, tls, NAME, LIMIT))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            _, writer = await opening
        except asyncio.CancelledError:
            pass
        else:
            writer.close()
            await writer.wait_closed()
            del writer
        del opening
        await asyncio.sleep(0.01)
        gc.collect()
    assert not [str(each.message) for each in told if f"fd={number}" in str(each.message)]
    assert sock.fileno() == -1
