"""A connection tracking table for tests without root: keeps what it was given, and can be printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from netkit.kernel.conntrack import Direction, Entry
from netkit.kernel.errors import KernelError


def entry(
    protocol: int, source: str, destination: str, answers_from: str = "", answers_to: str = ""
) -> Entry:
    """An entry made of `address:port` texts (`[address]:port`); untranslated in what is left out."""
    return Entry(
        protocol,
        _direction(source, destination),
        _direction(answers_from or destination, answers_to or source),
    )


class FakeConntrack:
    """Holds `entries`; `failures` calls of `delete` to come are refused. `dumps` counts how often it was read."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)
        self.failures = 0
        self.dumps = 0

    def dump(self, version: int, protocol: int) -> list[Entry]:
        self.dumps += 1
        return [item for item in self.entries if (item.version, item.protocol) == (version, protocol)]

    def delete(self, entries: Sequence[Entry]) -> int:
        if self.failures:
            self.failures -= 1
            raise KernelError("conntrack -D", "fake", stderr="injected")
        before = len(self.entries)
        self.entries = [item for item in self.entries if item not in entries]
        return before - len(self.entries)

    def __str__(self) -> str:
        return "\n".join(str(item) for item in self.entries)


class FakeTranslations:
    """Connections that something else translates; `translated` are those handed over."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)
        self.translated: list[Entry] = []

    def untranslated(self, version: int, protocol: int) -> list[Entry]:
        return [item for item in self.entries if (item.version, item.protocol) == (version, protocol)]

    def translate(self, entries: Sequence[Entry]) -> None:
        self.translated += entries
        self.entries = [item for item in self.entries if item not in entries]


def _direction(source: str, destination: str) -> Direction:
    here, there = _split(source), _split(destination)
    return Direction(here[0], there[0], here[1], there[1])


def _split(text: str) -> tuple[bytes, int]:
    address, _, port = text.rpartition(":")
    return ip_address(address.strip("[]")).packed, int(port)
