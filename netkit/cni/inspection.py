"""Pods of plug-ins of others as entries that can be shown and compared, and what their CHECK says. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from netkit.cni.cache import Cached
from netkit.cni.chain import Runtime
from netkit.cni.errors import CniError
from netkit.cni.result import parse
from netkit.kernel import netns, rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.netns_directory import NETNS_DIRECTORY
from netkit.podnet.entries import Difference, Entry, Kind, Problem
from netkit.podnet.sandbox import UPLINK


def expected(cached: Iterable[Cached]) -> list[Entry]:
    """The pods as the plug-ins' results have them."""
    return [
        Entry(Kind.POD, item.netns, _wanted(item), f"pod {item.pod}, by {' and '.join(item.conflist.types)}")
        for item in cached
    ]


def standing(cached: Iterable[Cached]) -> list[Entry]:
    """The pods as the kernel has them; nothing for a namespace that is gone."""
    return [entry for item in cached for entry in _found(item.netns)]


def refusals(cached: Iterable[Cached], runtime: Runtime) -> list[Difference]:
    """What the plug-ins say against pods of theirs. Runs them."""
    found = []
    for item in cached:
        try:
            runtime.check(item, _path(item))
        except CniError as error:
            found.append(
                Difference(Kind.POD, item.netns, Problem.WRONG, _wanted(item), "refused by CHECK", str(error))
            )
    return found


def _wanted(cached: Cached) -> str:
    return _text(str(ip.address) for ip in parse(cached.result).addresses_in(_path(cached), UPLINK))


def _found(name: str) -> list[Entry]:
    try:
        with netns.open_namespace(name) as ns:
            link = rtnl_read.links(ns).get(UPLINK)
            if link is None:
                return []
            addresses = [item.address for item in rtnl_read.addresses(ns, link.index)]
    except KernelError as error:
        if error.is_not_found:
            return []
        raise
    shown = [str(address) for address in addresses if not address.ip.is_link_local]
    return [Entry(Kind.POD, name, _text(shown))]


def _path(cached: Cached) -> str:
    return f"{NETNS_DIRECTORY}/{cached.netns}"


def _text(addresses: Iterable[str]) -> str:
    return " ".join([UPLINK, *addresses])
