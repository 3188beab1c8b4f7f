"""SPDY/3.1 as Kubernetes uses it: bytes in, events out, and bytes for what is to be sent. No I/O.

Used by `kubelet.spdy_session` on upgraded connections and inside WebSocket tunnels. Server side only: the
client opens streams. Frames may arrive in pieces of any size; no more than a control frame is kept of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from netkit.node.streams.spdy_dictionary import DICTIONARY

SYN_STREAM: Final = 1
SYN_REPLY: Final = 2
RST_STREAM: Final = 3
PING: Final = 6
GOAWAY: Final = 7
HEADERS: Final = 8

FLAG_FIN: Final = 1
STATUS_REFUSED: Final = 3
STATUS_CANCEL: Final = 5
_VERSION: Final = 3
_LARGEST_CONTROL: Final = 64 * 1024
_LARGEST_HEADERS: Final = 256 * 1024


class SpdyError(ValueError):
    """The peer does not speak SPDY/3.1; the connection is lost."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The client opened a stream. `finished`: it will send nothing on it. Header names are lower case."""

    stream: int
    headers: Mapping[str, str]
    finished: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes of a stream, as they came: a frame may be told in several pieces. `finished` with the last of them."""

    stream: int
    data: bytes
    finished: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The client gave a stream up."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The client opens no more streams."""


Event = StreamOpened | DataReceived | StreamReset | GoneAway


class SpdyServer:
    """One connection. Give it what arrives; send what `take_output` holds."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._output = bytearray()
        self._open_frame: tuple[int, int, bool] | None = None
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def take_output(self) -> bytes:
        """The bytes to send now."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def receive(self, data: bytes) -> Iterator[Event]:
        """The events completed by `data`. Raises SpdyError."""
        self._received += data
        while True:
            if self._open_frame is not None:
                piece = self._piece(*self._open_frame)
                if piece is None:
                    return
                yield piece
                continue
            if len(self._received) < 8:
                return
            word, rest = struct.unpack_from(">II", self._received)
            flags, length = rest >> 24, rest & 0xFFFFFF
            if not word & 0x80000000:
                del self._received[:8]
                self._open_frame = word, length, bool(flags & FLAG_FIN)
                continue
            if length > _LARGEST_CONTROL:
                raise SpdyError(f"control frame of {length} bytes")
            if len(self._received) < 8 + length:
                return
            payload = bytes(self._received[8 : 8 + length])
            del self._received[: 8 + length]
            event = self._frame(word, flags, payload)
            if event is not None:
                yield event

    def _piece(self, stream: int, left: int, finishes: bool) -> DataReceived | None:
        """What is there of a data frame with `left` bytes to come; None when nothing is."""
        data = bytes(self._received[:left])
        if left and not data:
            return None
        del self._received[: len(data)]
        left -= len(data)
        self._open_frame = (stream, left, finishes) if left else None
        return DataReceived(stream, data, finishes and not left)

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream the client opened."""
        self._control(SYN_REPLY, 0, struct.pack(">I", stream) + self._headers(headers or {}))

    def send(self, stream: int, data: bytes, *, finished: bool = False) -> None:
        """Send bytes of a stream; `finished` closes our side of it."""
        flags = FLAG_FIN if finished else 0
        self._output += struct.pack(">II", stream & 0x7FFFFFFF, flags << 24 | len(data)) + data

    def reset(self, stream: int, status: int = STATUS_CANCEL) -> None:
        """Give a stream up."""
        self._control(RST_STREAM, 0, struct.pack(">II", stream, status))

    def go_away(self, last_stream: int) -> None:
        """Say that the connection ends."""
        self._control(GOAWAY, 0, struct.pack(">II", last_stream, 0))

    def _frame(self, word: int, flags: int, payload: bytes) -> Event | None:
        version, kind = word >> 16 & 0x7FFF, word & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"SPDY version {version}")
        try:
            return self._control_frame(kind, flags, payload)
        except (struct.error, zlib.error) as error:
            raise SpdyError(f"malformed control frame {kind}: {error}") from error

    def _control_frame(self, kind: int, flags: int, payload: bytes) -> Event | None:
        # SETTINGS and WINDOW_UPDATE fall through: the clients' library knows no flow control either.
        if kind == SYN_STREAM:
            (stream,) = struct.unpack_from(">I", payload)
            return StreamOpened(stream, self._parse_headers(payload[10:]), bool(flags & FLAG_FIN))
        if kind in (SYN_REPLY, HEADERS):
            # Their header blocks belong to the one compression context of the connection.
            self._parse_headers(payload[4:])
        elif kind == RST_STREAM:
            stream, status = struct.unpack(">II", payload)
            return StreamReset(stream, status)
        elif kind == PING:
            self._control(PING, 0, payload)
        elif kind == GOAWAY:
            return GoneAway()
        return None

    def _parse_headers(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block, _LARGEST_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block of more than {_LARGEST_HEADERS} bytes")
        (count,) = struct.unpack_from(">I", data)
        at, headers = 4, {}
        for _ in range(count):
            pair = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", data, at)
                if at + 4 + length > len(data):
                    raise SpdyError("header block cut short")
                pair.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
                at += 4 + length
            headers[pair[0].lower()] = pair[1]
        return headers

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        data = bytearray(struct.pack(">I", len(headers)))
        for name, value in headers.items():
            for text in (name.lower(), value):
                encoded = text.encode()
                data += struct.pack(">I", len(encoded)) + encoded
        return self._deflate.compress(bytes(data)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        self._output += struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(payload)) + payload
