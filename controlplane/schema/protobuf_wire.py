"""The protobuf wire format: bytes -> (field number, wire type, value). Pure, knows nothing of messages.

Called by the decoder. Nothing is copied: a value of LENGTH is a view of the input, so no length that a
body claims makes anything grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
_WIDTH = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10
_MASK = 2**64 - 1


class ProtobufError(ValueError):
    """Bytes that are not the protobuf message they should be. The text goes to the client."""


class Part(NamedTuple):
    """One field as it came: `number` holds a VARINT's value (unsigned, 64 bits), `data` the bytes of others."""

    field: int
    wire: int
    number: int
    data: memoryview


_NOTHING = memoryview(b"")


def parts(data: memoryview) -> Iterator[Part]:
    """The fields of one message in their order.

    Groups, which no Kubernetes message has, are passed over. Raises ProtobufError.
    """
    place, end = 0, len(data)
    while place < end:
        tag, place = varint(data, place)
        field, wire = tag >> 3, tag & 7
        if not 0 < field < 2**29:
            raise ProtobufError(f"illegal tag {field} (wire type {wire})")
        if wire == VARINT:
            number, place = varint(data, place)
            yield Part(field, wire, number, _NOTHING)
        elif wire == LENGTH:
            start, place = _length(data, place)
            yield Part(field, wire, 0, data[start:place])
        elif wire == START_GROUP:
            place = _after_group(data, place)
            yield Part(field, wire, 0, _NOTHING)
        else:
            start, place = place, _after(data, place, wire)
            yield Part(field, wire, 0, data[start:place])


def varint(data: memoryview, place: int) -> tuple[int, int]:
    """The unsigned 64-bit number at `place`, and the place after it. Raises ProtobufError."""
    number = 0
    for index in range(_MAX_VARINT):
        if place >= len(data):
            raise ProtobufError("unexpected EOF")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number & _MASK, place
    raise ProtobufError("integer overflow")


def _length(data: memoryview, place: int) -> tuple[int, int]:
    """Where a LENGTH's bytes start and end."""
    length, place = varint(data, place)
    if length > len(data) - place:
        raise ProtobufError("unexpected EOF")
    return place, place + length


def _after(data: memoryview, place: int, wire: int) -> int:
    if wire == VARINT:
        return varint(data, place)[1]
    if wire == LENGTH:
        return _length(data, place)[1]
    if wire == END_GROUP:
        raise ProtobufError("wiretype end group for non-group")
    if wire not in _WIDTH:
        raise ProtobufError(f"illegal wireType {wire}")
    place += _WIDTH[wire]
    if place > len(data):
        raise ProtobufError("unexpected EOF")
    return place


def _after_group(data: memoryview, place: int) -> int:
    """The end of a group; groups may hold groups, so depth is counted and not recursed into."""
    depth = 1
    while depth:
        tag, place = varint(data, place)
        wire = tag & 7
        if wire == START_GROUP:
            depth += 1
        elif wire == END_GROUP:
            depth -= 1
        else:
            place = _after(data, place, wire)
    return place
