"""Exec and attach: a client's channels joined to a stream of the runtime, whatever the transport (loop)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Sequence
from typing import Protocol

from aiohttp import WSMsgType, web

from controlplane.errors import Object
from netkit.node.kubelet.spdy_session import SpdySession, SpdyStream
from netkit.node.runtime.client import RuntimeStream, exit_code_of
from netkit.node.runtime.frames import Channel as RuntimeChannel
from netkit.node.streams.exec_protocol import (
    CLOSE_SIGNAL,
    Channel,
    Resize,
    Stdin,
    StreamOptions,
    exit_status,
    parse_resize,
    status_bytes,
)

_OPEN_SECONDS = 30.0


class CommandChannel(Protocol):
    """One client of exec or attach."""

    async def receive(self) -> Stdin | Resize | None:
        """The next thing the client says; None when it is gone."""

    async def send(self, channel: Channel, data: bytes) -> None:
        """Output. Raises ConnectionError when the client is gone."""

    async def finish(self, status: Object) -> None:
        """The final status, then the end."""


async def join(client: CommandChannel, program: RuntimeStream, options: StreamOptions) -> None:
    """Carry bytes until the program has ended or the client has left."""
    inwards = asyncio.create_task(_inwards(client, program, options))
    outwards = asyncio.create_task(_outwards(client, program, options))
    try:
        await asyncio.wait([inwards, outwards], return_when=asyncio.FIRST_COMPLETED)
        if outwards.done():
            with contextlib.suppress(ConnectionError):
                code = outwards.result()
                if code is not None:
                    await client.finish(exit_status(code))
    finally:
        for task in (inwards, outwards):
            task.cancel()
        await asyncio.gather(inwards, outwards, return_exceptions=True)
        await program.close()


async def _inwards(client: CommandChannel, program: RuntimeStream, options: StreamOptions) -> None:
    while (said := await client.receive()) is not None:
        if isinstance(said, Resize):
            await program.resize(said.width, said.height)
            continue
        if options.stdin:
            await program.write(said.data)
            if said.finished:
                await program.end_of_input()


async def _outwards(client: CommandChannel, program: RuntimeStream, options: StreamOptions) -> int | None:
    wanted = {
        RuntimeChannel.STDOUT: options.stdout,
        RuntimeChannel.STDERR: options.stderr and not options.tty,
    }
    while frames := await program.read():
        for channel, payload in frames:
            if channel is RuntimeChannel.EXIT:
                return exit_code_of(payload)
            if wanted.get(channel):
                name = Channel.STDOUT if channel is RuntimeChannel.STDOUT else Channel.STDERR
                await client.send(name, payload)
    return None


class WebSocketCommand:
    """A client on a WebSocket: the first byte of a message is the channel.

    In the base64 protocols it is a digit, and the rest of the message, which is text, is encoded.
    """

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._version = socket.ws_protocol or "channel.k8s.io"
        self._base64 = "base64" in self._version

    async def begin(self, options: StreamOptions) -> None:
        """An empty message on the first channel of ours tells the client that the stream stands."""
        channel = Channel.STDOUT if options.stdout else Channel.STDERR if options.stderr else Channel.ERROR
        await self.send(channel, b"")

    async def receive(self) -> Stdin | Resize | None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return None
            data: bytes = message.data.encode() if isinstance(message.data, str) else message.data
            if not data:
                continue
            channel, payload = data[0], data[1:]
            if self._base64:
                channel -= ord("0")
                try:
                    payload = base64.b64decode(payload, validate=True)
                except binascii.Error:
                    return None
            if channel == Channel.STDIN and payload:
                return Stdin(payload)
            if channel == CLOSE_SIGNAL and payload[:1] == bytes([Channel.STDIN]):
                return Stdin(b"", finished=True)
            if channel == Channel.RESIZE and (size := parse_resize(payload)) is not None:
                return size

    async def send(self, channel: Channel, data: bytes) -> None:
        if self._socket.closed:
            raise ConnectionResetError("the client has gone")
        if self._base64:
            await self._socket.send_str(f"{int(channel)}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def finish(self, status: Object) -> None:
        data = status_bytes(status, self._version)
        if data:
            await self.send(Channel.ERROR, data)
        await self._socket.close()


class SpdyCommand:
    """A client on SPDY streams, one per channel. Make it with `open`."""

    def __init__(self, session: SpdySession, streams: dict[str, SpdyStream], version: str) -> None:
        self._session = session
        self._streams = streams
        self._version = version
        self._said: asyncio.Queue[Stdin | Resize | None] = asyncio.Queue(64)
        self._tasks = [
            asyncio.create_task(self._read(name, stream))
            for name, stream in streams.items()
            if name in ("stdin", "resize")
        ]

    @classmethod
    async def open(cls, session: SpdySession, version: str, options: StreamOptions) -> SpdyCommand | None:
        """Wait until the client has opened all streams; None when it does not."""
        wanted = set(_stream_names(version, options))
        streams: dict[str, SpdyStream] = {}
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                while not wanted <= set(streams):
                    stream = await session.accept()
                    if stream is None:
                        return None
                    kind = stream.headers.get("streamtype", "")
                    if kind not in wanted:
                        await stream.reset()
                        session.forget(stream)
                        continue
                    streams[kind] = stream
        except TimeoutError:
            return None
        return cls(session, streams, version)

    async def receive(self) -> Stdin | Resize | None:
        return await self._said.get()

    async def gone(self) -> None:
        """The connection ended."""
        await self._said.put(None)

    async def send(self, channel: Channel, data: bytes) -> None:
        stream = self._streams.get("stdout" if channel is Channel.STDOUT else "stderr")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Object) -> None:
        data = status_bytes(status, self._version)
        if data:
            await self._streams["error"].write(data)
        for name in ("stdout", "stderr", "error"):
            if name in self._streams:
                await self._streams[name].finish()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, name: str, stream: SpdyStream) -> None:
        while data := await stream.read():
            if name == "stdin":
                await self._said.put(Stdin(data))
            elif (size := parse_resize(data)) is not None:
                await self._said.put(size)
        if name == "stdin":
            await self._said.put(Stdin(b"", finished=True))


def _stream_names(version: str, options: StreamOptions) -> Sequence[str]:
    names = ["error"]
    for name in ("stdin", "stdout", "stderr"):
        if getattr(options, name) and not (name == "stderr" and options.tty):
            names.append(name)
    if options.tty and version.startswith(("v3", "v4", "v5")):
        names.append("resize")
    return names
