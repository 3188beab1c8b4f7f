"""A fake of the IPVS driver for tests without root: it keeps virtual and real servers as the kernel would.

Used by tests only. It reads the very bytes the kernel would get, and refuses what the kernel refuses.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from netkit.kernel import ipvs
from netkit.kernel.errors import KernelError
from netkit.kernel.ipvs_values import SCHEDULERS, RealServer, ServerKey, Target, Timeouts, VirtualServer
from netkit.kernel.netlink import Attributes, Message, attributes


class FakeIPVS:
    """Takes the place of `ipvs.IPVS`. `sent` is every message so far; `schedulers` are those "the kernel" has.

    Every new real server gets `connections` at once. The next `failures` calls of `apply` fail when half of it is done.
    """

    def __init__(self, schedulers: Sequence[str] = SCHEDULERS) -> None:
        self.schedulers = set(schedulers)
        self.known: dict[ServerKey, VirtualServer] = {}
        self.reals: dict[ServerKey, dict[Target, RealServer]] = {}
        self.configured = Timeouts(900, 120, 300)
        self.sent: list[Message] = []
        self.failures = 0
        self.connections = 0

    def apply(self, *messages: Message) -> None:
        self.sent += messages
        half = len(messages)
        failed: list[KernelError] = []
        if self.failures and messages:
            self.failures -= 1
            half //= 2
            failed.append(KernelError(messages[half].what, "fake", errno.EIO))
        for message in messages[:half]:
            code = self._apply(message)
            if code and code not in message.allowed:
                failed.append(KernelError(message.what, "fake", code))
        if failed:
            raise failed[0]

    def servers(self) -> list[VirtualServer]:
        return list(self.known.values())

    def server(self, key: ServerKey) -> VirtualServer | None:
        return self.known.get(key)

    def real_servers(self, key: ServerKey) -> list[RealServer]:
        return list(self.reals.get(key, {}).values())

    def timeouts(self) -> Timeouts:
        return self.configured

    def close(self) -> None:
        """Nothing to close."""

    def connect(self, key: ServerKey, target: Target, *, active: int = 0, inactive: int = 0) -> None:
        """Let a real server have that many connections."""
        self.reals[key][target] = replace(self.reals[key][target], active=active, inactive=inactive)

    def take(self) -> list[str]:
        """The commands sent since the last call."""
        taken = [str(message) for message in self.sent]
        self.sent.clear()
        return taken

    def __str__(self) -> str:
        lines = []
        for key in sorted(self.known, key=str):
            lines.append(f"{key} {self.known[key].options}")
            lines += sorted(f"  -> {real.target} {real.weight}" for real in self.reals[key].values())
        return "\n".join(lines)

    def _apply(self, message: Message) -> int:
        """Do what a message says; the errno, 0 when done."""
        command, found = ipvs.decoded(message)
        match command:
            case ipvs.FLUSH:
                self.known.clear()
                self.reals.clear()
                return 0
            case ipvs.SET_CONFIG:
                self._configure(found)
                return 0
        contents = attributes(found[ipvs.SERVICE])
        key = ipvs.key_in(contents)
        if (key in self.known) == (command == ipvs.NEW_SERVICE):
            return errno.EEXIST if key in self.known else errno.ESRCH
        match command:
            case ipvs.NEW_SERVICE | ipvs.SET_SERVICE:
                server = ipvs.server_in(contents)
                if server is None or server.scheduler not in self.schedulers:
                    return errno.ENOENT
                self.known[key] = server
                self.reals.setdefault(key, {})
            case ipvs.DEL_SERVICE:
                del self.known[key], self.reals[key]
            case _:
                return self._real(command, key, attributes(found[ipvs.DEST]))
        return 0

    def _real(self, command: int, key: ServerKey, found: Attributes) -> int:
        real = ipvs.real_server_in(found, key.address.version)
        known = self.reals[key]
        if (real.target in known) == (command == ipvs.NEW_DEST):
            return errno.EEXIST if real.target in known else errno.ENOENT
        if command == ipvs.DEL_DEST:
            del known[real.target]
        else:
            before = known.get(real.target, replace(real, active=self.connections))
            known[real.target] = replace(before, weight=real.weight)
        return 0

    def _configure(self, found: Attributes) -> None:
        before = self.configured
        self.configured = Timeouts(
            ipvs.number_in(found, ipvs.TIMEOUT_TCP) or before.tcp,
            ipvs.number_in(found, ipvs.TIMEOUT_TCP_FIN) or before.tcp_fin,
            ipvs.number_in(found, ipvs.TIMEOUT_UDP) or before.udp,
        )
