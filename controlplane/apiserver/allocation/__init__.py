"""Allocation of what must be unique in a cluster: Services' cluster addresses and node ports."""

from controlplane.apiserver.allocation.allocator import Allocator, Reservation
from controlplane.apiserver.allocation.services import ServiceAllocator

__all__ = ["Allocator", "Reservation", "ServiceAllocator"]
