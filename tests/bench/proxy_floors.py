"""What a proxy mode cannot be faster than: its last writes, made again with nothing around them.

Used by `proxy_modes`. iptables: the program iptables-restore with the same text. nftables: the same transactions, ready
made, through the same socket. IPVS: both, the same netlink messages and the same text. What is above that is rendering,
comparing and waking threads.
"""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables
from netkit.kernel.nft.driver import NftTable
from netkit.kernel.nft.objects import TableWriter
from netkit.proxy.backend import Backend
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.nftables.backend import NftablesBackend


class Floor(Protocol):
    """Notes what its backend writes, and writes it again."""

    name: str

    def written(self) -> list[Any]:
        """What was written since the last call."""

    def seconds(self, writes: Sequence[Any]) -> Mapping[str, float]:
        """How long it takes to write this again, by what is written."""


def floor_of(backend: Backend) -> Floor | None:
    """The floor of this backend, None for modes that have none."""
    if isinstance(backend, NftablesBackend):
        return BareTransactions(backend._table)  # type: ignore[arg-type]
    if isinstance(backend, IPTablesBackend):
        return BareRestore(backend._iptables)
    if isinstance(backend, IPVSBackend):
        return BareMessages(backend._drivers)
    return None


class _Write(NamedTuple):
    """One transaction: its messages, or the chains that are to keep so many rules."""

    messages: Sequence[bytes]
    kept: Mapping[str, int]


class BareTransactions:
    """Transactions of one table."""

    name = "bare transactions"

    def __init__(self, table: NftTable) -> None:
        self._writer = TableWriter(table.family, table.table)
        self._commit, self._handles = table.commit, table.handles
        self._asked: dict[str, list[int]] = {}
        self._noted: list[_Write] = []
        table.commit, table.handles = self._note, self._ask  # type: ignore[method-assign]

    def _ask(self, chain: str) -> list[int]:
        found = self._asked[chain] = self._handles(chain)
        return found

    def _note(self, messages: Sequence[bytes]) -> None:
        self._commit(messages)
        # Rules have other handles the next time: what counts is how many of a chain's rules were left.
        gone = {bytes(message) for message in messages}
        kept = {
            chain: sum(self._writer.delete_rule(chain, handle) not in gone for handle in handles)
            for chain, handles in self._asked.items()
        }
        whole = messages if not self._asked else ()
        self._asked.clear()
        self._noted.append(_Write(whole, kept))

    def written(self) -> list[_Write]:
        noted, self._noted = self._noted, []
        return noted

    def seconds(self, writes: Sequence[_Write]) -> Mapping[str, float]:
        started = time.perf_counter()
        for write in writes:
            surplus = [
                self._writer.delete_rule(chain, handle)
                for chain, kept in write.kept.items()
                for handle in self._handles(chain)[kept:]
            ]
            self._commit([*write.messages, *surplus])
        return {"transactions": time.perf_counter() - started}


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

    def seconds(self, writes: Sequence[bytes]) -> Mapping[str, float]:
        program = [f"iptables-{self._driver.variant}-restore", "-w", "5", "--noflush", "--counters"]
        with netns.entered(self._driver.ns):
            started = time.perf_counter()
            for text in writes:
                subprocess.run(program, input=text, check=True)
            return {"rules": time.perf_counter() - started}


class BareMessages:
    """Netlink messages to IPVS and ipset, addresses of kube-ipvs0, and runs of iptables-restore, in their order."""

    name = "bare messages"

    def __init__(self, drivers: Drivers) -> None:
        self._restore = BareRestore(drivers.iptables)
        self._noted: list[tuple[str, Callable[[], object]]] = []
        self._note(drivers.servers, "apply", "servers")
        self._note(drivers.sets, "apply", "sets")
        for change in ("make_device", "bind", "unbind"):
            self._note(drivers.node, change, "addresses")

    def _note(self, driver: Any, method: str, kind: str) -> None:
        plain = getattr(driver, method)

        def noting(*arguments: Any) -> object:
            self._note_rules()
            arguments = tuple(tuple(item) if isinstance(item, Iterator) else item for item in arguments)
            if arguments or method == "make_device":
                self._noted.append((kind, functools.partial(plain, *arguments)))
            return plain(*arguments)

        setattr(driver, method, noting)

    def _note_rules(self) -> None:
        """What was restored since the last note, before what comes now."""
        for text in self._restore.written():
            self._noted.append(("rules", functools.partial(self._restore.seconds, [text])))

    def written(self) -> list[tuple[str, Callable[[], object]]]:
        self._note_rules()
        noted, self._noted = self._noted, []
        return noted

    def seconds(self, writes: Sequence[tuple[str, Callable[[], object]]]) -> Mapping[str, float]:
        found = dict.fromkeys((kind for kind, _ in writes), 0.0)
        for kind, write in writes:
            started = time.perf_counter()
            write()
            found[kind] += time.perf_counter() - started
        return found
