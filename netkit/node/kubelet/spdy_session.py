"""SPDY streams over a byte stream: the loop around `streams.spdy`. Used by exec, attach and port-forward."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from netkit.node.kubelet.byte_stream import ByteStream
from netkit.node.streams.spdy import DataReceived, GoneAway, SpdyError, SpdyServer, StreamOpened, StreamReset

log = logging.getLogger(__name__)

_WAITING_FRAMES = 256
_LARGEST_WRITE = 32 * 1024


class SpdyStream:
    """One stream the client opened."""

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._frames: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_FRAMES)
        self._ended = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes; b"" when the client has closed its side, reset the stream, or gone."""
        while self._frames.empty():
            if self._ended.is_set():
                return b""
            get = asyncio.ensure_future(self._frames.get())
            end = asyncio.ensure_future(self._ended.wait())
            try:
                await asyncio.wait([get, end], return_when=asyncio.FIRST_COMPLETED)
                if get.done():
                    return get.result()
            finally:
                get.cancel()
                end.cancel()
        return self._frames.get_nowait()

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ConnectionError when the client is gone."""
        for at in range(0, len(data), _LARGEST_WRITE):
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
        if data and not self._ended.is_set():
            put = asyncio.ensure_future(self._frames.put(data))
            end = asyncio.ensure_future(self._ended.wait())
            try:
                await asyncio.wait([put, end], return_when=asyncio.FIRST_COMPLETED)
            finally:
                put.cancel()
                end.cancel()
        if finished:
            self.end()

    def end(self) -> None:
        """From the session: nothing more will arrive. Also to be called by who reads no more."""
        self._ended.set()


class SpdySession:
    """One connection. Run `run` beside `accept`."""

    def __init__(self, connection: ByteStream) -> None:
        self.codec = SpdyServer()
        self._connection = connection
        self._streams: dict[int, SpdyStream] = {}
        self._accepted: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._lock = asyncio.Lock()

    async def accept(self) -> SpdyStream | None:
        """The next stream the client opens, answered already; None when it opens no more."""
        return await self._accepted.get()

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
            self._accepted.put_nowait(None)

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

    async def _handle(self, event: StreamOpened | DataReceived | StreamReset | GoneAway) -> None:
        if isinstance(event, StreamOpened):
            stream = SpdyStream(self, event.stream, event.headers)
            if event.finished:
                stream.end()
            self._streams[event.stream] = stream
            self.codec.reply(event.stream)
            await self.flush()
            self._accepted.put_nowait(stream)
        elif isinstance(event, DataReceived):
            found = self._streams.get(event.stream)
            if found is not None:
                await found.feed(event.data, finished=event.finished)
        elif isinstance(event, StreamReset):
            gone = self._streams.pop(event.stream, None)
            if gone is not None:
                gone.end()
        else:
            self._accepted.put_nowait(None)
