"""ipset: sets of addresses and ports that iptables rules match, over netlink; many changes in one send.

Called by the proxy's IPVS mode. Entries are text as ipset(8) writes them (`10.0.0.1,tcp:80,10.1.0.0/24`). The
functions that return a `Message` are pure encoders; `IPSet` sends them in one namespace and lists what stands.

Commands and attributes are those of `linux/netfilter/ipset/ip_set.h`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.netlink import (
    NET_BYTE_ORDER,
    Attributes,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    each_attribute,
    nested,
    text,
)
from netkit.kernel.netns import Namespace

_NETFILTER: Final = 12
_SUBSYSTEM: Final = 6 << 8
CREATE, DESTROY, FLUSH, ADD, DELETE = 2, 3, 4, 9, 10
_LIST, _TYPE = 7, 13

_PROTOCOL_VERSION: Final = 6
_PROTOCOL, _SET_NAME, _TYPE_NAME, _REVISION, _FAMILY, _FLAGS, _DATA, _ADT = range(1, 9)
_REVISION_MIN: Final = 10
_IP, _CIDR, _PORT, _PORT_TO, _PROTO, _CADT_FLAGS, _IP2, _CIDR2 = 1, 3, 4, 5, 7, 8, 20, 21
_MAX_ELEMENTS, _ELEMENTS = 19, 24
_IPV4, _IPV6 = 1, 2
_HEADER_ONLY: Final = 4

_NAME_BYTES: Final = 31
_GENERIC = struct.Struct("!BBH")
_PROTOCOL_NUMBERS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL_NAMES: Final = {number: name for name, number in _PROTOCOL_NUMBERS.items()}

_FIRST_OWN_ERROR: Final = 4096
_MISSING_TYPE: Final = 4098
_ERRORS: Final = {
    4097: (errno.EPROTO, "the kernel speaks another version of the protocol"),
    4099: (errno.ENOSPC, "too many sets"),
    4100: (errno.EBUSY, "a rule refers to the set"),
    4102: (errno.EEXIST, "a set of that name has another type"),
    4352: (errno.ENOSPC, "the set is full"),
}
"""Error numbers that only sets have, with the errno and the words that say the same."""


class SetType(StrEnum):
    """Types of sets, by ipset's names."""

    HASH_IP = "hash:ip"
    HASH_IP_PORT = "hash:ip,port"
    HASH_IP_PORT_IP = "hash:ip,port,ip"
    HASH_IP_PORT_NET = "hash:ip,port,net"
    BITMAP_PORT = "bitmap:port"

    @property
    def module(self) -> str:
        """The kernel module that brings it."""
        return "ip_set_" + self.replace(":", "_").replace(",", "")


_REVISIONS: Final = {
    SetType.HASH_IP: 4,
    SetType.HASH_IP_PORT: 5,
    SetType.HASH_IP_PORT_IP: 5,
    SetType.HASH_IP_PORT_NET: 7,
    SetType.BITMAP_PORT: 3,
}
"""Revisions every ipset program of the last ten years can list; kernels since 4.2 have them."""


@dataclass(frozen=True, slots=True)
class SetHeader:
    """A set as a whole. `version` 4 or 6 is the family of its addresses; bitmaps of ports have none, and say 4."""

    name: str
    type: str
    version: int
    size: int


class IPSet(NetlinkSocket):
    """The sets of one namespace; the socket stays open. Raises Unsupported where the kernel has no sets."""

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, _NETFILTER)

    def apply(self, *messages: Message) -> None:
        """See `NetlinkSocket.apply`; errors carry ipset's words."""
        try:
            super().apply(*messages)
        except KernelError as error:
            raise _explained(error) from error

    def headers(self) -> dict[str, SetHeader]:
        """All sets by name, whoever made them."""
        found = {}
        for body in self._listed("", "ipset list -t", _flags(_HEADER_ONLY)):
            header = _header(attributes(body, _GENERIC.size))
            found[header.name] = header
        return found

    def entries(self, name: str) -> frozenset[str]:
        """The entries of a set. Raises KernelError, `is_not_found`, if there is none of that name."""
        found: set[str] = set()
        kind, version = SetType.HASH_IP, 4
        for body in self._listed(name, f"ipset list {name}", b""):
            contents = attributes(body, _GENERIC.size)
            if _TYPE_NAME in contents:  # only the first message of a long list has it
                kind, version = type_in(contents)
            for _, entry in each_attribute(contents.get(_ADT, b"")):
                found.add(_entry(kind, version, attributes(entry)))
        return frozenset(found)

    def has_type(self, kind: SetType) -> bool:
        """Whether the kernel can make sets of this type in the revision we use; it loads its module to find out."""
        contents = attribute(_PROTOCOL, bytes([_PROTOCOL_VERSION])) + text(_TYPE_NAME, kind)
        contents += attribute(_FAMILY, bytes([socket.AF_INET]))
        try:
            found = attributes(self.ask(_message(_TYPE, contents, f"ipset help {kind}")), _GENERIC.size)
        except KernelError as error:
            if error.errno in (_MISSING_TYPE, errno.EINVAL, errno.ENOENT):
                return False
            raise _explained(error) from error
        return found[_REVISION_MIN][0] <= _REVISIONS[kind] <= found[_REVISION][0]

    def _listed(self, name: str, what: str, flags: bytes) -> list[bytes]:
        contents = attribute(_PROTOCOL, bytes([_PROTOCOL_VERSION]))
        if name:
            contents += text(_SET_NAME, name)
        try:
            return self.dump(_message(_LIST, contents + flags, what))
        except KernelError as error:
            raise _explained(error) from error


def set_create(name: str, kind: SetType, version: int = 4) -> Message:
    """Make a set for addresses of IPv4 or IPv6; fine when the same is there. ValueError for too long a name."""
    if len(name.encode()) > _NAME_BYTES:
        raise ValueError(f"{name!r} is longer than the {_NAME_BYTES} characters a set's name can have")
    contents = text(_TYPE_NAME, kind) + attribute(_REVISION, bytes([_REVISIONS[kind]]))
    if kind is SetType.BITMAP_PORT:
        contents += attribute(_FAMILY, bytes([socket.AF_UNSPEC]))
        data = _port(_PORT, 0) + _port(_PORT_TO, 65535)
        what = f"ipset create {name} {kind} range 0-65535"
    else:
        contents += attribute(_FAMILY, bytes([socket.AF_INET if version == 4 else socket.AF_INET6]))
        data = b""
        what = f"ipset create {name} {kind} family {'inet' if version == 4 else 'inet6'}"
    return _message(CREATE, _named(name) + contents + nested(_DATA, data), f"{what} -exist")


def set_destroy(name: str) -> Message:
    """Remove a set that no rule refers to (error BUSY otherwise); fine when it is gone."""
    return _message(DESTROY, _named(name), f"ipset destroy {name}").allowing(errno.ENOENT)


def set_flush(name: str) -> Message:
    """Remove all entries of a set."""
    return _message(FLUSH, _named(name), f"ipset flush {name}")


def entry_add(name: str, kind: SetType, entry: str) -> Message:
    """Put an entry into a set of the type; fine when it is there."""
    return _message(
        ADD, _named(name) + nested(_DATA, _encoded(kind, entry)), f"ipset add {name} {entry} -exist"
    )


def entry_delete(name: str, kind: SetType, entry: str) -> Message:
    """Take an entry out of a set of the type; fine when it is not there."""
    contents = _named(name) + nested(_DATA, _encoded(kind, entry))
    return _message(DELETE, contents, f"ipset del {name} {entry} -exist")


def entries_add(name: str, kind: SetType, entries: Iterable[str]) -> Sequence[Message]:
    """`entry_add` for many."""
    return [entry_add(name, kind, entry) for entry in entries]


def decoded(message: Message) -> tuple[int, Attributes]:
    """Command and attributes of a message of this module, for fakes."""
    return message.kind & 0xFF, attributes(message.body, _GENERIC.size)


def name_in(found: Attributes) -> str:
    """The set's name in a message's attributes."""
    return _text(found, _SET_NAME)


def type_in(found: Attributes) -> tuple[SetType, int]:
    """Type and address family (4 or 6) of a set in the attributes of its creation."""
    return SetType(_text(found, _TYPE_NAME)), _version(found)


def entry_in(found: Attributes, kind: SetType, version: int) -> str:
    """The entry in a message's attributes."""
    return _entry(kind, version, attributes(found[_DATA]))


def _named(name: str) -> bytes:
    return attribute(_PROTOCOL, bytes([_PROTOCOL_VERSION])) + text(_SET_NAME, name)


def _message(command: int, contents: bytes, what: str) -> Message:
    header = _GENERIC.pack(socket.AF_INET, 0, 0)
    return Message(_SUBSYSTEM | command, 0, header + contents, what)


def _encoded(kind: SetType, entry: str) -> bytes:
    if kind is SetType.BITMAP_PORT:
        return _port(_PORT, int(entry))
    address, *rest = entry.split(",")
    data = _address(_IP, address)
    if not rest:
        return data
    protocol, _, port = rest[0].partition(":")
    data += _port(_PORT, int(port)) + attribute(_PROTO, bytes([_PROTOCOL_NUMBERS[protocol]]))
    if len(rest) > 1:
        network, _, length = rest[1].partition("/")
        data += _address(_IP2, network)
        if kind is SetType.HASH_IP_PORT_NET:
            full = 128 if ":" in network else 32
            data += attribute(_CIDR2, bytes([int(length) if length else full]))
    return data


def _entry(kind: SetType, version: int, data: Attributes) -> str:
    if kind is SetType.BITMAP_PORT:
        return str(int.from_bytes(data[_PORT], "big"))
    parts = [_address_text(data[_IP])]
    if kind is not SetType.HASH_IP:
        number = data[_PROTO][0]
        protocol = _PROTOCOL_NAMES.get(number, str(number))
        parts.append(f"{protocol}:{int.from_bytes(data[_PORT], 'big')}")
    if kind is SetType.HASH_IP_PORT_IP:
        parts.append(_address_text(data[_IP2]))
    if kind is SetType.HASH_IP_PORT_NET:
        full = 32 if version == 4 else 128
        length = data[_CIDR2][0] if _CIDR2 in data else full
        parts.append(f"{_address_text(data[_IP2])}/{length}")
    return ",".join(parts)


@lru_cache(maxsize=4096)
def _address(kind: int, address: str) -> bytes:
    if ":" in address:
        packed = attribute(_IPV6 | NET_BYTE_ORDER, socket.inet_pton(socket.AF_INET6, address))
    else:
        packed = attribute(_IPV4 | NET_BYTE_ORDER, socket.inet_pton(socket.AF_INET, address))
    return nested(kind, packed)


def _address_text(data: bytes) -> str:
    for _, packed in each_attribute(data):
        # inet_ntop writes mapped addresses otherwise than the rest of the project does.
        return str(IPv6Address(packed)) if len(packed) == 16 else socket.inet_ntop(socket.AF_INET, packed)
    raise ValueError("an address attribute without an address")


def _port(kind: int, port: int) -> bytes:
    return attribute(kind | NET_BYTE_ORDER, struct.pack("!H", port))


def _flags(flags: int) -> bytes:
    return attribute(_FLAGS | NET_BYTE_ORDER, struct.pack("!I", flags))


def _header(found: Attributes) -> SetHeader:
    data = attributes(found.get(_DATA, b""))
    size = int.from_bytes(data.get(_ELEMENTS, b""), "big")
    return SetHeader(_text(found, _SET_NAME), _text(found, _TYPE_NAME), _version(found), size)


def _version(found: Attributes) -> int:
    return 6 if found.get(_FAMILY, b"\0")[0] == socket.AF_INET6 else 4


def _text(found: Attributes, kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode()


def _explained(error: KernelError) -> KernelError:
    """The error in words: no answer to the subsystem means no module, and large numbers are ipset's own."""
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP) and error.operation.startswith("ipset list"):
        return Unsupported(
            "ip_set",
            error.namespace,
            error.errno,
            "the kernel has no module ip_set",
            "modprobe ip_set, or boot a kernel built with CONFIG_IP_SET",
        )
    if error.errno == _MISSING_TYPE:
        module = SetType(error.operation.split()[3]).module
        return Unsupported(
            module, error.namespace, errno.ENOENT, f"the kernel has no module {module}", f"modprobe {module}"
        )
    if error.errno < _FIRST_OWN_ERROR:
        return error
    code, words = _ERRORS.get(error.errno, (0, f"ipset error {error.errno}"))
    return KernelError(error.operation, error.namespace, code, words)
