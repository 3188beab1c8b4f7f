"""What the tests of proxy modes on the real kernel share: namespaces, and drivers that can be made to fail."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from itertools import count
from pathlib import Path

from support.proxy_player import ADDRESSES

from netkit.kernel import netns, rtnl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.proxy.addresses import Family

_serial = count()
_CHAIN = re.compile(r"^:(\S+) (\S+)")


class MadeToFail(KernelError):
    """What a driver raises that was told to."""

    def __init__(self, namespace: str) -> None:
        super().__init__("a write", namespace, stderr="made to fail")


class FailingIPTables(IPTables):
    """The driver; the next `failures` times it loads nothing."""

    failures = 0

    async def restore(self, text: str, *, noflush: bool = True, counters: bool = False) -> None:
        if self.failures:
            self.failures -= 1
            raise MadeToFail(self.ns.name)
        await super().restore(text, noflush=noflush, counters=counters)

    async def standing(self) -> dict[tuple[str, str], list[str]]:
        """Rules by table and chain; built-in chains without any are left out."""
        found: dict[tuple[str, str], list[str]] = {}
        table = ""
        for line in (await self.save()).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif declared := _CHAIN.match(line):
                if declared[2] == "-":
                    found[table, declared[1]] = []
            elif line.startswith("-A "):
                _, chain, rule = line.split(" ", 2)
                found.setdefault((table, chain), []).append(rule)
        return found

    async def flush(self) -> None:
        """Remove all rules and chains, whosesoever."""
        self.failures = 0
        for table in {table for table, _ in await self.standing()}:
            await self.restore(f"*{table}\nCOMMIT\n", noflush=False)


@contextmanager
def two_nodes(directory: Path) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with the addresses of a node and nothing else in them."""
    ledger = Ledger(directory, "proxysequences")
    made: list[Namespace] = []
    with ExitStack() as stack:
        for _ in range(2):
            name = f"nkseq{os.getpid()}x{next(_serial)}"
            space = netns.create(name, ledger)
            stack.callback(_delete, space, ledger)
            with Rtnl(space) as links:
                links.apply(rtnl.link_up("lo"))
                index = links.link_index("lo")
                assert index is not None
                own = [ip_interface(address) for address in ADDRESSES if not address.is_loopback]
                links.apply(*(rtnl.address_add(address, index) for address in own))
            made.append(space)
        yield made[0], made[1]


def _delete(space: Namespace, ledger: Ledger) -> None:
    netns.delete(space.name, ledger)
    space.close()
    assert not netns.exists(space.name)


def failing_iptables(space: Namespace, family: Family, variant: Variant, directory: Path) -> FailingIPTables:
    """The driver of one family's iptables, with a lock of its own."""
    return FailingIPTables(space, variant, version=family.version, lock_file=directory / "xtables.lock")
