"""Pipes and terminals between a child and the loop. Used by process containers and exec sessions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator

_CHUNK = 64 * 1024


class Output:
    """The reading end of a child's output. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes until the last writer has closed."""
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(_CHUNK)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        os.set_blocking(self._fd, False)
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(self._fd, "rb", 0))
        try:
            while data := await self._reader.read(_CHUNK):
                yield data
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose last user has gone
                raise
        finally:
            self._transport.close()


class Input:
    """The writing end of a child's input. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._writer: asyncio.StreamWriter | None = None
        self._closed = False

    async def write(self, data: bytes) -> bool:
        """Pass `data` on, waiting while the child does not read. False when the child reads no more."""
        if self._closed:
            return False
        writer = self._writer or await self._open()
        try:
            writer.write(data)
            await writer.drain()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.ECONNRESET, None):
                raise
            self.close()
            return False
        return True

    def close(self) -> None:
        """End of input, after what is written. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            self._writer.close()
        else:
            with contextlib.suppress(OSError):
                os.close(self._fd)

    async def _open(self) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        os.set_blocking(self._fd, False)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(self._fd, "wb", 0)
        )
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        return self._writer
