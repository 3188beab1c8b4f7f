"""All ranges of one IP family and what is taken of them. Called by `services`; in memory only.

Ranges may overlap: an address is taken in all of them at once. Who holds it is kept apart, because a Service and the
IPAddress object of the same address come and go separately.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from controlplane.apiserver.allocation.cluster_ips import AllocationError, ClusterIPs, IPAddress, IPNetwork

_FULL = "range is full"


class FamilyRanges:
    """`networks` in the order they are used in."""

    def __init__(self, networks: Iterable[IPNetwork], rng: random.Random | None = None) -> None:
        self._rng = rng
        self._ranges: list[ClusterIPs] = []
        self._services: set[IPAddress] = set()
        self._objects: set[IPAddress] = set()
        self.use(networks)

    @property
    def family(self) -> Literal["IPv4", "IPv6"]:
        return self._ranges[0].family

    def use(self, networks: Iterable[IPNetwork]) -> None:
        """Hand out addresses of these ranges from now on; what is taken stays taken."""
        known = {pool.network: pool for pool in self._ranges}
        self._ranges = []
        for network in dict.fromkeys(networks):
            pool = known.get(network)
            if pool is None:
                pool = ClusterIPs(network, self._rng)
                for address in self._services | self._objects:
                    if address.version == network.version:
                        pool.mark(address)
            self._ranges.append(pool)

    def allocate(self, address: IPAddress) -> None:
        """Take that address for a Service. Raises AllocationError when it is taken or of no range."""
        if not any(address in pool.network for pool in self._ranges):
            raise AllocationError(self._mismatch(address))
        if address in self._services or address in self._objects:
            raise AllocationError("provided IP is already allocated")
        for pool in self._ranges:
            if address in pool.network:
                pool.allocate(address)
        self._services.add(address)

    def _mismatch(self, address: IPAddress) -> str:
        if len(self._ranges) == 1:
            return (
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self._ranges[0].network}"
            )
        return "the provided network does not match the current range"

    def allocate_next(self) -> IPAddress:
        """Take any free address for a Service. Raises AllocationError when there is none."""
        for chosen in self._ranges:
            try:
                address = chosen.allocate_next()
            except AllocationError:
                continue
            for pool in self._ranges:
                if pool is not chosen:
                    pool.mark(address)
            self._services.add(address)
            return address
        raise AllocationError(_FULL)

    def release(self, address: IPAddress) -> None:
        """The Service is gone."""
        self._services.discard(address)
        self._free(address)

    def hold(self, address: IPAddress) -> bool:
        """There is an IPAddress object of that address, or will be; False when there was one before."""
        if address in self._objects:
            return False
        self._objects.add(address)
        for pool in self._ranges:
            pool.mark(address)
        return True

    def let_go(self, address: IPAddress) -> None:
        """The IPAddress object is gone."""
        self._objects.discard(address)
        self._free(address)

    def _free(self, address: IPAddress) -> None:
        if address not in self._services and address not in self._objects:
            for pool in self._ranges:
                pool.release(address)

    @property
    def without_object(self) -> Sequence[IPAddress]:
        """Addresses of Services that have no IPAddress object."""
        return sorted(self._services - self._objects)

    def has_service(self, address: IPAddress) -> bool:
        return address in self._services

    def clear(self) -> None:
        self._services.clear()
        self._objects.clear()
        for pool in self._ranges:
            pool.clear()
