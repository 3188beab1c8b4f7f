"""WireGuard, whoever does it: the kernel where it can, else a program on a TUN device.

Called by the pod network. The choice is made by trying, each time a device is wanted: a kernel that has learned it
meanwhile takes over at the next start of an agent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from netkit.kernel import rtnl_read, wireguard_netlink, wireguard_program
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.wireguard_netlink import KernelWireGuard
from netkit.kernel.wireguard_program import PACKAGE, ProgramWireGuard, socket_path
from netkit.kernel.wireguard_uapi import Uapi
from netkit.kernel.wireguard_values import KERNEL, PROGRAM, USERSPACE, State, WireGuard

HOW_TO_GET: Final = f"install the package {PACKAGE}, or modprobe wireguard"


def driver(ns: Namespace, device: str, place: Path, ledger: Ledger, label: str) -> WireGuard:
    """What makes and sets `device` in `ns`. `place` is a directory for its use alone, `label` names its process.

    Unsupported, with advice, when this machine has no WireGuard at all.
    """
    if wireguard_netlink.available(ns):
        return KernelWireGuard(ns, device)
    try:
        wireguard_program.available()
    except KernelError as error:
        why = f"the kernel has no module wireguard, and {PROGRAM}: {error.stderr or error}"
        raise Unsupported("wireguard", ns.name, error.errno, why, HOW_TO_GET) from error
    return ProgramWireGuard(ns, device, place, ledger, label)


def remains(ns: Namespace, device: str, place: Path, ledger: Ledger, label: str) -> list[WireGuard]:
    """The drivers that can remove what an earlier process may have made, whatever this machine has now."""
    return [KernelWireGuard(ns, device), ProgramWireGuard(ns, device, place, ledger, label)]


def read(ns: Namespace, device: str, place: Path) -> tuple[str, State] | None:
    """Who carries the device that stands, and what it is set to; None when there is none, or nobody answers."""
    link = rtnl_read.links(ns).get(device)
    if link is None:
        return None
    try:
        if link.kind == wireguard_netlink.FAMILY:
            return KERNEL, KernelWireGuard(ns, device).read()
        return USERSPACE, Uapi(socket_path(place, device), ns.name).read()
    except KernelError as error:
        if error.is_not_found:
            return None
        raise
