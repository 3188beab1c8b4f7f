"""As much of SCTP (RFC 9260) as it takes to see where an association would go: INIT and INIT ACK, in raw packets.

Many kernels translate SCTP but have no SCTP sockets; raw sockets do everywhere. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_INIT, _INIT_ACK, _COOKIE = 1, 2, 7
_HEADER = struct.Struct("!HHII")
_WINDOW, _STREAMS = 65536, 1


def _crc_table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return found


_CRC = _crc_table()


@dataclass(frozen=True, slots=True)
class Packet:
    """An INIT (`text` empty) or an INIT ACK whose state cookie is `text`."""

    source: int
    destination: int
    tag: int
    text: str = ""


def init(source: int, destination: int, tag: int) -> bytes:
    """Ask for an association."""
    return _packet(source, destination, 0, _chunk(_INIT, tag, b""))


def init_ack(asked: Packet, text: str) -> bytes:
    """Answer to an INIT, with `text` as state cookie."""
    cookie = text.encode()
    parameter = struct.pack("!HH", _COOKIE, 4 + len(cookie)) + cookie
    parameter += b"\0" * (-len(parameter) % 4)
    chunk = _chunk(_INIT_ACK, asked.tag, parameter)
    return _packet(asked.destination, asked.source, asked.tag, chunk)


def parse(data: bytes) -> Packet | None:
    """The packet, if it is one of the two."""
    if len(data) < 32:
        return None
    source, destination, _, _ = _HEADER.unpack_from(data)
    kind, _, _, tag = struct.unpack_from("!BBHI", data, 12)
    if kind == _INIT:
        return Packet(source, destination, tag)
    if kind != _INIT_ACK or len(data) < 36:
        return None
    length = int(struct.unpack_from("!HH", data, 32)[1])
    return Packet(source, destination, tag, data[36 : 32 + length].decode(errors="replace"))


def _chunk(kind: int, tag: int, parameters: bytes) -> bytes:
    body = struct.pack("!IIHHI", tag, _WINDOW, _STREAMS, _STREAMS, 1) + parameters
    return struct.pack("!BBH", kind, 0, 4 + len(body)) + body


def _packet(source: int, destination: int, tag: int, chunk: bytes) -> bytes:
    data = _HEADER.pack(source, destination, tag, 0) + chunk
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = checksum >> 8 ^ _CRC[(checksum ^ byte) & 0xFF]
    # RFC 9260, appendix A: the CRC goes out with its lowest byte first.
    return data[:8] + struct.pack("<I", checksum ^ 0xFFFFFFFF) + data[12:]
