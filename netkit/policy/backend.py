"""Commits what the policies ask for to one node's kernel, one transaction per change and family.

Rendering a thousand policies takes half a second: it is done in a thread, as all that the kernel is asked for. The
caller lets the selection be until a sync has ended.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass

from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.netns import Namespace
from netkit.kernel.nft import wire
from netkit.kernel.nft.driver import NftTable, TableDriver
from netkit.kernel.nft.objects import Contents, TableWriter
from netkit.policy.render import TABLE
from netkit.policy.selection import Changes, Selection
from netkit.policy.table import Table

FAMILIES = (wire.NFPROTO_IPV4, wire.NFPROTO_IPV6)


@dataclass(frozen=True, slots=True)
class Written:
    """What a sync did: messages sent, and how many rules stand now."""

    messages: int
    rules: int


def node_tables(ns: Namespace) -> list[TableDriver]:
    """The tables of a node, of both families."""
    return [NftTable(ns, family, TABLE) for family in FAMILIES]


def standing_tables(ns: Namespace) -> list[Contents]:
    """What stands in a node's kernel; nothing where nf_tables is missing. Blocks."""
    try:
        return [contents for driver in node_tables(ns) if (contents := driver.read()) is not None]
    except KernelError as error:
        if _without_nf_tables(error):
            return []
        raise


class PolicyBackend:
    """The tables of one node."""

    def __init__(self, drivers: Sequence[TableDriver]) -> None:
        self._drivers = drivers
        self._tables: dict[int, Table] = {}

    async def sync(self, selection: Selection, changes: Changes | None) -> Written:
        """Write what changed, or with None whatever differs. Raises KernelError; what failed is made good next time.

        Raises Unsupported when the kernel has no nf_tables.
        """
        sent = rules = 0
        for driver in self._drivers:
            known = self._tables.pop(driver.family, None)
            table, messages = await asyncio.to_thread(_write, driver, known, selection, changes)
            sent += messages
            rules += table.rules
            # Only a table whose transaction has been committed says what stands.
            self._tables[driver.family] = table
        return Written(sent, rules)

    async def disturbed(self) -> str:
        """Wait until somebody else has changed our rules; who did what."""
        waiting = [asyncio.ensure_future(driver.disturbance()) for driver in self._drivers]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def cleanup(self) -> None:
        """Remove everything. Safe to repeat, and where nothing is."""
        self._tables.clear()
        for driver in self._drivers:
            if await asyncio.to_thread(driver.has, ()):
                await asyncio.to_thread(driver.commit, [TableWriter(driver.family, TABLE).delete_table()])


def _write(
    driver: TableDriver, table: Table | None, selection: Selection, changes: Changes | None
) -> tuple[Table, int]:
    """Bring one family's table up to date; the table as it stands now, and how many messages that took."""
    if table is None or changes is None:
        table = Table(driver.family, _read(driver))
        messages = table.full(selection)
    else:
        messages = table.partial(selection, changes)
    for transaction in (messages, table.later):
        if transaction:
            driver.commit(transaction)
    return table, len(messages) + len(table.later)


def _read(driver: TableDriver) -> Contents | None:
    try:
        driver.watch()
        return driver.read()
    except KernelError as error:
        if _without_nf_tables(error):
            raise Unsupported(
                "NetworkPolicy", error.namespace, error.errno, str(error), "modprobe nf_tables"
            ) from error
        raise


def _without_nf_tables(error: KernelError) -> bool:
    """Without the subsystem netlink refuses the question itself."""
    return error.is_unsupported or error.errno == errno.EINVAL
