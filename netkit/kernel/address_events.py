"""What happens to the addresses and devices of a namespace, told by the kernel as it happens.

Called by whoever depends on addresses that others may change. Tells of everybody's changes, also the caller's own.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from netkit.kernel import netns
from netkit.kernel.errors import from_os_error
from netkit.kernel.netlink import HEADER, attributes
from netkit.kernel.netns import Namespace

_ROUTE: Final = 0
_DELETED_LINK, _NEW_ADDRESS, _DELETED_ADDRESS = 17, 20, 21
_GROUPS: Final = 0x1 | 0x10 | 0x100
"""Links, IPv4 addresses, IPv6 addresses."""

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_IFNAME, _IFA_ADDRESS, _IFA_LOCAL = 3, 1, 2
_RECEIVED_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address that came (`there`) or went, or, with `device`, a device that went with all its addresses."""

    there: bool
    address: IPv4Address | IPv6Address | None = None
    device: str = ""


class EventsLost(Exception):
    """More happened than the socket could hold; nobody knows what."""


class AddressEvents:
    """A listening socket in one namespace. Events count from its making on. Close it."""

    def __init__(self, ns: Namespace) -> None:
        self._namespace = ns.name
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = netns.socket_in(ns, socket.AF_NETLINK, kind, _ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, _GROUPS))

    async def next(self) -> tuple[AddressEvent, ...]:
        """Wait for the next events. Raises EventsLost, or KernelError when the socket is of no use any more."""
        while True:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, _RECEIVED_AT_ONCE)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise EventsLost from error
                raise from_os_error(error, "ip monitor address link", self._namespace) from error
            if events := _events(data):
                return events

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self.close()


def _events(data: bytes) -> tuple[AddressEvent, ...]:
    found = []
    offset = 0
    while offset < len(data):
        length, kind, *_ = HEADER.unpack_from(data, offset)
        body = data[offset + HEADER.size : offset + length]
        if kind == _DELETED_LINK:
            name = attributes(body, _LINK.size).get(_IFNAME, b"").rstrip(b"\0").decode()
            found.append(AddressEvent(False, device=name))
        elif kind in (_NEW_ADDRESS, _DELETED_ADDRESS):
            contents = attributes(body, _ADDRESS.size)
            packed = contents.get(_IFA_LOCAL) or contents[_IFA_ADDRESS]
            address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
            found.append(AddressEvent(kind == _NEW_ADDRESS, address))
        offset += (length + 3) & ~3
    return tuple(found)
