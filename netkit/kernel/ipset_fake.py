"""A fake of the ipset driver for tests without root: it keeps sets and their entries as the kernel would.

Used by tests only. It reads the very bytes the kernel would get, and refuses what the kernel refuses.
"""

from __future__ import annotations

import errno

from netkit.kernel import ipset
from netkit.kernel.errors import KernelError
from netkit.kernel.ipset import SetHeader, SetType
from netkit.kernel.netlink import Message


class FakeIPSet:
    """Takes the place of `ipset.IPSet`. `sent` is every message so far; sets in `used` cannot be destroyed.

    The next `failures` calls of `apply` fail when half of it is done.
    """

    def __init__(self) -> None:
        self.types: dict[str, tuple[SetType, int]] = {}
        self.contents: dict[str, set[str]] = {}
        self.used: set[str] = set()
        self.sent: list[Message] = []
        self.failures = 0

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

    def headers(self) -> dict[str, SetHeader]:
        return {
            name: SetHeader(name, kind, version, len(self.contents[name]))
            for name, (kind, version) in self.types.items()
        }

    def entries(self, name: str) -> frozenset[str]:
        if name not in self.contents:
            raise KernelError(f"ipset list {name}", "fake", errno.ENOENT)
        return frozenset(self.contents[name])

    def has_type(self, kind: SetType) -> bool:
        return True

    def close(self) -> None:
        """Nothing to close."""

    def take(self) -> list[str]:
        """The commands sent since the last call."""
        taken = [str(message) for message in self.sent]
        self.sent.clear()
        return taken

    def __str__(self) -> str:
        return "\n".join(
            f"{name} {kind}: {' '.join(sorted(self.contents[name]))}"
            for name, (kind, _) in sorted(self.types.items())
        )

    def _apply(self, message: Message) -> int:
        """Do what a message says; the errno, 0 when done."""
        command, found = ipset.decoded(message)
        name = ipset.name_in(found)
        if command == ipset.CREATE:
            wanted = ipset.type_in(found)
            if self.types.setdefault(name, wanted) != wanted:
                return errno.EEXIST
            self.contents.setdefault(name, set())
            return 0
        if name not in self.types:
            return errno.ENOENT
        match command:
            case ipset.DESTROY:
                if name in self.used:
                    return errno.EBUSY
                del self.types[name], self.contents[name]
            case ipset.FLUSH:
                self.contents[name].clear()
            case ipset.ADD:
                self.contents[name].add(ipset.entry_in(found, *self.types[name]))
            case ipset.DELETE:
                self.contents[name].discard(ipset.entry_in(found, *self.types[name]))
        return 0
