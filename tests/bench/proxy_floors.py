"""What a proxy mode cannot be faster than: its last writes, made again with nothing around them.

Used by `proxy_modes`. iptables: the program iptables-restore with the same text. nftables: the same transactions, ready
made, through the same socket. What is above that is rendering, comparing and waking threads.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any, Protocol

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables
from netkit.kernel.nft.driver import NftTable
from netkit.proxy.backend import Backend
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.nftables.backend import NftablesBackend


class Floor(Protocol):
    """Notes what its backend writes, and writes it again."""

    name: str

    def written(self) -> list[Any]:
        """What was written since the last call."""

    def seconds(self, writes: Sequence[Any]) -> float:
        """How long it takes to write this again."""


def floor_of(backend: Backend) -> Floor | None:
    """The floor of this backend, None for modes that have none."""
    if isinstance(backend, NftablesBackend):
        return BareTransactions(backend._table)  # type: ignore[arg-type]
    if isinstance(backend, IPTablesBackend):
        return BareRestore(backend._iptables)
    return None


class BareTransactions:
    """Transactions of one table."""

    name = "bare transactions"

    def __init__(self, table: NftTable) -> None:
        self._commit = table.commit
        self._noted: list[Sequence[bytes]] = []
        table.commit = self._note  # type: ignore[method-assign]

    def _note(self, messages: Sequence[bytes]) -> None:
        self._commit(messages)
        self._noted.append(messages)

    def written(self) -> list[Sequence[bytes]]:
        noted, self._noted = self._noted, []
        return noted

    def seconds(self, writes: Sequence[Sequence[bytes]]) -> float:
        started = time.perf_counter()
        for messages in writes:
            self._commit(messages)
        return time.perf_counter() - started


class BareRestore:
    """Runs of iptables-restore. Jumps from built-in chains are left out: they would be there twice."""

    name = "bare restore"

    def __init__(self, driver: IPTables) -> None:
        self._driver = driver
        self._noted: list[bytes] = []
        self._restore = driver.restore
        driver.restore = self._note  # type: ignore[method-assign]

    async def _note(self, text: str, *, noflush: bool = True, counters: bool = False) -> None:
        await self._restore(text, noflush=noflush, counters=counters)
        lines = text.splitlines(keepends=True)
        self._noted.append("".join([line for line in lines if not line.startswith("-I ")]).encode())

    def written(self) -> list[bytes]:
        noted, self._noted = self._noted, []
        return noted

    def seconds(self, writes: Sequence[bytes]) -> float:
        program = [f"iptables-{self._driver.variant}-restore", "-w", "5", "--noflush", "--counters"]
        with netns.entered(self._driver.ns):
            started = time.perf_counter()
            for text in writes:
                subprocess.run(program, input=text, check=True)
            return time.perf_counter() - started
