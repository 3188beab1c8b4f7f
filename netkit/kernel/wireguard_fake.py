"""A fake of WireGuard's drivers for tests without root: it keeps what it is set to, as the kernel would.

Used by tests only.
"""

from __future__ import annotations

import errno

from netkit.kernel.errors import KernelError
from netkit.kernel.wireguard_values import KERNEL, Change, Peer, Program, State


class FakeWireGuard:
    """Takes the place of a driver. `applied` is every change so far, `refuse` what `ensure` shall raise."""

    def __init__(self, refuse: KernelError | None = None) -> None:
        self.refuse = refuse
        self.applied: list[Change] = []
        self.private_key = ""
        self.port = 0
        self.peers: dict[str, Peer] = {}
        self.greeted: set[str] = set()
        self.stands = False

    @property
    def implementation(self) -> str:
        return KERNEL

    @property
    def program(self) -> Program | None:
        return None

    def ensure(self) -> bool:
        if self.refuse is not None:
            raise self.refuse
        anew, self.stands = not self.stands, True
        return anew

    def apply(self, change: Change) -> None:
        self._there()
        self.applied.append(change)
        self.private_key = change.private_key or self.private_key
        self.port = change.port or self.port
        for key in change.removed:
            self.peers.pop(key, None)
        for peer in change.peers:
            for key, other in self.peers.items():
                # An address belongs to the peer that had it last.
                left = tuple(network for network in other.allowed if network not in peer.allowed)
                self.peers[key] = Peer(key, other.endpoint, other.port, left, other.keepalive)
            self.peers[peer.public_key] = peer
        self.greeted |= {peer.public_key for peer in change.greeted}

    def read(self) -> State:
        self._there()
        public = self.private_key and f"public of {self.private_key}"
        return State(public, self.port, dict(self.peers), frozenset(self.greeted & self.peers.keys()))

    def remove(self) -> bool:
        was, self.stands = self.stands, False
        self.private_key, self.port, self.peers, self.greeted = "", 0, {}, set()
        return was

    def close(self) -> None:
        """Nothing is open."""

    def _there(self) -> None:
        if not self.stands:
            raise KernelError("wg show", "fake", errno.ENODEV)

    def __str__(self) -> str:
        return "\n".join(f"wg set {change}" for change in self.applied)
