"""Bytes that are no proper HTTP, clients that are slow, idle or deaf: one clear answer, an end, bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import socket
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.apiserver import Served, cluster

from controlplane.apiserver import app, wire

HOST = b"Host: x\r\n"
CLOSE = HOST + b"Connection: close\r\n"
NAMESPACES = b"POST /api/v1/namespaces HTTP/1.1\r\n"
WATCH = b"GET /api/v1/namespaces/default/configmaps?watch=1 HTTP/1.1\r\n" + HOST + b"\r\n"
LIMIT = 20.0


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with cluster(tmp_path) as served:
        yield served


async def connect(api: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(api.url.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port, ssl=api.client_tls())


async def sent(api: Served, data: bytes) -> bytes:
    """What comes until the server closes the connection. Raises TimeoutError when it does not."""
    reader, writer = await connect(api)
    try:
        writer.write(data)
        async with asyncio.timeout(LIMIT):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def post(headers: bytes, body: bytes = b"", length: bool = True) -> bytes:
    size = b"Content-Length: %d\r\n" % len(body) if length else b""
    return NAMESPACES + CLOSE + headers + size + b"\r\n" + body


def bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()


NAMED = b'{"metadata":{"name":"made"}}'
CASES = {
    "both lengths": (
        post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", False), 400),
    "two lengths": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcdef", False), 400),
    "a length with a sign": (post(b"Content-Length: +2\r\n", b"{}", False), 400),
    "a negative length": (post(b"Content-Length: -2\r\n", b"{}", False), 400),
    "an unknown coding": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n", False), 400),
    "chunks of nonsense": (post(b"Transfer-Encoding: chunked\r\n", b"ZZ\r\nab\r\n", False), 400),
    "a chunk too large": (post(b"Transfer-Encoding: chunked\r\n", b"F" * 18 + b"\r\nab\r\n", False), 400),
    "a folded header": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"X: a\r\n b\r\n\r\n", 400),
    "NUL in a header": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"X: a\0b\r\n\r\n", 400),
    "a space before the colon": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"X-Remote-User : root\r\n\r\n", 400),
    "a huge header": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 400),
    "many headers": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"X: a\r\n" * 20_000 + b"\r\n", 400),
    "no host": (b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an absolute target": (b"GET https://x/version HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "a tunnel": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "bytes in the path": (b"GET /api/v1/namespaces/\xff HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "bytes in the query": (b"GET /api/v1/pods?labelSelector=\xff HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "encoded bytes in the query": (
        b"GET /api/v1/pods?labelSelector=a%3d%ff HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "encoded bytes in the path": (b"GET /api/v1/namespaces/%ff HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "a long path": (b"GET /" + b"a/" * 15_000 + b" HTTP/1.1\r\n" + CLOSE + b"\r\n", 404),
    "a longer path": (b"GET /" + b"a/" * 60_000 + b" HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "bytes in the User-Agent": (post(b"User-Agent: \xff\xfe/x\r\n", NAMED), 201),
    "bytes in Impersonate-User": (
        b"GET /api/v1/pods HTTP/1.1\r\n" + CLOSE + b"Impersonate-User: \xff\r\n\r\n", 403),
    "bytes in Impersonate-Extra": (

         b"GET /api/v1/pods HTTP/1.1\r\n" + CLOSE + b"Impersonate-User: a\r\nImpersonate-Extra-x: \xff\r\n\r\n",
         403),
    "bytes in Accept": (b"GET /api/v1/pods HTTP/1.1\r\n" + CLOSE + b"Accept: \xff\r\n\r\n", 406),
    "bytes in Content-Type": (post(b"Content-Type: \xff\r\n", b"{}"), 415),
    "bytes in Audit-Id": (b"GET /version HTTP/1.1\r\n" + CLOSE + b"Audit-Id: \xff\r\n\r\n", 200),
    "a packed body": (post(b"Content-Encoding: gzip\r\n", gzip.compress(NAMED)), 400),
    "a bomb": (post(b"Content-Encoding: gzip\r\n", bomb()), 400),
    "a body that only says it is packed": (post(b"Content-Encoding: gzip\r\n", NAMED), 201),
    "a body too large": (post(b"", b" " * (3 * 1024 * 1024 + 1)), 413),
    "a surrogate": (post(b"", b'{"metadata":{"name":"\\ud800"}}'), 400),
    "bytes in a body": (post(b"", b'{"metadata":{"name":"\xff"}}'), 400),
    "a lower-case method": (b"get /version HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "an unknown method": (b"BREW /version HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "TRACE": (b"TRACE /version HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "lines without CR": (b"GET /version HTTP/1.1\nHost: x\n\n", 400),
}  # fmt: skip


async def test_every_case_has_its_answer(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Also that nothing of a request that is none gets into the log: there may be a token in it."""
    caplog.set_level(logging.DEBUG)
    for name, (data, code) in CASES.items():
        answer = await sent(api, data)
        assert answer.split(b" ")[1] == str(code).encode(), (name, answer[:600])
        assert answer.count(b"\r\nServer: ") == 1, (name, answer[-600:])
        if name == "bytes in the User-Agent" or name.startswith("a body that only"):
            await api.json("DELETE", "/api/v1/namespaces/made")
            await api.json(
                "PUT", "/api/v1/namespaces/made/finalize", json={"metadata": {"name": "made"}, "spec": {}}
            )
    secret = b"GET /version HTTP/1.1\r\n" + CLOSE + b"Authorization: Bearer hidden-token\0\r\n\r\n"
    assert b" 400 " in await sent(api, secret)
    assert "hidden-token" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("controlplane.apiserver.core")]
    assert (await api.json("GET", "/version"))["major"] == "1"


async def test_requests_one_behind_the_other(api: Served) -> None:
    one = b"GET /version HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await sent(api, one * 50 + b"GET /healthz HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 51


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /ver", b"GET /version HTTP/1.1\r\n" + HOST, b"GET /version HTTP/1.1\r\n" + HOST + b"\r\nGET /ver"],
    ids=["nothing", "a line", "a head", "a second request"],
)  # fmt: skip
async def test_heads_that_never_end(start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly the lines drip, the connection ends."""
    monkeypatch.setattr(app, "_KEEP_ALIVE_SECONDS", 0.3)
    async with cluster(tmp_path) as api:
        reader, writer = await connect(api)
        writer.write(start)

        async def drip() -> None:
            while not writer.is_closing():
                if start.endswith(b"\n"):
                    writer.write(b"X: a\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            async with asyncio.timeout(LIMIT):
                await reader.read()
        except ConnectionError:
            pass
        finally:
            dripping.cancel()
            writer.transport.abort()


async def test_bodies_that_never_end(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_BODY_SECONDS", 0.2)
    for head in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        answer = await sent(api, NAMESPACES + CLOSE + head)
        assert answer.startswith(b"HTTP/1.1 504 "), answer
        assert b'"reason":"Timeout"' in answer


async def test_a_client_that_says_no_more_but_listens(api: Served) -> None:
    reader, writer = await connect(api)
    writer.write(WATCH)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    sock = writer.get_extra_info("socket")
    assert isinstance(sock, object)
    os_socket = socket.socket(fileno=os.dup(sock.fileno()))
    os_socket.shutdown(socket.SHUT_WR)
    os_socket.close()
    await api.json("POST", "/api/v1/namespaces/default/configmaps", 201, json={"metadata": {"name": "seen"}})
    async with asyncio.timeout(LIMIT):
        read = b""
        while b'"seen"' not in read and not reader.at_eof():
            read += await reader.read(65536)
    writer.transport.abort()
    await quiet(api)


async def quiet(api: Served) -> None:
    """Until no watch is left on the server."""
    async with asyncio.timeout(LIMIT):
        while watches := list(api.server._watches):
            await asyncio.wait(watches)


async def test_watchers_that_do_not_read_are_cut_and_cost_little(api: Served) -> None:
    big = {"metadata": {"name": "big"}, "data": {"a": "x" * 200_000}}
    await api.json("POST", "/api/v1/namespaces/default/configmaps", 201, json=big)
    writers = []
    for _ in range(5):
        _, writer = await connect(api)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(WATCH)
        writers.append(writer)
    for number in range(60):
        big["data"]["b"] = str(number)
        await api.json("PUT", "/api/v1/namespaces/default/configmaps/big", json=big)
    assert api.server._runner is not None
    assert api.server._runner.server is not None
    waiting = [
        c.transport.get_write_buffer_size() for c in api.server._runner.server.connections if c.transport
    ]
    assert max(waiting) < 8 * 1024 * 1024
    assert sum(1 for size in waiting if size) >= 5
    assert api.server._stalled is not None
    for _ in range(4):
        api.server._stalled.sweep()
    await quiet(api)
    for writer in writers:
        writer.transport.abort()
    assert (await api.json("GET", "/version"))["major"] == "1"


async def test_who_reads_is_not_cut(api: Served) -> None:
    reader, writer = await connect(api)
    writer.write(WATCH)
    await reader.readline()
    assert api.server._stalled is not None
    for number in range(5):
        api.server._stalled.sweep()
        name = f"c{number}"
        await api.json(
            "POST", "/api/v1/namespaces/default/configmaps", 201, json={"metadata": {"name": name}}
        )
        async with asyncio.timeout(LIMIT):
            while name.encode() not in await reader.readline():
                assert not reader.at_eof()
    writer.transport.abort()


PIECES = st.one_of(
    st.sampled_from(
         [b"GET ", b"POST ", b"/", b"/api/v1/pods", b" HTTP/1.1\r\n", b"\r\n", b"\r", b"\n",
         b"Host: x\r\n", b":", b" ", b"\t",
         b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n",
         b"Connection: Upgrade\r\n",
         b"Upgrade: websocket\r\n", b"Upgrade: SPDY/3.1\r\n", b"Expect: 100-continue\r\n",
         b"?watch=1&timeoutSeconds=1", b"%", b"\0",
         b"Connection: close\r\n", b"Sec-WebSocket-Key: x\r\n", b"\x80\x03\x00\x01", b"Authorization: Bearer ",
         b"#", b"HTTP/1.0\r\n"]
    ),
    st.binary(max_size=6),
)  # fmt: skip


async def test_any_bytes(api: Served) -> None:
    """Whatever comes, the server says at most 4xx and goes on."""
    seen: list[bytes] = []

    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(PIECES, min_size=1, max_size=20))
    def collect(pieces: list[bytes]) -> None:
        seen.append(b"".join(pieces))

    collect()
    for data in seen:
        reader, writer = await connect(api)
        try:
            writer.write(data + b"\r\n\r\n")
            writer.write_eof() if writer.can_write_eof() else None
            async with asyncio.timeout(0.02):
                answer = await reader.read()
        except (TimeoutError, ConnectionError):
            answer = bytes(reader._buffer)  # type: ignore[attr-defined]
        finally:
            writer.transport.abort()
        assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5")), (data, answer)
    assert (await api.json("GET", "/version"))["major"] == "1"
