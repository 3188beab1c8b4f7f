"""The IPVS mode at work: brings virtual servers, sets, rules and kube-ipvs0 of one node to what `book` wants.

Called by the family loop. Decides nothing about Services; `writer` knows how each kind of thing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from netkit.kernel.address_events import AddressEvent
from netkit.kernel.errors import KernelError
from netkit.kernel.ipvs_values import ServerKey, Target, Timeouts
from netkit.kernel.route_listener import EventsLost
from netkit.proxy.addresses import Address, Family, networks_of
from netkit.proxy.backend import NodeFacts, SyncReport
from netkit.proxy.choice import NodeView
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.ipvs.book import Book, Delta, Standing
from netkit.proxy.ipvs.chains import ChainSettings
from netkit.proxy.ipvs.documents import cleanup_document, restore_document
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.leaving import LOOK_SECONDS
from netkit.proxy.ipvs.node import node_addresses
from netkit.proxy.ipvs.plan import NodeNetwork
from netkit.proxy.ipvs.sections import port_sections, standing_listing, wanted_listing
from netkit.proxy.ipvs.sets import DEVICE
from netkit.proxy.ipvs.writer import Writer
from netkit.proxy.leftover_rules import NOTHING, Kept
from netkit.proxy.listing import Listing, Section
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import Changes, ProxyState

log = logging.getLogger(__name__)

_PRIMARY: Final = "primary"


class IPVSBackend:
    """Virtual servers of one family. `drivers` are bound to the node's namespace.

    Every `look_seconds` real servers that leave are looked at.
    """

    def __init__(
        self,
        node_name: str,
        settings: ProxySettings,
        drivers: Drivers,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.family = Family.IPV6 if drivers.iptables.version == 6 else Family.IPV4
        self._node_name = node_name
        self._settings = settings
        self._drivers = drivers
        self._look_seconds = look_seconds
        excluded = networks_of(self.family, settings.ipvs.exclude_cidrs)
        self._writer = Writer(drivers, self.family, excluded, look_seconds)
        self._facts = NodeFacts(addresses=settings.node_addresses(()))
        self._book: Book | None = None
        # Syncs, the look at leaving servers and whoever reads take turns.
        self._turn = asyncio.Lock()

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
        """See `Backend`: netlink for all but the rules, for which iptables-restore runs once, if they differ."""
        async with self._turn:
            book = self._book
            if changes is None or book is None:
                return await self._full(state)
            delta = book.partial(state, changes.updated | changes.removed)
            await self._write(delta)
            return _report(book, delta, wrote=bool(delta), full=False)

    async def intact(self) -> bool:
        """See `Backend`: nothing is missing, nothing is changed, and the node has the addresses it had.

        Of the real servers of very many virtual servers only some are looked at each time, in turn.
        """
        async with self._turn:
            book = self._book
            if book is None:
                return True
            saved = await self._drivers.iptables.save()
            network = await asyncio.to_thread(self._read_network)
            if network != book.network:
                log.info("%s: the node's addresses are %s now", self._node_name, _texts(network.local))
                return False
            return await asyncio.to_thread(self._writer.as_wanted, book, saved)

    async def disturbed(self) -> str:
        """See `Backend`. The kernel tells of addresses and devices only.

        As the one thing of a back end that runs all the time, it also looks after real servers that leave.
        """
        while True:
            delay = self._writer.next_look()
            try:
                async with asyncio.timeout(self._look_seconds if delay is None else delay):
                    events = await self._drivers.events.next()
            except TimeoutError:
                await self._look_at_leaving()
                continue
            except EventsLost:
                return "more addresses changed than could be followed"
            events = [event for event in events if event.device != DEVICE or await self._lacks_device()]
            if harm := self._harm(events):
                return harm

    async def _lacks_device(self) -> bool:
        """The device was also made and removed before the first sync, to see whether the kernel can."""
        return DEVICE not in await asyncio.to_thread(self._drivers.node.addresses)

    async def cleanup(self, keep: Kept = NOTHING) -> None:
        """See `Backend`. Virtual servers outside `excludeCIDRs` go, whoever made them, as in kube-proxy. What is in
        `keep` stays.

        kube-ipvs0 goes with its last address, because the other family's are there too. Raises an ExceptionGroup
        of KernelErrors after doing all it can.
        """
        async with self._turn:
            self._book = None
            failed: list[KernelError] = []
            saved = ""
            try:
                saved = await self._drivers.iptables.save()
                if document := cleanup_document(saved, keep):
                    await self._drivers.iptables.restore(document)
            except KernelError as error:
                failed.append(error)
            failed += await asyncio.to_thread(self._writer.remove_all)
            if failed:
                raise ExceptionGroup("not everything of the IPVS mode could be removed", failed)

    async def wanted(self, state: ProxyState) -> Listing:
        """See `Backend`. Real servers that have weight 0 because they leave are wanted as such."""
        async with self._turn:
            book = await self._fresh_book(state)
            return wanted_listing(book, await asyncio.to_thread(self._leaving, book))

    async def standing(self) -> Listing:
        """See `Backend`."""
        async with self._turn:
            return standing_listing(self.family, await self._read_standing())

    async def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """See `Backend`."""
        async with self._turn:
            book = await self._fresh_book(state)
            plan = book.plan(name)
            keys = [one.server.key for one in plan.servers]
            leaving = await asyncio.to_thread(self._writer.leaving_of, book, keys)
            return tuple(port_sections(book, plan, leaving))

    def release(self) -> None:
        """See `Backend`."""
        self._drivers.close()

    async def _full(self, state: ProxyState) -> SyncReport:
        changed = await asyncio.to_thread(self._writer.prepare, self._kernel_options())
        if changed:
            log.info("%s: set %s", self._node_name, ", ".join(changed))
        book = await self._book_for_now()
        book.learn(state)
        self._book = book
        standing = await self._read_standing()
        delta = book.against(standing)
        await self._write(delta, whole=True)
        gone = await asyncio.to_thread(self._writer.adopt_leaving, book, standing)
        return _report(book, delta, wrote=bool(delta or gone), full=True)

    async def _write(self, delta: Delta, *, whole: bool = False) -> None:
        """New things from the inside out, so that no packet comes before there is an answer to it; then old ones
        are taken away the other way round.

        When the `whole` is written, another mode's rules may lead the packets until our nat table stands, and from that
        moment on the addresses must be there: they come between the tables.
        """
        if not delta:
            return
        await asyncio.to_thread(self._writer.build, delta)
        if whole and delta.bound:
            if document := restore_document(delta.rules_in("filter")):
                await self._drivers.iptables.restore(document, counters=True)
            await asyncio.to_thread(self._writer.bind, delta)
            delta = replace(delta.rules_in("nat"), bound=())
        if document := restore_document(delta):
            await self._drivers.iptables.restore(document, counters=True)
        await asyncio.to_thread(self._writer.finish, delta)

    async def _read_standing(self) -> Standing:
        saved = await self._drivers.iptables.save()
        return await asyncio.to_thread(self._writer.read, saved)

    async def _book_for_now(self) -> Book:
        """A book for the settings, the Node and its addresses as they are now; the old one if they are the same."""
        fresh = await self._empty_book()
        book = self._book
        return book if book is not None and book.basis == fresh.basis else fresh

    async def _fresh_book(self, state: ProxyState) -> Book:
        book = await self._empty_book()
        book.learn(state)
        return book

    async def _empty_book(self) -> Book:
        network = await asyncio.to_thread(self._read_network)
        settings = ChainSettings(
            detector=self._settings.detector(self.family, self._facts.pod_cidrs),
            masquerade_all=self._settings.masquerade_all,
            masquerade_bit=self._settings.masquerade_bit,
            random_fully=await asyncio.to_thread(lambda: self._drivers.iptables.random_fully),
        )
        node = NodeView(self._node_name, self._facts.zone, self._facts.addresses)
        return Book(self.family, settings, self._settings.ipvs.scheduler, node, network)

    def _read_network(self) -> NodeNetwork:
        """The node's addresses and those of them on which NodePorts answer. Blocks."""
        local = node_addresses(self._drivers.node.addresses(), self.family.version)
        return NodeNetwork(local, tuple(sorted(self._node_port_ips(local), key=str)))

    def _node_port_ips(self, local: frozenset[Address]) -> Iterable[Address]:
        """Those of the node's addresses on which NodePorts answer; all of them if nothing is configured."""
        if self._settings.node_port_addresses == (_PRIMARY,):
            return local & set(self._facts.addresses)
        ranges = self._settings.node_port_ranges(self.family)
        return (address for address in local if not ranges or any(address in network for network in ranges))

    def _kernel_options(self) -> tuple[bool, Timeouts]:
        options = self._settings.ipvs
        timeouts = Timeouts(int(options.tcp_timeout), int(options.tcp_fin_timeout), int(options.udp_timeout))
        return options.strict_arp, timeouts

    def _leaving(self, book: Book) -> Mapping[ServerKey, Collection[Target]]:
        return self._writer.leaving_of(book, list(book.servers))

    def _harm(self, events: Sequence[AddressEvent]) -> str:
        """What of these events is not our own doing and matters; "" if nothing."""
        book = self._book
        if book is None:
            return ""
        for event in events:
            if event.device == DEVICE:
                return f"{DEVICE} was removed"
            address = event.address
            if address is None or address.version != self.family.version:
                continue
            if event.there and address not in book.bound and address not in book.network.local:
                if not (address.is_loopback or address.is_link_local):
                    return f"the node got the address {address}"
            elif not event.there and address in book.network.local:
                return f"the node lost the address {address}"
            elif not event.there and address in book.bound:
                return f"{address} was taken off {DEVICE}"
        return ""

    async def _look_at_leaving(self) -> None:
        async with self._turn:
            try:
                gone = await asyncio.to_thread(self._writer.look_at_leaving)
            except KernelError as error:
                log.warning("%s: leaving real servers: %s", self._node_name, error)
                return
        for key, target in gone:
            log.info("%s: %s has left %s: its last connection has ended", self._node_name, target, key)


def _report(book: Book, delta: Delta, *, wrote: bool, full: bool) -> SyncReport:
    """Rules are those of iptables; virtual servers and sets are no rules."""
    written: dict[str, int] = {}
    total: dict[str, int] = {}
    for place, rules in book.chains.items():
        total[place[0]] = total.get(place[0], 0) + len(rules)
    for place, rules in delta.chains.items():
        written[place[0]] = written.get(place[0], 0) + len(rules)
    return SyncReport(wrote, full, written, total)


def _texts(addresses: Collection[Address]) -> str:
    return ", ".join(sorted(map(str, addresses)))
