"""The nftables mode at work: commits the transactions of `book` to one node's kernel.

Called by the family loop. Decides nothing about Services; renders nothing itself. All work runs in a thread, one
piece at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Final

from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.nft.driver import TableDriver
from netkit.kernel.nft.objects import Contents
from netkit.kernel.nft.replay import Replay
from netkit.proxy.addresses import Address, Family, networks_of
from netkit.proxy.backend import NodeFacts, SyncReport
from netkit.proxy.choice import NodeView
from netkit.proxy.collection import collection_held
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.listing import Listing, Section, listing
from netkit.proxy.nftables import names
from netkit.proxy.nftables.book import RuleBook
from netkit.proxy.nftables.compact import CompactLayout
from netkit.proxy.nftables.kube_proxy import KubeProxyLayout
from netkit.proxy.nftables.layout import Layout, NftablesSettings
from netkit.proxy.nftables.listing import path, sections
from netkit.proxy.node_kernel import NodeKernel
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import NftablesLayout, ProxySettings
from netkit.proxy.state import Changes, ProxyState

log = logging.getLogger(__name__)

SKIP_VERSION_CHECK: Final = "KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK"
_OLDEST_KERNEL: Final = (5, 13)
_PRIMARY: Final = "primary"
_BULK_CHANGES: Final = 200
"""From how many changed service ports on nobody listens to the kernel's notifications of our own changes."""
_RENDERED_AHEAD: Final = 64
"""How many transactions of a load wait for the kernel at most."""


def check_kernel(release: str = os.uname().release) -> None:
    """Raise Unsupported for kernels whose users may have an nft program that our rules would confuse.

    As kube-proxy: 5.13 is taken for the oldest that comes with nft 1.0.1. A variable of the environment overrides.
    """
    if os.environ.get(SKIP_VERSION_CHECK):
        return
    found = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if found < _OLDEST_KERNEL:
        raise Unsupported(
            "nftables mode",
            stderr=f"Linux {release} is older than 5.13",
            hint=f"take mode iptables, or set {SKIP_VERSION_CHECK}=1",
        )


class NftablesBackend:
    """The table of one family. `table` and `kernel` are bound to the node's namespace."""

    def __init__(
        self,
        node_name: str,
        family: Family,
        settings: ProxySettings,
        table: TableDriver,
        kernel: NodeKernel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.family = family
        self._node_name = node_name
        self._settings = settings
        self._table = table
        self._kernel = kernel
        self._clock = clock
        self._facts = NodeFacts(addresses=settings.node_addresses(()))
        self._book: RuleBook | None = None
        self._busy = threading.Lock()

    def configure(self, facts: NodeFacts) -> bool:
        """See `Backend`. Of the Node matters only what the settings do not already say."""
        by_node = self._settings.detect_local_mode is DetectLocalMode.NODE_CIDR
        relevant = NodeFacts(
            facts.zone,
            self._settings.node_addresses([str(address) for address in facts.addresses]),
            facts.pod_cidrs if by_node else (),
            facts.service_cidrs,
        )
        if relevant == self._facts:
            return False
        self._facts = relevant
        return True

    async def sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        """See `Backend`."""
        return await asyncio.to_thread(self._sync, state, changes)

    def _sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        with self._busy:
            book, self._book = self._book, None
            if book is not None:
                self._delete_expired(book)
            if changes is None or book is None:
                book = RuleBook(self._layout(), self._clock)
                report = self._full(book, state)
            else:
                report = self._partial(book, state, changes)
            outgrown = book.tidied(self._table.handles)
            if outgrown:
                self._table.commit(outgrown)
            # Only a book whose transactions have all been committed says what stands.
            self._book = book
            return report

    def _full(self, book: RuleBook, state: ProxyState) -> SyncReport:
        with collection_held():
            report = self._written_in_full(book, state)
        self._table.watch()
        return report

    def _written_in_full(self, book: RuleBook, state: ProxyState) -> SyncReport:
        contents = self._table.read()
        if contents is None:
            with self._table.quiet() as witness:
                self._load(book.full(state, None))
            wrote, written = True, book.written
            if witness.others:
                self._commit(book.full(state, self._table.read()))
                written += book.written
        else:
            wrote = self._commit(book.full(state, contents))
            written = book.written
        return _report(book, wrote=wrote, rules=written, full=True)

    def _partial(self, book: RuleBook, state: ProxyState, changes: Changes) -> SyncReport:
        if len(changes.updated) + len(changes.removed) <= _BULK_CHANGES:
            wrote = self._commit(book.partial(state, changes))
            return _report(book, wrote=wrote, rules=book.written, full=False)
        with self._table.quiet() as witness:
            wrote = self._load(book.partial(state, changes))
        if witness.others:
            return self._full(book, state)
        return _report(book, wrote=wrote, rules=book.written, full=False)

    def _commit(self, transactions: Iterable[list[bytes]]) -> bool:
        """Commit one after the other; whether there were any."""
        wrote = False
        for transaction in transactions:
            self._table.commit(transaction)
            wrote = True
        return wrote

    def _load(self, transactions: Iterable[list[bytes]]) -> bool:
        """The same for many: while the kernel works at one, the next ones are rendered."""
        waiting: deque[Future[None]] = deque()
        wrote = False
        with ThreadPoolExecutor(1, f"{self._node_name} nft") as pool:
            last: Future[None] | None = None
            for transaction in transactions:
                if len(waiting) >= _RENDERED_AHEAD:
                    waiting.popleft().result()
                last = pool.submit(self._commit_after, last, transaction)
                waiting.append(last)
                wrote = True
            for commit in waiting:
                commit.result()
        return wrote

    def _commit_after(self, previous: Future[None] | None, transaction: list[bytes]) -> None:
        """Commit unless the one before, which is over by now, has failed; then fail like it."""
        if previous is not None:
            previous.result()
        self._table.commit(transaction)

    def _delete_expired(self, book: RuleBook) -> None:
        """Delete the chains that were emptied a while ago. It may fail; then they are tried again later."""
        expired = book.expired()
        if not expired:
            return
        writer = book.layout.writer
        try:
            self._table.commit([writer.delete_chain(chain) for chain in expired])
        except KernelError as error:
            log.warning("%s: stale chains are kept for now: %s", self._node_name, error)
            return
        for chain in expired:
            del book.stale[chain]

    async def intact(self) -> bool:
        """See `Backend`: the chains that do not depend on Services are all there.

        The kernel tells of changes at once (`disturbed`); this is for those it could not tell of. Chains that have
        been stale for long enough are deleted by the way.
        """
        return await asyncio.to_thread(self._intact)

    def _intact(self) -> bool:
        with self._busy:
            book = self._book
            if book is None:
                return True
            self._delete_expired(book)
            return self._table.has(chain.name for chain, _ in book.layout.frame().chains)

    async def disturbed(self) -> str:
        """See `Backend`: the kernel notifies of every change, and by whom it was made."""
        return await self._table.disturbance()

    async def cleanup(self) -> None:
        """See `Backend`. Safe to repeat, and where nothing of ours is."""
        await asyncio.to_thread(self._cleanup)

    def _cleanup(self) -> None:
        with self._busy:
            self._book = None
            if self._table.has(()):
                self._table.commit([self._layout().writer.delete_table()])

    def release(self) -> None:
        """See `Backend`. The driver's sockets close with it."""

    async def wanted(self, state: ProxyState) -> Listing:
        """See `Backend`. Emptied chains that wait for their deletion are part of it."""
        return await asyncio.to_thread(self._wanted, state)

    def _wanted(self, state: ProxyState) -> Listing:
        layout = self._layout()
        contents = _replayed(RuleBook(layout).full(state, None))
        found = dict(listing(sections(contents, layout.writer.family)))
        book = self._book
        for chain in book.stale if book is not None else ():
            found.setdefault(f"chain {chain}", Section(f"chain {chain}", ()))
        return found

    async def standing(self) -> Listing:
        """See `Backend`."""
        return await asyncio.to_thread(self._standing)

    def _standing(self) -> Listing:
        with self._busy:
            contents = self._table.read(all_elements=True)
        return listing(sections(contents, self._table.family)) if contents is not None else {}

    async def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """See `Backend`: from the first hook to the last, each chain followed by the sets and chains it leads to."""
        return await asyncio.to_thread(self._serving, state, name)

    def _serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        if state.port(name) is None:
            return ()
        layout = self._layout()
        contents = _replayed(RuleBook(layout).alone(state, name))
        return tuple(path(contents, layout.writer.family))

    def _layout(self) -> Layout:
        """The layout for the settings, the Node and the kernel as they are now."""
        settings = NftablesSettings(
            node=NodeView(self._node_name, self._facts.zone, self._facts.addresses),
            detector=self._settings.detector(self.family, self._facts.pod_cidrs),
            masquerade_all=self._settings.masquerade_all,
            masquerade_bit=self._settings.masquerade_bit,
            node_port_ips=self._node_port_ips(),
            service_ranges=networks_of(self.family, self._facts.service_cidrs),
        )
        return _layout(self._settings.nftables_layout, self.family, settings)

    def _node_port_ips(self) -> tuple[Address, ...] | None:
        """Where node ports answer: on the node's primary address, if nothing else is configured."""
        configured = self._settings.node_port_addresses
        if not configured or configured == (_PRIMARY,):
            version = self.family.version
            return tuple(address for address in self._facts.addresses if address.version == version)
        chosen = self._settings.node_port_ranges(self.family)
        if not chosen:
            return None
        found = {
            address
            for address in self._kernel.addresses()
            if not address.is_loopback and any(address in network for network in chosen)
        }
        return tuple(sorted(found, key=str))


@lru_cache(maxsize=128)
def _layout(kind: NftablesLayout, family: Family, settings: NftablesSettings) -> Layout:
    """A layout keeps what it has rendered of its frame. There are as few as Nodes' addresses and zones change."""
    if kind is NftablesLayout.COMPACT:
        return CompactLayout(family, settings)
    return KubeProxyLayout(family, settings)


def _replayed(transactions: Iterable[list[bytes]]) -> Contents:
    """What the transactions would make of an empty kernel."""
    replay = Replay()
    for transaction in transactions:
        replay.apply(transaction)
    assert replay.contents is not None
    return replay.contents


def _report(book: RuleBook, *, wrote: bool, rules: int, full: bool) -> SyncReport:
    return SyncReport(wrote, full, {names.TABLE: rules}, {names.TABLE: book.rules})
