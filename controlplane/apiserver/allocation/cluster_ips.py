"""The addresses of one Service range. Called by `services`; in memory only."""

from __future__ import annotations

import ipaddress
import random
from typing import Literal

from controlplane.apiserver.allocation.pool import NumberPool

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST = 2**16
"""Addresses used of an IPv6 range, as upstream."""


class AllocationError(Exception):
    """A value cannot be had; the message is upstream's."""


def _static_band(size: int) -> int:
    """How many of the first addresses are left to explicit requests."""
    return 0 if size <= 16 else min(max(16, size // 16), 256)


class ClusterIPs:
    """Hands out addresses of `network`; its network and (IPv4) broadcast addresses are never given."""

    def __init__(self, network: IPNetwork, rng: random.Random | None = None) -> None:
        self.network = network
        usable = network.num_addresses - (2 if network.version == 4 else 1)
        size = max(usable if network.version == 4 else min(usable, _MOST), 0)
        self._pool = NumberPool(size, _static_band(size), rng)
        self._size = size
        self._first = int(network.network_address) + 1

    @property
    def family(self) -> Literal["IPv4", "IPv6"]:
        return "IPv4" if self.network.version == 4 else "IPv6"

    @property
    def first(self) -> IPAddress:
        """The address of the `kubernetes` Service."""
        return self.network.network_address + 1

    def allocate(self, address: IPAddress) -> None:
        """Take that address. Raises AllocationError when it is taken or not of the range."""
        number = self._number(address)
        if number is None:
            raise AllocationError(
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self.network}"
            )
        if not self._pool.take(number):
            raise AllocationError("provided IP is already allocated")

    def allocate_next(self) -> IPAddress:
        """Take any free address. Raises AllocationError when there is none."""
        number = self._pool.choose()
        if number is None:
            raise AllocationError("range is full")
        return self.network.network_address + 1 + number

    def mark(self, address: IPAddress) -> None:
        """Take an address, whether it is taken already or not of the range."""
        number = self._number(address)
        if number is not None:
            self._pool.take(number)

    def release(self, address: IPAddress) -> None:
        """Free an address; one that is not of the range is nobody's."""
        number = self._number(address)
        if number is not None:
            self._pool.free(number)

    def clear(self) -> None:
        self._pool.clear()

    def __contains__(self, address: IPAddress) -> bool:
        number = self._number(address)
        return number is not None and number in self._pool

    def _number(self, address: IPAddress) -> int | None:
        if address.version != self.network.version:
            return None
        number = int(address) - self._first
        return number if 0 <= number < self._size else None
