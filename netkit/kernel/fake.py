"""Fakes of the kernel's drivers for tests without root: they keep what they were told and print it.

Used by tests only. `FakeRtnl` stands for `rtnl.Rtnl`; its text is the list of ip(8) commands in the order
applied.
"""

from __future__ import annotations

from netkit.kernel.errors import KernelError
from netkit.kernel.rtnl import Message


class FakeRtnl:
    """Takes every message; gives links the indexes of `known`, and new ones the next free index.

    `refuse` maps the beginning of a command to the errno it shall fail with.
    """

    def __init__(self, known: dict[str, int] | None = None, refuse: dict[str, int] | None = None) -> None:
        self.known = dict(known or {"lo": 1})
        self.refuse = dict(refuse or {})
        self.applied: list[Message] = []

    def apply(self, *messages: Message) -> None:
        for message in messages:
            for prefix, code in self.refuse.items():
                if message.what.startswith(prefix) and code not in message.allowed:
                    raise KernelError(message.what, "fake", code)
            words = message.what.split()
            if words[:3] == ["ip", "link", "add"]:
                self.known.setdefault(words[3], max(self.known.values(), default=0) + 1)
            if words[:3] == ["ip", "link", "delete"]:
                self.known.pop(words[3], None)
            self.applied.append(message)

    def link_index(self, name: str) -> int | None:
        return self.known.get(name)

    def take(self) -> list[str]:
        """The commands applied since the last call."""
        taken = [str(message) for message in self.applied]
        self.applied.clear()
        return taken

    def __str__(self) -> str:
        return "\n".join(str(message) for message in self.applied)
