"""The bytes of nf_tables' netlink messages: headers, attributes, user data. Pure.

Used by the modules of this package only. Attributes are written without the NESTED bit and in the order in which
the kernel dumps them, so that what was sent and what is read back can be compared as bytes. Numbers are those of
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

NETLINK_NETFILTER: Final = 12
NFNL_SUBSYS_NFTABLES: Final = 10
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
BATCH_BEGIN_TYPE: Final = 0x10
BATCH_END_TYPE: Final = 0x11

NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP: Final = 0x300
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800

NFPROTO_IPV4: Final = 2
NFPROTO_BRIDGE: Final = 7
NFPROTO_IPV6: Final = 10

HEADER: Final = struct.Struct("=IHHIIBBH")
"""nlmsghdr (length, type, flags, sequence, port id) and nfgenmsg (family, version, resource)."""
HEADER_BYTES: Final = HEADER.size
_NLMSG: Final = struct.Struct("=IHHII")
_FLAGS_OFFSET: Final = 6
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("!I")
_U64: Final = struct.Struct("!Q")
_TYPE_MASK: Final = 0x3FFF
MAX_ATTRIBUTE_BYTES: Final = 0xFFFF


class Message(IntEnum):
    """Message types within the nf_tables subsystem."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    DELCHAIN = 5
    NEWRULE = 6
    GETRULE = 7
    DELRULE = 8
    NEWSET = 9
    GETSET = 10
    DELSET = 11
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    NEWGEN = 15
    GETGEN = 16


class Table(IntEnum):
    """Attributes of a table."""

    NAME = 1
    FLAGS = 2
    USERDATA = 6


class Chain(IntEnum):
    """Attributes of a chain."""

    TABLE = 1
    HANDLE = 2
    NAME = 3
    HOOK = 4
    POLICY = 5
    TYPE = 7
    USERDATA = 12


class Hook(IntEnum):
    """Attributes of a chain's hook."""

    NUMBER = 1
    PRIORITY = 2


class Rule(IntEnum):
    """Attributes of a rule."""

    TABLE = 1
    CHAIN = 2
    HANDLE = 3
    EXPRESSIONS = 4
    USERDATA = 7


class Set(IntEnum):
    """Attributes of a set or map."""

    TABLE = 1
    NAME = 2
    FLAGS = 3
    KEY_TYPE = 4
    KEY_LEN = 5
    DATA_TYPE = 6
    DATA_LEN = 7
    DESC = 9
    ID = 10
    TIMEOUT = 11
    USERDATA = 13


class Elements(IntEnum):
    """Attributes of a list of elements, of one element, of a value and of a verdict."""

    TABLE = 1
    SET = 2
    LIST = 3
    SET_ID = 4
    ITEM = 1
    KEY = 1
    DATA = 2
    FLAGS = 3
    TIMEOUT = 4
    USERDATA = 6
    KEY_END = 10
    VALUE = 1
    VERDICT = 2
    VERDICT_CODE = 1
    VERDICT_CHAIN = 2


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded. ValueError when it does not fit into the 64 KiB an attribute can have."""
    length = 4 + len(data)
    if length > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {kind} of {length} bytes is too long for netlink")
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length & 3)


def text_attribute(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def u32_attribute(kind: int, number: int) -> bytes:
    """A number of 32 bits, big endian; negative ones as the kernel's two's complement."""
    return attribute(kind, _U32.pack(number & 0xFFFFFFFF))


def u64_attribute(kind: int, number: int) -> bytes:
    return attribute(kind, _U64.pack(number))


def message(kind: Message, family: int, body: bytes, flags: int = 0) -> bytes:
    """One message of a batch, or a request."""
    return (
        HEADER.pack(
            HEADER_BYTES + len(body),
            NFNL_SUBSYS_NFTABLES << 8 | kind,
            NLM_F_REQUEST | flags,
            0,
            0,
            family,
            0,
            0,
        )
        + body
    )


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes from `offset` on, as type (without flag bits) and payload."""
    return iter(_split(data, offset))


def _split(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    unpack, end = _ATTRIBUTE.unpack_from, len(data)
    found: list[tuple[int, bytes]] = []
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        found.append((kind & _TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def table_of(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes by type; of two of one type the last counts."""
    return dict(_split(data, offset))


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """All netlink messages in `data`: type, flags, port id, start and end of what follows the nlmsghdr."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, flags, _, port_id = _NLMSG.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, port_id, offset + 16, offset + length
        offset += (length + 3) & ~3


def in_front(block: bytes) -> bytes:
    """Messages that append rules to a chain, as ones that put the same rules before those that are there."""
    found: list[bytes] = []
    begin = 0
    for kind, flags, _, start, end in messages(block):
        if kind & 0xFF != Message.NEWRULE:
            continue
        where = start - _NLMSG.size + _FLAGS_OFFSET
        flags &= ~NLM_F_APPEND
        # What the rule needs, such as an anonymous set, stays before it.
        found.append(block[begin:where] + flags.to_bytes(2, sys.byteorder) + block[where + 2 : end])
        begin = end
    return b"".join(reversed(found))


def text_of(data: bytes) -> str:
    """A text attribute's contents."""
    return data.rstrip(b"\0").decode(errors="replace")


def u32_of(data: bytes) -> int:
    return int(_U32.unpack(data)[0])


def u64_of(data: bytes) -> int:
    return int(_U64.unpack(data)[0])


def signed(number: int) -> int:
    """A 32 bit number the kernel means to be signed."""
    return number - (1 << 32) if number & 0x80000000 else number


def user_data(*items: tuple[int, bytes]) -> bytes:
    """libnftnl's type-length-value list, which nft keeps comments and byte orders in."""
    return b"".join(bytes((kind, len(value))) + value for kind, value in items)


def user_data_of(data: bytes) -> dict[int, bytes]:
    """The values of a type-length-value list by type."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        found[kind] = data[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


COMMENT_CHARACTERS: Final = 128
"""What nft accepts as a comment; a longer one could not be loaded again from its own listing."""


def comment_data(kind: int, comment: str) -> bytes:
    """A comment as user data, cut to the length nft allows."""
    return user_data((kind, comment[:COMMENT_CHARACTERS].encode() + b"\0"))


def comment_of(data: bytes | None, kind: int = 0) -> str:
    """The comment in an object's user data, "" without one."""
    return text_of(user_data_of(data).get(kind, b"")) if data else ""
