"""Reading addresses as Kubernetes reads them.

Called by the modules that turn objects into values. Pure; knows nothing of services.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable
from enum import StrEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Family(StrEnum):
    """An address family, in the API's words."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self is Family.IPV4 else 6


def parse_address(text: str) -> Address:
    """The address `text` stands for; leading zeros of IPv4 parts count as decimal (10.020.0.1 is 10.20.0.1).

    Kubernetes kept that old reading for existing objects, while `ipaddress` refuses it. Raises ValueError.
    """
    return read_address(text)[0]


@functools.lru_cache(maxsize=65536)
def read_address(text: str) -> tuple[Address, str]:
    """The address, and how it is written canonically. Raises ValueError."""
    try:
        # What the C library takes for IPv4 is canonical already; all of a big cluster passes here.
        packed = socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        pass
    else:
        return ipaddress.IPv4Address(int.from_bytes(packed)), text
    text = text.strip()
    address: Address
    if ":" in text:
        address = ipaddress.IPv6Address(text)
        address = address.ipv4_mapped or address  # ::ffff:10.0.0.1 is IPv4, as Go has it
    else:
        address = ipaddress.IPv4Address(_decimal_parts(text))
    return address, str(address)


def parse_network(text: str) -> Network:
    """The network of a CIDR such as `192.0.2.7/24` (host bits are cleared). Raises ValueError."""
    address, slash, length = text.strip().partition("/")
    if not slash:
        raise ValueError(f"{text!r} is not an address range: it has no prefix length")
    if ":" in address:
        return ipaddress.IPv6Network(f"{address}/{length}", strict=False)
    return ipaddress.IPv4Network(f"{_decimal_parts(address)}/{length}", strict=False)


def addresses_of(family: Family, texts: Iterable[str]) -> tuple[Address, ...]:
    """The addresses of one family, in order, each once. Text that is no address belongs to no family."""
    if not texts:
        return ()
    found: dict[Address, None] = {}
    for text in texts:
        try:
            address = parse_address(text)
        except ValueError:
            continue
        if address.version == family.version:
            found[address] = None
    return tuple(found)


def networks_of(family: Family, texts: Iterable[str]) -> tuple[Network, ...]:
    """The ranges of one family, in order, each once. Text that is no range belongs to no family."""
    if not texts:
        return ()
    found: dict[Network, None] = {}
    for text in texts:
        try:
            network = parse_network(text)
        except ValueError:
            continue
        if network.version == family.version:
            found[network] = None
    return tuple(found)


def host_port(address: Address, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _decimal_parts(text: str) -> str:
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return text
    return ".".join(str(int(part)) for part in parts)
