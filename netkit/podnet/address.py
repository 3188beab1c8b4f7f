"""Which address of a node's range is next. Pure; `ipam` keeps the state.

The order is round robin, as host-local's: an address that was freed is given again only after all others, so
that nobody who remembers it (a neighbour, a conntrack entry, a client) reaches the wrong pod.
"""

from __future__ import annotations

from collections.abc import Container
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.podnet.pod import SandboxFailed

_SMALLEST: Final = 30


class PoolExhausted(SandboxFailed):
    """All addresses of the node's range are given."""


def gateway(node_range: IPv4Network) -> IPv4Interface:
    """The first address of the range, with its prefix length: what cni0 has. ValueError for a range under
    four.
    """
    if node_range.prefixlen > _SMALLEST:
        raise ValueError(f"pod range {node_range} has no room for a gateway and a pod")
    return IPv4Interface((int(node_range.network_address) + 1, node_range.prefixlen))


def next_address(
    node_range: IPv4Network, taken: Container[IPv4Address], last: IPv4Address | None
) -> IPv4Address:
    """The first free address after `last` (None, or outside: from the beginning), going round once.

    Network address, gateway and broadcast address are never given. PoolExhausted when none is free.
    """
    first = int(gateway(node_range).ip) + 1
    count = int(node_range.broadcast_address) - first
    start = int(last) + 1 - first if last is not None and last in node_range else 0
    for step in range(count):
        candidate = IPv4Address(first + (start + step) % count)
        if candidate not in taken:
            return candidate
    raise PoolExhausted(f"no free address in pod range {node_range}: all {count} are in use")
