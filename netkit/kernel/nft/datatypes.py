"""The types nft gives to keys and values, and how their bytes read as text. Pure."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

_BITS_PER_TYPE: Final = 6
_ORDER: Final[Literal["little", "big"]] = "little" if sys.byteorder == "little" else "big"
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp"}
_ROUTE_TYPES: Final = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"}


@dataclass(frozen=True, slots=True)
class DataType:
    """A type by nft's name and number. `host_order`: numbers in the machine's byte order, not the network's."""

    name: str
    number: int
    length: int
    host_order: bool = False

    @property
    def padded(self) -> int:
        """Its length within a concatenation."""
        return (self.length + 3) & ~3

    def text(self, data: bytes) -> str:
        """The value as nft prints it."""
        match self.name:
            case "ipv4_addr":
                return str(ipaddress.IPv4Address(data[:4]))
            case "ipv6_addr":
                return str(ipaddress.IPv6Address(data[:16]))
            case "ifname":
                name = data.rstrip(b"\0").decode(errors="replace")
                return f'"{name}*"' if b"\0" not in data else f'"{name}"'
            case _:
                return self.number_text(
                    int.from_bytes(data[: self.length], _ORDER if self.host_order else "big")
                )

    def number_text(self, number: int) -> str:
        """A number of this type as nft prints it."""
        match self.name:
            case "inet_proto":
                return _PROTOCOLS.get(number, str(number))
            case "mark":
                return f"0x{number:08x}"
            case "fib_addrtype":
                return _ROUTE_TYPES.get(number, str(number))
            case _:
                return str(number)

    def pack(self, number: int) -> bytes:
        """A number in the type's length and byte order."""
        return number.to_bytes(self.length, _ORDER if self.host_order else "big")


INTEGER: Final = DataType("integer", 4, 4, host_order=True)
IPV4_ADDR: Final = DataType("ipv4_addr", 7, 4)
IPV6_ADDR: Final = DataType("ipv6_addr", 8, 16)
INET_PROTO: Final = DataType("inet_proto", 12, 1)
INET_SERVICE: Final = DataType("inet_service", 13, 2)
MARK: Final = DataType("mark", 19, 4, host_order=True)
IFNAME: Final = DataType("ifname", 41, 16, host_order=True)
CT_STATE: Final = DataType("ct_state", 26, 4, host_order=True)
CT_STATUS: Final = DataType("ct_status", 28, 4, host_order=True)
FIB_ADDRTYPE: Final = DataType("fib_addrtype", 42, 4, host_order=True)

BY_NUMBER: Final = {
    kind.number: kind
    for kind in (
        INTEGER,
        IPV4_ADDR,
        IPV6_ADDR,
        INET_PROTO,
        INET_SERVICE,
        MARK,
        IFNAME,
        CT_STATE,
        FIB_ADDRTYPE,
    )
}


def concat_number(kinds: Sequence[DataType]) -> int:
    """The number of a concatenation of types."""
    number = 0
    for kind in kinds:
        number = number << _BITS_PER_TYPE | kind.number
    return number


def split_number(number: int, length: int) -> tuple[DataType, ...]:
    """The types of a concatenation. Types unknown here are shown as integers; `length` is that of the whole."""
    found: list[DataType] = []
    while number:
        kind = number & (1 << _BITS_PER_TYPE) - 1
        found.insert(0, BY_NUMBER.get(kind) or DataType(f"type{kind}", kind, 4))
        number >>= _BITS_PER_TYPE
    if len(found) == 1 and found[0].length != length:
        return (DataType(found[0].name, found[0].number, length, found[0].host_order),)
    return tuple(found)


def pack(kinds: Sequence[DataType], values: Sequence[bytes]) -> bytes:
    """A key or value made of several fields, each filled up to four bytes."""
    return b"".join(
        value + bytes(kind.padded - len(value)) for kind, value in zip(kinds, values, strict=True)
    )


def split(kinds: Sequence[DataType], data: bytes) -> list[bytes]:
    """The fields of a concatenation; one field is the data as it is."""
    if len(kinds) == 1:
        return [data]
    found: list[bytes] = []
    offset = 0
    for kind in kinds:
        found.append(data[offset : offset + kind.length])
        offset += kind.padded
    return found


def text(kinds: Sequence[DataType], data: bytes) -> str:
    """A key or value as nft prints it."""
    return " . ".join(kind.text(item) for kind, item in zip(kinds, split(kinds, data), strict=True))


def duration(seconds: int) -> str:
    """Seconds as nft prints them: 1d2h3m4s."""
    found = ""
    for name, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            found += f"{seconds // size}{name}"
            seconds %= size
    return found + (f"{seconds}s" if seconds or not found else "")
