"""The iptables mode at work: loads the documents of `book` into one node's kernel.

Called by the family loop. Decides nothing about Services; renders nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
import time

from netkit.kernel.iptables import IPTables
from netkit.proxy.addresses import Address, Family
from netkit.proxy.backend import NodeFacts, SyncReport
from netkit.proxy.choice import NodeView
from netkit.proxy.collection import collection_held
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.iptables.book import RuleBook
from netkit.proxy.iptables.chains import CANARY, CANARY_TABLES
from netkit.proxy.iptables.cleanup import cleanup_document
from netkit.proxy.iptables.inspection import listing_of
from netkit.proxy.iptables.rules import COUNTERS, IPTablesSettings
from netkit.proxy.iptables.standing import Standing, read_standing
from netkit.proxy.leftover_rules import NOTHING, Kept
from netkit.proxy.listing import Listing, Section
from netkit.proxy.node_kernel import ROUTE_LOCALNET, NamespaceKernel, NodeKernel
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import Changes, ProxyState

log = logging.getLogger(__name__)

_READING_SHARE = 100
"""All rules are read back at most once in this many times the time it takes."""


class IPTablesBackend:
    """iptables rules of one family. `iptables` is bound to the node's namespace."""

    def __init__(
        self, node_name: str, settings: ProxySettings, iptables: IPTables, kernel: NodeKernel | None = None
    ) -> None:
        self.family = Family.IPV6 if iptables.version == 6 else Family.IPV4
        self._node_name = node_name
        self._settings = settings
        self._iptables = iptables
        self._kernel = kernel or NamespaceKernel(iptables.ns)
        self._facts = NodeFacts(addresses=settings.node_addresses(()))
        self._book: RuleBook | None = None
        self._writes = 0
        self._next_reading = 0.0

    def configure(self, facts: NodeFacts) -> bool:
        """See `Backend`. Of the Node matters only what the settings do not already say."""
        by_node = self._settings.detect_local_mode is DetectLocalMode.NODE_CIDR
        relevant = NodeFacts(
            facts.zone,
            self._settings.node_addresses([str(address) for address in facts.addresses]),
            facts.pod_cidrs if by_node else (),
        )
        if relevant == self._facts:
            return False
        self._facts = relevant
        return True

    async def sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        """See `Backend`: one run of iptables-restore, or none if no rule differs."""
        book = self._book
        self._writes += 1
        if changes is None or book is None or book.outgrown(state) or await self._renumbered(book):
            book = await self._book_for_now()
            standing = await asyncio.to_thread(read_standing, await self._iptables.save())
            with collection_held():
                document = book.full(state, standing)
            self._book = book
            full = True
        else:
            document = book.partial(state, changes)
            full = False
        if document is not None:
            await self._iptables.restore(document.text, counters=True)
        # Only now: KUBE-FIREWALL, which guards against abuse of it, has to be there first.
        if (
            full
            and book.settings.localhost_node_ports
            and await asyncio.to_thread(self._kernel.route_localnet)
        ):
            log.info("%s: %s=1, for NodePorts on loopback addresses", self._node_name, ROUTE_LOCALNET)
        written = {} if document is None else document.rules
        return SyncReport(document is not None, full, written, book.rule_totals)

    async def intact(self) -> bool:
        """See `Backend`: an empty chain per table is the canary; who flushes rules away takes it along.

        Single rules that somebody changed are found as well, as often as reading them all back takes a hundredth
        of the time at most.
        """
        for table in CANARY_TABLES:
            if not await self._iptables.chain_exists(table, CANARY):
                return False
        started = time.monotonic()
        book, writes = self._book, self._writes
        if book is None or started < self._next_reading:
            return True
        standing = await asyncio.to_thread(read_standing, await self._iptables.save())
        now = time.monotonic()
        self._next_reading = now + _READING_SHARE * (now - started)
        # A write in the meantime makes what was read old.
        return writes != self._writes or book.intact(standing)

    async def cleanup(self, keep: Kept = NOTHING) -> None:
        """See `Backend`. Safe to repeat, and where nothing of ours is. What is in `keep` stays."""
        self._book = None
        self._writes += 1
        document = cleanup_document(await self._iptables.save(), keep)
        if document:
            await self._iptables.restore(document)

    def release(self) -> None:
        """See `Backend`. Nothing is held."""

    async def disturbed(self) -> str:
        """See `Backend`. The kernel tells nobody of changed iptables rules; the canary is all there is."""
        await asyncio.Event().wait()
        raise AssertionError

    async def wanted(self, state: ProxyState) -> Listing:
        """See `Backend`."""
        document = (await asyncio.to_thread(self._new_book)).full(state, Standing())
        assert document is not None, "there is always something to write where nothing stands"
        return await asyncio.to_thread(listing_of, document.text, self.family)

    async def standing(self) -> Listing:
        """See `Backend`."""
        return await asyncio.to_thread(listing_of, await self._iptables.save(), self.family)

    async def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """See `Backend`. Chains that a translated packet meets last are in it, empty ones are not."""
        return (await asyncio.to_thread(self._new_book)).serving(state, name)

    async def _book_for_now(self) -> RuleBook:
        """A book for the settings, the Node and the kernel as they are now; the old one if they are the same."""
        new, old = await asyncio.to_thread(self._new_book), self._book
        return old if old is not None and old.same_as(new) else new

    async def _renumbered(self, book: RuleBook) -> bool:
        """Whether the node has other addresses for NodePorts than `book` knows; those are not all addresses then."""
        if not self._settings.node_port_ranges(self.family):
            return False
        return not book.same_as(await asyncio.to_thread(self._new_book))

    def _new_book(self) -> RuleBook:
        """An empty book for the settings, the Node and the kernel as they are now. Blocks."""
        settings, node_port_ips = self._read_kernel()
        node = NodeView(self._node_name, self._facts.zone, self._facts.addresses)
        return RuleBook(self.family, settings, node, node_port_ips)

    def _read_kernel(self) -> tuple[IPTablesSettings, tuple[Address, ...] | None]:
        """The settings as far as they depend on kernel and program, and where NodePorts answer. Blocks."""
        settings = IPTablesSettings(
            detector=self._settings.detector(self.family, self._facts.pod_cidrs),
            masquerade_all=self._settings.masquerade_all,
            masquerade_bit=self._settings.masquerade_bit,
            localhost_node_ports=self._settings.loopback_node_ports(self.family),
            random_fully=self._iptables.random_fully,
            tcp_be_liberal=self._kernel.tcp_be_liberal(),
            counters=self._kernel.packet_counters(COUNTERS),
        )
        ranges = self._settings.node_port_ranges(self.family)
        if not ranges:
            return settings, None
        found = self._kernel.addresses()
        chosen = {address for address in found if any(address in network for network in ranges)}
        return settings, tuple(sorted(chosen, key=str))
