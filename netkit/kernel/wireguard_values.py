"""What a WireGuard device is set to, and what changes it: the values both of its implementations take. Pure.

Keys are 32 bytes in base64, as wg(8) and the annotations of nodes have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

KERNEL: Final = "kernel"
PROGRAM: Final = "wireguard-go"
USERSPACE: Final = f"userspace: {PROGRAM}"

GREETING_SECONDS: Final = 1
"""A keepalive interval that is set and taken away again: the device sends a packet at once, which opens a session."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who may send packets with a source address in `allowed`, and gets those for these addresses.

    `keepalive` in seconds between packets that keep stateful things on the way awake; 0: none are sent.
    """

    public_key: str
    endpoint: IPv4Address
    port: int
    allowed: tuple[IPv4Network, ...]
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What a device is set to; its private key is told by the public one only. `sessions` are the peers with whom it
    has agreed on keys since it stands, however long ago.
    """

    public_key: str
    port: int
    peers: Mapping[str, Peer] = field(default_factory=dict)
    sessions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different: the key and the port (if given), these peers just so, those keys no peers.

    Peers that are not named stay as they are, with their sessions. `greeted` are peers with whom a session is opened at
    once. Else the first packet does it; but who still has a session with an earlier self sends into it for 15 s.
    """

    private_key: str = ""
    port: int = 0
    peers: tuple[Peer, ...] = ()
    removed: tuple[str, ...] = ()
    greeted: tuple[Peer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.private_key or self.port or self.peers or self.removed or self.greeted)

    @property
    def settings(self) -> bool:
        """Whether it changes anything that lasts."""
        return bool(self.private_key or self.port or self.peers or self.removed)

    def __str__(self) -> str:
        """As arguments of `wg set DEVICE`, without the secret."""
        words = []
        if self.port:
            words.append(f"listen-port {self.port}")
        if self.private_key:
            words.append("private-key (hidden)")
        words += [f"peer {key} remove" for key in self.removed]
        for peer in self.peers:
            words.append(f"peer {peer.public_key} {peer_text(peer)}")
        if self.greeted:
            words.append(f"({len(self.greeted)} peers greeted)")
        return " ".join(words)


def peer_text(peer: Peer) -> str:
    """A peer's settings as arguments of wg(8)."""
    allowed = ",".join(map(str, peer.allowed))
    keepalive = f" persistent-keepalive {peer.keepalive}" if peer.keepalive else ""
    return f"endpoint {peer.endpoint}:{peer.port} allowed-ips {allowed}{keepalive}"


class Program(Protocol):
    """A running program that carries a device."""

    async def ended(self) -> None:
        """Wait until it has ended."""
        ...


class WireGuard(Protocol):
    """One device in one namespace. All but `program` raise KernelError, and block: use a thread from a loop."""

    @property
    def implementation(self) -> str:
        """KERNEL or USERSPACE."""
        ...

    @property
    def program(self) -> Program | None:
        """What carries the device now, None for nothing but the kernel."""
        ...

    def ensure(self) -> bool:
        """Have the device stand and be up, whatever it is set to; True if it was begun anew and is set to nothing."""
        ...

    def apply(self, change: Change) -> None:
        """Change what it is set to, in one request (with a second one for greetings)."""
        ...

    def read(self) -> State:
        """What it is set to. `is_not_found` if there is no device, or nobody who carries it."""
        ...

    def remove(self) -> bool:
        """Remove the device and what carries it; False when there was none."""
        ...

    def close(self) -> None:
        """Close handles; the device stays and works on."""
        ...
