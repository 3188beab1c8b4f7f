"""SPDY streams over a byte stream: the loop around `streams.spdy`. Used by exec, attach and port-forward."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from netkit.node.kubelet.byte_stream import ByteStream
from netkit.node.streams.spdy import (
    STATUS_REFUSED,
    DataReceived,
    GoneAway,
    SpdyError,
    SpdyServer,
    StreamOpened,
    StreamReset,
)

log = logging.getLogger(__name__)

_HIGH_WATER = 256 * 1024
_MOST_STREAMS = 1000
_LARGEST_WRITE = 32 * 1024


class SpdyStream:
    """One stream the client opened. `was_reset`: the client has given it up."""

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.was_reset = False
        self._session = session
        self._received = bytearray()
        self._ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes; b"" when the client has closed its side, reset the stream, or gone."""
        while not self._received and not self._ended:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._received)
        self._received.clear()
        self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ConnectionError when the client is gone, or has reset the stream."""
        for at in range(0, len(data), _LARGEST_WRITE):
            if self.was_reset:
                raise ConnectionResetError("the client has reset the stream")
            self._session.codec.send(self.number, data[at : at + _LARGEST_WRITE])
            await self._session.flush()

    async def finish(self) -> None:
        """Close our side."""
        self._session.codec.send(self.number, b"", finished=True)
        await self._session.flush()

    async def reset(self) -> None:
        """Give the stream up."""
        self._session.codec.reset(self.number)
        await self._session.flush()

    async def feed(self, data: bytes, *, finished: bool) -> None:
        """From the session: bytes that arrived. Waits while nobody reads them."""
        if not self._ended:
            self._received += data
            self._news.set()
        if finished:
            self._finish()
        while len(self._received) > _HIGH_WATER and not self._ended:
            self._room.clear()
            await self._room.wait()

    def end(self, *, reset: bool = False) -> None:
        """From the session: nothing more will arrive. Also to be called by who reads no more."""
        self.was_reset = self.was_reset or reset
        self._finish()

    def _finish(self) -> None:
        self._ended = True
        self._news.set()
        self._room.set()


class SpdySession:
    """One connection. Run `run` beside `accept`."""

    def __init__(self, connection: ByteStream) -> None:
        self.codec = SpdyServer()
        self._connection = connection
        self._streams: dict[int, SpdyStream] = {}
        self._accepted: deque[SpdyStream] = deque()
        self._opens_no_more = False
        self._news = asyncio.Event()
        self._lock = asyncio.Lock()

    async def accept(self) -> SpdyStream | None:
        """The next stream the client opens, answered already; None when it opens no more."""
        while not self._accepted:
            if self._opens_no_more:
                return None
            self._news.clear()
            await self._news.wait()
        return self._accepted.popleft()

    async def run(self) -> None:
        """Read until the client is gone. Never raises for what the client does."""
        try:
            while data := await self._connection.read():
                for event in self.codec.receive(data):
                    await self._handle(event)
                await self.flush()
        except (SpdyError, ConnectionError) as error:
            log.info("SPDY connection ended: %s", error)
        finally:
            for stream in self._streams.values():
                stream.end()
            self._no_more()

    async def flush(self) -> None:
        """Send what the codec holds."""
        async with self._lock:
            output = self.codec.take_output()
            if output:
                await self._connection.write(output)

    def forget(self, stream: SpdyStream) -> None:
        """Nobody uses the stream any more."""
        stream.end()
        self._streams.pop(stream.number, None)

    async def close(self) -> None:
        await self._connection.close()

    def _no_more(self) -> None:
        self._opens_no_more = True
        self._news.set()

    async def _handle(self, event: StreamOpened | DataReceived | StreamReset | GoneAway) -> None:
        if isinstance(event, StreamOpened):
            await self._opened(event)
        elif isinstance(event, DataReceived):
            found = self._streams.get(event.stream)
            if found is not None:
                await found.feed(event.data, finished=event.finished)
        elif isinstance(event, StreamReset):
            gone = self._streams.pop(event.stream, None)
            if gone is not None:
                gone.end(reset=True)
        else:
            self._no_more()

    async def _opened(self, event: StreamOpened) -> None:
        # Streams that were reset before anybody took them count too: they wait to be taken.
        if len(self._streams) + len(self._accepted) >= _MOST_STREAMS or event.stream in self._streams:
            self.codec.reset(event.stream, STATUS_REFUSED)
            return
        stream = SpdyStream(self, event.stream, event.headers)
        if event.finished:
            stream.end()
        self._streams[event.stream] = stream
        self.codec.reply(event.stream)
        await self.flush()
        self._accepted.append(stream)
        self._news.set()
