"""Bytes of anybody into the kubelet's streams: no traceback, no hang, no growth."""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from netkit.node.kubelet import port_forward
from netkit.node.kubelet.commands import WebSocketCommand
from netkit.node.kubelet.port_forward import SpdyForward, parse_port
from netkit.node.kubelet.server import KubeletServer
from netkit.node.kubelet.spdy_session import SpdySession
from netkit.node.runtime.client import RuntimeStream
from netkit.node.runtime.frames import Channel, encode
from netkit.node.streams.exec_protocol import Resize, StreamOptions, parse_resize
from netkit.node.streams.spdy import DataReceived, SpdyError, SpdyServer
from netkit.node.streams.spdy_dictionary import DICTIONARY

LIMIT = 10.0


def header_block(pairs: list[tuple[bytes, bytes]], deflate: Any) -> bytes:
    block = struct.pack(">I", len(pairs))
    for pair in pairs:
        for text in pair:
            block += struct.pack(">I", len(text)) + text
    return bytes(deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH))


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def opening(stream: int, pairs: list[tuple[bytes, bytes]], deflate: Any, flags: int = 0) -> bytes:
    return control(1, struct.pack(">IIBB", stream, 0, 0, 0) + header_block(pairs, deflate), flags)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(payload)) + payload


WORDS = st.sampled_from(
    b"streamtype streamType port requestid error data stdin stdout stderr resize 80 0 99999 \xff".split(b" ")
)
STREAMS = st.integers(0, 9)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Frames that are nearly right, in any order, some broken, perhaps cut off."""
    deflate = zlib.compressobj(zdict=DICTIONARY)
    sent = b""
    for _ in range(draw(st.integers(0, 12))):
        match draw(st.integers(0, 5)):
            case 0:
                pairs = draw(st.lists(st.tuples(WORDS, WORDS), max_size=4))
                sent += opening(draw(STREAMS), pairs, deflate, draw(st.integers(0, 3)))
            case 1:
                sent += data(draw(STREAMS), draw(st.binary(max_size=40)), draw(st.integers(0, 3)))
            case 2:
                sent += control(3, struct.pack(">II", draw(STREAMS), draw(STREAMS)))
            case 3:
                version = draw(st.sampled_from([3, 3, 3, 2]))
                sent += control(draw(st.integers(0, 12)), draw(st.binary(max_size=20)), version=version)
            case 4:
                sent += control(6, draw(st.binary(max_size=4)))
            case _:
                sent += draw(st.binary(max_size=20))
    return sent[: draw(st.integers(0, len(sent)))]


@settings(max_examples=300)
@given(st.one_of(conversations(), st.binary(max_size=200)))
def test_the_codec_says_what_is_wrong_and_nothing_else(sent: bytes) -> None:
    whole, pieces = SpdyServer(), SpdyServer()
    told: list[Any] = []
    for server, cuts in ((whole, [sent]), (pieces, [sent[at : at + 1] for at in range(len(sent))])):
        events: list[Any] = []
        try:
            for cut in cuts:
                events += server.receive(cut)
        except SpdyError as error:
            events.append(str(error))
        told.append([event for event in events if not isinstance(event, DataReceived)])
    assert told[0] == told[1]


def test_a_header_block_that_swells_is_refused() -> None:
    server, deflate = SpdyServer(), zlib.compressobj(9, zdict=DICTIONARY)
    bomb = opening(1, [(b"a", bytes(40 << 20))], deflate)
    assert len(bomb) < 64 * 1024
    with pytest.raises(SpdyError, match="header block of more than 262144 bytes"):
        list(server.receive(bomb))


def test_a_control_frame_is_not_waited_for_beyond_its_limit() -> None:
    with pytest.raises(SpdyError, match="control frame of 16777215 bytes"):
        list(SpdyServer().receive(struct.pack(">HHI", 0x8003, 1, 0xFFFFFF)))


def test_a_long_data_frame_is_passed_on_as_it_comes() -> None:
    server = SpdyServer()
    events = list(server.receive(struct.pack(">II", 1, 0x01FFFFFF)))
    assert events == []
    for _ in range(10):
        (event,) = server.receive(b"x" * 1000)
        assert event == DataReceived(1, b"x" * 1000, False)


class Wire:
    """A connection in memory: gives `sent` in pieces, then waits for `hang_up`. What is written can be counted."""

    def __init__(self, sent: bytes, size: int = 7) -> None:
        self.left = [sent[at : at + size] for at in range(0, len(sent), size)]
        self.written = 0
        self.taken = 0
        self.given = asyncio.Event()
        self._hung_up = asyncio.Event()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.left:
            self.taken += 1
            return self.left.pop(0)
        self.given.set()
        await self._hung_up.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.written += len(data)

    async def close(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        self._hung_up.set()


class Echo:
    """Stands for what listens in a pod: connections to it, as `port_forward.connect` gives them."""

    def __init__(self) -> None:
        self.open = 0
        self._closed = asyncio.Condition()

    @asynccontextmanager
    async def running(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Echo]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()[:2]

        async def connect(network: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(*where)

        monkeypatch.setattr(port_forward, "connect", connect)
        async with server:
            yield self

    async def idle(self) -> None:
        """Return when no connection is open."""
        async with self._closed:
            await self._closed.wait_for(lambda: not self.open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while chunk := await reader.read(1000):
                writer.write(chunk)
        except ConnectionError:
            return
        finally:
            self.open -= 1
            writer.close()
            async with self._closed:
                self._closed.notify_all()


async def forward(sent: bytes) -> None:
    before = asyncio.all_tasks()
    wire = Wire(sent)
    session = SpdySession(wire)
    reading = asyncio.create_task(session.run())
    serving = asyncio.create_task(SpdyForward(session, "net", "default/p").run())
    async with asyncio.timeout(LIMIT):
        await asyncio.wait(
            [reading, asyncio.create_task(wire.given.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        wire.given.set()
        wire.hang_up()
        await reading
        await serving
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if "serve" not in repr(task.get_coro())]
    assert left == []


async def test_port_forward_takes_any_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context)))
    loop = asyncio.get_running_loop()
    samples: list[bytes] = []

    @settings(max_examples=60, database=None)
    @given(conversations())
    def collect(sent: bytes) -> None:
        samples.append(sent)

    await loop.run_in_executor(None, collect)
    async with Echo().running(monkeypatch):
        for sent in samples:
            await forward(sent)
    assert failures == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_streams_that_are_opened_and_dropped_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    sent = b""
    for number in range(1, 3000, 2):
        kind = b"data" if number % 4 == 1 else b"error"
        pairs = [(b"streamtype", kind), (b"port", b"80"), (b"requestid", str(number).encode())]
        sent += opening(number, pairs, deflate)
        if kind == b"data":
            sent += control(3, struct.pack(">II", number, 5))
    async with Echo().running(monkeypatch) as echo:
        wire = Wire(sent, 5000)
        session = SpdySession(wire)
        reading = asyncio.create_task(session.run())
        serving = asyncio.create_task(SpdyForward(session, "net", "default/p").run())
        async with asyncio.timeout(LIMIT):
            await wire.given.wait()
            await echo.idle()
            assert len(session._streams) <= 1000
            wire.hang_up()
            await asyncio.gather(reading, serving)


async def test_what_nobody_reads_is_not_taken_in() -> None:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    sent = opening(1, [(b"streamtype", b"stdin")], deflate) + data(1, b"x" * (8 << 20))
    wire = Wire(sent, 64 * 1024)
    session = SpdySession(wire)
    reading = asyncio.create_task(session.run())
    async with asyncio.timeout(LIMIT):
        stream = await session.accept()
        assert stream is not None
        for _ in range(200):
            await asyncio.sleep(0)
        assert wire.taken <= 8
        size = 0
        while size < 8 << 20:
            size += len(await stream.read())
    assert size == 8 << 20
    wire.hang_up()
    await reading


@given(st.one_of(st.binary(max_size=60), st.just(b"[" * 1020), st.just(b'{"Width": 1e999, "Height": 2}')))
def test_any_bytes_as_a_size(sent: bytes) -> None:
    found = parse_resize(sent)
    assert found is None or isinstance(found, Resize)


@given(st.text(max_size=8))
def test_any_text_as_a_port(text: str) -> None:
    port = parse_port(text)
    assert port is None or (0 < port < 65536 and int(text) == port)


# The whole server, with a runtime that echoes.


class Program:
    """A stream of the runtime that gives its input back, and ends with code 0 after the end of input."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[list[tuple[Channel, bytes]]] = asyncio.Queue(16)
        self.closed = asyncio.Event()

    async def write(self, data: bytes) -> None:
        if data:
            await self._frames.put([(Channel.STDOUT, data)])

    async def end_of_input(self) -> None:
        await self._frames.put([(Channel.EXIT, b'{"exit_code": 0}')])

    async def resize(self, width: int, height: int) -> None:
        assert len(encode(Channel.RESIZE, str((width, height)).encode())) < 200

    async def read(self) -> list[tuple[Channel, bytes]]:
        return await self._frames.get()

    async def close(self) -> None:
        self.closed.set()


class Runtime:
    def __init__(self) -> None:
        self.programs: list[Program] = []

    async def stream(self, request: object) -> RuntimeStream:
        self.programs.append(Program())
        return cast("RuntimeStream", self.programs[-1])

    async def all_closed(self) -> None:
        async with asyncio.timeout(LIMIT):
            for program in self.programs:
                await program.closed.wait()


class OpenServer(KubeletServer):
    """Lets everybody in: there is no TLS here to show a certificate."""

    def _authorize(self, request: web.Request) -> None:
        return None


@pytest.fixture
async def kubelet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[tuple[int, Runtime]]:
    caplog.set_level(logging.WARNING)
    view = SimpleNamespace(current=SimpleNamespace(id="c1", running=True))
    worker = SimpleNamespace(
        views=SimpleNamespace(by_name={"c": view}), sandbox=SimpleNamespace(netns="net"), key="default/p"
    )
    pods = SimpleNamespace(find=lambda namespace, name: worker if name == "p" else None)
    runtime = Runtime()
    tls = SimpleNamespace(allowed_names=frozenset(), allowed_groups=frozenset())
    made = OpenServer(
        cast("Any", SimpleNamespace(tls=tls)), cast("Any", pods), cast("Any", runtime), cast("Any", None)
    )
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context)))
    runner = web.AppRunner(made.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1], runtime
    await runner.cleanup()
    assert failures == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


EXEC = "/exec/default/p/c?command=cat&input=1&output=1&error=1"


async def talk(port: int, target: str, headers: str, sent: bytes) -> bytes:
    """One request whose connection is upgraded, `sent` right behind; all that came back until the server is done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(LIMIT):
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{headers}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head.partition(b"\r\n")[0]:
                return head
            writer.write(sent)
            if writer.can_write_eof():
                writer.write_eof()
            return head + await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def websocket(protocol: str) -> str:
    offered = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    return f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{key}\r\n{offered}"


def masked(opcode: int, payload: bytes) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


SPDY = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
MESSAGES = st.lists(
    st.one_of(
        st.builds(masked, st.integers(0, 15), st.binary(max_size=130)),
        st.builds(
            lambda channel, payload: masked(2, bytes([channel]) + payload),
            st.sampled_from([0, 1, 3, 4, 5, 255]),
            st.binary(max_size=20),
        ),
        st.binary(max_size=16),
    ),
    max_size=6,
).map(b"".join)


def examples(strategy: st.SearchStrategy[bytes], count: int) -> Callable[[], list[bytes]]:
    def collect() -> list[bytes]:
        found: list[bytes] = []

        @settings(max_examples=count, database=None)
        @given(strategy)
        def gather(sent: bytes) -> None:
            found.append(sent)

        gather()
        return found

    return collect


PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)


async def test_exec_over_websockets_takes_any_frames(kubelet: tuple[int, Runtime]) -> None:
    port, runtime = kubelet
    sent = await asyncio.get_running_loop().run_in_executor(None, examples(MESSAGES, 50))
    for at, each in enumerate(sent):
        answer = await talk(port, EXEC, websocket(PROTOCOLS[at % len(PROTOCOLS)]), each)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 101 ")
    await runtime.all_closed()


async def test_exec_over_spdy_takes_any_frames(kubelet: tuple[int, Runtime]) -> None:
    port, runtime = kubelet
    sent = await asyncio.get_running_loop().run_in_executor(None, examples(conversations(), 50))
    for each in sent:
        answer = await talk(port, EXEC, SPDY, each)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 101 ")
    await runtime.all_closed()


async def test_port_forward_over_both_takes_any_frames(
    kubelet: tuple[int, Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = kubelet
    target = "/portForward/default/p?port=80"
    loop = asyncio.get_running_loop()
    frames = await loop.run_in_executor(None, examples(MESSAGES, 15))
    spdy = await loop.run_in_executor(None, examples(conversations(), 15))
    tunnel = websocket("SPDY/3.1+portforward.k8s.io")
    async with Echo().running(monkeypatch):
        for sent in frames:
            for protocol in ("v4.channel.k8s.io", "SPDY/3.1+portforward.k8s.io", ""):
                await talk(port, target, websocket(protocol), sent)
        for sent in spdy:
            await talk(
                port, target, "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n", sent
            )
            await talk(port, target, tunnel, masked(2, sent[:120]))


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/exec/default/p/c?command=ls", "Upgrade: h2c\r\n", b"400"),
        ("/exec/default/p/c?command=ls", "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n", b"403"),
        ("/exec/default/p/none?command=ls", SPDY, b"500"),
        ("/exec/default/nobody/c?command=ls", SPDY, b"404"),
        ("/portForward/default/p?port=%C2%B2", websocket("v4.channel.k8s.io"), b"400"),
        ("/portForward/default/p?port=99999", websocket(""), b"400"),
    ],
)
async def test_what_is_refused(
    kubelet: tuple[int, Runtime], target: str, headers: str, status: bytes
) -> None:
    head = await talk(kubelet[0], target, headers, b"")
    assert head.split(b" ")[1] == status


async def test_a_refusal_in_the_newest_protocol(kubelet: tuple[int, Runtime]) -> None:
    answer = await talk(
        kubelet[0], "/exec/default/p/none?command=ls&output=1", websocket("v5.channel.k8s.io"), b""
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    said = b'Internal error occurred: unable to upgrade connection: container not found (\\"none\\")'
    assert said in body
    refused = await talk(kubelet[0], "/attach/default/p/none?output=1", websocket("v4.channel.k8s.io"), b"")
    assert refused.startswith(b"HTTP/1.1 500 ")


SUCCESS = b'\x03{"metadata": {}, "status": "Success"}'


@pytest.mark.parametrize(
    ("protocol", "sent", "came"),
    [
        ("v5.channel.k8s.io", masked(2, b"\0hi") + masked(2, b"\xff\0"), [b"\x01", b"\x01hi", SUCCESS]),
        ("v4.base64.channel.k8s.io", masked(1, b"0aGk=") + masked(2, b"\xff\0"), [b"1", b"1aGk="]),
        ("", masked(2, b"\0hi"), [b"\x01", b"\x01hi"]),
    ],
)  # fmt: skip
async def test_the_protocols_of_websockets(
    kubelet: tuple[int, Runtime], protocol: str, sent: bytes, came: list[bytes]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet[0])
    writer.write(
        f"GET {EXEC} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{websocket(protocol)}\r\n".encode()
    )
    async with asyncio.timeout(LIMIT):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        body = b""
        while len(messages(body)) < len(came):
            body += await reader.read(1000)
    writer.close()
    assert (f"Sec-WebSocket-Protocol: {protocol}".encode() in head) == bool(protocol)
    assert messages(body)[: len(came)] == came


def messages(body: bytes) -> list[bytes]:
    found = []
    while len(body) >= 2 and body[0] & 15 in (1, 2):
        length = body[1]
        found.append(body[2 : 2 + length])
        body = body[2 + length :]
    return found


async def test_the_first_message_names_a_channel_of_ours() -> None:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    for options in ((False, True, True), (True, False, True), (True, False, False)):
        socket = SimpleNamespace(ws_protocol="v5.channel.k8s.io", closed=False, send_bytes=send)
        stdin, stdout, stderr = options
        command = WebSocketCommand(cast("Any", socket))
        await command.begin(StreamOptions(stdin=stdin, stdout=stdout, stderr=stderr, tty=False))
    assert sent == [b"\x01", b"\x02", b"\x03"]
