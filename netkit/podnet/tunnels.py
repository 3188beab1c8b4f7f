"""The devices of a node's tunnels, flannel.1 and flannel-wg: made when a mode needs them, removed when none does.

Called by `agent`, which knows the modes. Everything is adopted when it stands. What a device leads to is set apart from
it: flannel.1's entries by `paths`, flannel-wg's peers here. Everything here blocks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from netkit.kernel import rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.wireguard import driver, remains
from netkit.kernel.wireguard_values import Change, Program, State, WireGuard
from netkit.podnet import device, overlay, wireguard
from netkit.podnet.device import Uplink
from netkit.podnet.paths import Tunnel
from netkit.podnet.wireguard import Keys
from netkit.podnet.wireguard_key import Key, own_key

log = logging.getLogger(__name__)

PLACE: Final = "wireguard"
"""The directory in the node's state for the socket of the program that carries flannel-wg."""


SHY_SECONDS: Final = 0.25
"""How long a node waits for a new one to greet first."""

_LOOK_SECONDS: Final = 0.01


class Tunnels:
    """The tunnels of the node in `ns`. `choose` makes the driver of flannel-wg."""

    def __init__(
        self,
        ns: Namespace,
        address: IPv4Address,
        cluster_cidr: IPv4Network,
        state_dir: Path,
        ledger: Ledger,
        choose: Callable[[Namespace, str, Path, Ledger, str], WireGuard] = driver,
    ) -> None:
        self._ns = ns
        self._address = address
        self._cluster_cidr = cluster_cidr
        self._state_dir = state_dir
        self._ledger = ledger
        self._choose = choose
        self._wireguard: WireGuard | None = None
        self._key: Key | None = None
        self._standing: dict[str, Tunnel] = {}

    @property
    def standing(self) -> Mapping[str, Tunnel]:
        """The tunnels that `ensure` has made or found, by the names of their links."""
        return self._standing

    @property
    def public_key(self) -> str:
        """What other nodes must know; "" while there is no flannel-wg."""
        return self._key.public if self._key is not None else ""

    @property
    def implementation(self) -> str:
        """Who does the encryption, "" while there is none."""
        return self._wireguard.implementation if self._wireguard is not None else ""

    @property
    def program(self) -> Program | None:
        """The program that carries flannel-wg, if one does."""
        return self._wireguard.program if self._wireguard is not None else None

    def ensure(self, name: str, node_range: IPv4Network, uplink: Uplink, mtu: int) -> None:
        """Have the device of that name stand. `mtu` in bytes is that of the way between the nodes.

        Raises KernelError, Unsupported where the machine has nothing that can do it.
        """
        if name == overlay.DEVICE:
            mtu -= overlay.OVERHEAD
            with Rtnl(self._ns) as links:
                index = device.ensure_vxlan(self._ns, links, node_range, self._address, uplink, mtu)
        else:
            mtu -= wireguard.OVERHEAD
            index = self._ensure_wireguard(node_range, mtu)
        self._standing[name] = Tunnel(index, mtu)

    def encrypted_is_right(self) -> bool:
        """Whether flannel-wg is as `ensure` has left it, with the route into it. Raises KernelError."""
        wanted = self._standing.get(wireguard.DEVICE)
        link = rtnl_read.links(self._ns).get(wireguard.DEVICE)
        if wanted is None or link is None or not link.up:
            return False
        ways = {route.target for route in rtnl_read.routes(self._ns, link.index)}
        return (link.index, link.mtu) == (wanted.index, wanted.mtu) and self._cluster_cidr in ways

    def keys(self) -> Keys:
        """The peers of flannel-wg; none while it is not there."""
        return self._wireguard.read().peers if self._wireguard is not None else {}

    def apply(self, change: Change) -> None:
        """Change peers of flannel-wg. Raises KernelError."""
        if change and self._wireguard is not None:
            self._wireguard.apply(change)

    def greet_silent(self) -> bool:
        """Greet the peers with whom there is no session yet; whether there were any. Raises KernelError."""
        if self._wireguard is None:
            return False
        change = wireguard.silent(self._wireguard.read())
        self.apply(change)
        return bool(change)

    def open_sessions(self, patience: float) -> None:
        """Return when there is a session with every peer, or `patience` seconds are over. Raises KernelError."""
        began = time.monotonic()
        greeted = False
        while self._wireguard is not None and wireguard.silent(self._wireguard.read()):
            waited = time.monotonic() - began
            if waited > patience:
                return
            if waited > SHY_SECONDS and not greeted:
                greeted = self.greet_silent()
            time.sleep(_LOOK_SECONDS)

    def remove_others(self, wanted: Collection[str], settle: float) -> list[str]:
        """Remove the tunnels that are not wanted and stand, `settle` seconds from now; which. Raises KernelError."""
        self._standing = {name: found for name, found in self._standing.items() if name in wanted}
        there = set(rtnl_read.links(self._ns))
        if any(entry.detail == self._label for entry in self._ledger.entries()):
            there.add(wireguard.DEVICE)
        unwanted: list[str] = [
            name for name in (overlay.DEVICE, wireguard.DEVICE) if name in there and name not in wanted
        ]
        if unwanted:
            time.sleep(settle)
        if overlay.DEVICE in unwanted:
            with Rtnl(self._ns) as links:
                device.remove_vxlan(self._ns, links)
        if wireguard.DEVICE in unwanted:
            self._remove_wireguard()
        return unwanted

    def close(self) -> None:
        """Close handles; the tunnels stay."""
        if self._wireguard is not None:
            self._wireguard.close()

    def _ensure_wireguard(self, node_range: IPv4Network, mtu: int) -> int:
        name, place = wireguard.DEVICE, self._state_dir / PLACE
        if self._wireguard is None:
            self._wireguard = self._choose(self._ns, name, place, self._ledger, self._label)
        try:
            key = own_key(self._state_dir)
        except ValueError as error:
            raise KernelError(f"wg set {name} private-key", self._ns.name, stderr=str(error)) from error
        anew = self._wireguard.ensure()
        now = State("", 0) if anew else self._wireguard.read()
        wanted = Change(
            private_key=key.private if now.public_key != key.public else "",
            port=wireguard.PORT if now.port != wireguard.PORT else 0,
        )
        self.apply(wanted)
        self._key = key
        if anew:
            log.info("%s: %s begun, %s", self._ns.name, name, self._wireguard.implementation)
        with Rtnl(self._ns) as links:
            return device.ensure_encrypted(self._ns, links, node_range, self._cluster_cidr, mtu)

    def _remove_wireguard(self) -> None:
        """Also what an earlier process has made, with whatever the machine had then."""
        place = self._state_dir / PLACE
        drivers = remains(self._ns, wireguard.DEVICE, place, self._ledger, self._label)
        if self._wireguard is not None:
            drivers = [self._wireguard]
        for each in drivers:
            each.remove()
        self.close()
        self._wireguard, self._key = None, None

    @property
    def _label(self) -> str:
        """The program's name on the ledger, which is the node's own."""
        return f"wireguard-{self._ledger.owner}"
