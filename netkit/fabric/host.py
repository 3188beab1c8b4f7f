"""What the machine's own network uses, read by netlink. Called before a segment is chosen; changes nothing."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from netkit.kernel import rtnl_read
from netkit.kernel.netns import HOST


def networks_in_use(except_link: str = "") -> frozenset[IPv4Network]:
    """Networks of the machine's own IPv4 addresses and routes (without the default route and loopback).

    `except_link` is the cluster's own host link, whose address and route do not count when it stands already.
    """
    own = rtnl_read.links(HOST).get(except_link)
    skip = {own.index} if own else set()
    used = {
        entry.address.network
        for entry in rtnl_read.addresses(HOST)
        if isinstance(entry.address, IPv4Interface) and entry.index not in skip
    }
    used |= {route.target for route in rtnl_read.routes(HOST) if route.index not in skip}
    return frozenset(network for network in used if network.prefixlen > 0 and not network.is_loopback)
