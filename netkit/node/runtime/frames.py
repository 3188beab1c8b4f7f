"""Frames on a runtime stream connection: one byte channel, four bytes length (big endian), payload. Pure.

After the JSON line that asks for a stream and the line that grants it, both sides speak frames only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

_HEADER = struct.Struct(">BI")
_LARGEST = 1 << 24


class Channel(IntEnum):
    """What a frame carries. An empty STDIN frame is the end of input."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    RESIZE = 4


class FrameError(ValueError):
    """The peer does not speak frames."""


def encode(channel: Channel, payload: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(channel, len(payload)) + payload


class FrameDecoder:
    """Collects bytes and gives the frames they hold."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Channel, bytes]]:
        """The frames completed by `data`. Raises FrameError on what is no frame."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._buffer)
            if number > max(Channel) or length > _LARGEST:
                raise FrameError(f"frame on channel {number} with {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Channel(number), payload
