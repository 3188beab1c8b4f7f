"""What happens to the addresses and devices of a namespace, told by the kernel as it happens.

Called by whoever depends on addresses that others may change. Tells of everybody's changes, also the caller's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from netkit.kernel.netlink import attributes
from netkit.kernel.netns import Namespace
from netkit.kernel.route_listener import RouteListener

_DELETED_LINK, _NEW_ADDRESS, _DELETED_ADDRESS = 17, 20, 21
_GROUPS: Final = 0x1 | 0x10 | 0x100
"""Links, IPv4 addresses, IPv6 addresses."""

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_IFNAME, _IFA_ADDRESS, _IFA_LOCAL = 3, 1, 2


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address that came (`there`) or went, or, with `device`, a device that went with all its addresses."""

    there: bool
    address: IPv4Address | IPv6Address | None = None
    device: str = ""


class AddressEvents(RouteListener[AddressEvent]):
    """A listening socket in one namespace; see `RouteListener`."""

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, _GROUPS, "ip monitor address link")

    def event(self, kind: int, body: bytes) -> AddressEvent | None:
        """See `RouteListener`."""
        if kind == _DELETED_LINK:
            name = attributes(body, _LINK.size).get(_IFNAME, b"").rstrip(b"\0").decode()
            return AddressEvent(False, device=name)
        if kind in (_NEW_ADDRESS, _DELETED_ADDRESS):
            contents = attributes(body, _ADDRESS.size)
            packed = contents.get(_IFA_LOCAL) or contents[_IFA_ADDRESS]
            address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
            return AddressEvent(kind == _NEW_ADDRESS, address)
        return None
