"""The plug-in's work in the kernel: bridge, cable, addresses, masquerading - made, compared, removed.

Works in the namespace the plug-in was started in, which is the machine's (or a node's) own. What it makes there, others
may use too: a bridge keeps whatever else it has.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from netkit.cni.errors import CniError, Code
from netkit.cni.result import Interface, Result
from netkit.kernel import rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.netns import HOST, Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.rtnl_read import Link
from netkit.podnet import sandbox
from netkit.podnet.sandbox import Plan

_MULTICAST: Final = "224.0.0.0/4"
_DEFAULT_MTU: Final = 1500
_FORWARDS_SECONDS, _AGAIN_SECONDS = 2.0, 0.001
_ANYWHERE: Final = IPv4Network("0.0.0.0/0")


def default_mtu() -> int:
    """The MTU of the machine's way out, in bytes."""
    indexes = {route.index for route in rtnl_read.routes(HOST) if route.target == _ANYWHERE}
    found = [link.mtu for link in rtnl_read.links(HOST).values() if link.index in indexes]
    return min(found, default=_DEFAULT_MTU)


def add(plan: Plan, ns: Namespace, bridge: str) -> tuple[Interface, ...]:
    """Lay the cable to `ns`, from the bridge of that name or, without one, from the machine itself.

    The interfaces of the result: the bridge, the machine's end, the container's. Raises KernelError and CniError, after
    having taken back the cable.
    """
    sysctl.write(HOST, "net.ipv4.ip_forward", 1)
    with Rtnl(HOST) as links:
        made: list[Interface] = []
        if bridge:
            index, mac = _ensure_bridge(links, bridge, plan.gateway, plan.mtu)
            plan = replace(plan, bridge=index, gateway_mac=mac)
            made.append(Interface(bridge, mac, mtu=plan.mtu))
        with Rtnl(ns) as inside:
            if inside.link_index(plan.uplink) is not None:
                raise CniError(Code.OURS, f"container veth name provided ({plan.uplink}) already exists")
        try:
            sandbox.connect(plan, ns, links)
        except BaseException:
            links.apply(rtnl.link_delete(plan.link).allowing(errno.ENODEV))
            raise
        end = _forwarding(links, plan.link)
    return (
        *made, Interface(plan.link, end.mac, mtu=plan.mtu), Interface(plan.uplink, plan.mac, ns.path, plan.mtu),
    )  # fmt: skip


def _forwarding(links: Rtnl, name: str) -> Link:
    """The cable's machine end, once the kernel lets packets through: some time after it was set up."""
    deadline = time.monotonic() + _FORWARDS_SECONDS
    while True:
        link = links.link(name)
        if link is None:
            raise KernelError(f"ip link show {name}", errno=errno.ENODEV)
        if link.forwards or time.monotonic() > deadline:
            return link
        time.sleep(_AGAIN_SECONDS)


def remove(link: str) -> None:
    """Remove a cable by its machine's end; fine when it is gone. The name may be used again when this returns."""
    with Rtnl(HOST) as links:
        links.apply(rtnl.link_delete(link).allowing(errno.ENODEV))


def differences(previous: Result, ns: Namespace, name: str) -> list[str]:
    """What of an earlier ADD's result is not there any more, in words."""
    outside, inside = rtnl_read.links(HOST), rtnl_read.links(ns)
    found = []
    for item in previous.interfaces:
        links = inside if item.sandbox else outside
        link = links.get(item.name)
        where = "the container" if item.sandbox else "the host"
        if link is None:
            found.append(f"interface {item.name} is missing in {where}")
        elif item.mac and link.mac != item.mac.lower():
            found.append(f"interface {item.name} of {where} has MAC {link.mac}, not {item.mac}")
        elif not link.up:
            found.append(f"interface {item.name} of {where} is down")
    link = inside.get(name)
    present = {entry.address for entry in rtnl_read.addresses(ns, link.index)} if link else set()
    found += [
        f"{name} lacks the address {ip.address}"
        for ip in previous.addresses_in(ns.path, name)
        if ip.address not in present
    ]
    targets = {str(route.target) for route in rtnl_read.routes(ns)}
    found += [
        f"the route to {route.target} is missing" for route in previous.routes if route.target not in targets
    ]
    return found


def masquerade(network: str, container: str, addresses: Sequence[IPv4Interface]) -> str:
    """Give packets from the addresses to the world outside their subnet the machine's address: the chain's name.

    In the layout of the bridge plug-in's `ipMasq`.
    """
    chain = masquerade_chain(network, container)
    comment = f'name: "{network}" id: "{container}"'.replace('"', r"\"")
    lines = ["*nat", f":{chain} - [0:0]"]
    for address in addresses:
        lines.append(f'-A {chain} -d {address.network} -m comment --comment "{comment}" -j ACCEPT')
    lines += [f'-A {chain} ! -d {_MULTICAST} -m comment --comment "{comment}" -j MASQUERADE', "COMMIT"]
    asyncio.run(_masquerade(chain, "\n".join(lines) + "\n", [_source(chain, ip) for ip in addresses]))
    return chain


def stop_masquerading(chain: str) -> None:
    """Remove the chain and the ways into it; fine when they are gone."""
    asyncio.run(_stop_masquerading(chain))


def masquerade_chain(network: str, container: str) -> str:
    """The name that the bridge plug-in gives the chain."""
    return ("CNI-" + hashlib.sha512(f"{network}{container}".encode()).hexdigest())[:28]


def _source(chain: str, address: IPv4Interface) -> tuple[str, ...]:
    return ("-s", f"{address.ip}/32", "-j", chain)


async def _masquerade(chain: str, document: str, jumps: Sequence[Sequence[str]]) -> None:
    driver = IPTables(HOST)
    await driver.restore(document)
    for jump in jumps:
        await driver.ensure_rule("nat", "POSTROUTING", jump, prepend=False)


async def _stop_masquerading(chain: str) -> None:
    driver = IPTables(HOST)
    for line in (await driver.save("nat")).splitlines():
        words = line.split()
        if words[:2] == ["-A", "POSTROUTING"] and words[-1] == chain:
            await driver.delete_rule("nat", "POSTROUTING", words[2:])
    await driver.delete_chain("nat", chain)


def _ensure_bridge(links: Rtnl, name: str, gateway: IPv4Interface, mtu: int) -> tuple[int, str]:
    """The bridge, up, with the gateway's address among others: its index and hardware address."""
    present = rtnl_read.links(HOST).get(name)
    if present is not None and present.kind != "bridge":
        raise CniError(Code.INVALID_CONFIG, f"bridge: {name} already exists but is not a bridge")
    if present is None:
        try:
            links.apply(rtnl.bridge(name, mac=rtnl.mac_of(gateway.ip), mtu=mtu))
        except KernelError as error:
            if not error.is_exists:
                raise
        present = rtnl_read.links(HOST)[name]
    links.apply(rtnl.link_up(present.index), rtnl.address_add(gateway, present.index))
    return present.index, present.mac
