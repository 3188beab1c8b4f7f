"""The userspace mode at work: proxies in this process, and the rules of one node's kernel that lead to them.

Called by the family loop. Chooses no endpoint and renders nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping

from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.proxy.addresses import Address, Family, parse_address
from netkit.proxy.backend import NodeFacts, SyncReport
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.listing import Listing, Section
from netkit.proxy.node_kernel import NamespaceKernel, NodeKernel
from netkit.proxy.services import Protocol, ServicePort, ServicePortName
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import Changes, ProxyState
from netkit.proxy.userspace.book import (
    Document,
    Placed,
    RuleBook,
    Standing,
    listing_of,
    placed,
    read_standing,
    removal,
    standing_proxy_ports,
)
from netkit.proxy.userspace.proxies import Proxies, proxies_at
from netkit.proxy.userspace.rules import PortRules, render_port

log = logging.getLogger(__name__)

_AT_ONCE = 100
"""Proxies started before the loop may do something else."""

_LOOPBACK = {Family.IPV4: parse_address("127.0.0.1"), Family.IPV6: parse_address("::1")}


class UserspaceBackend:
    """Proxies and rules of one family. `iptables` is bound to the node's namespace.

    With a `node_address` of the family in `settings`, which is what bindAddress says, the proxies listen there only.
    """

    def __init__(
        self,
        node_name: str,
        settings: ProxySettings,
        iptables: IPTables,
        kernel: NodeKernel | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self.family = Family.IPV6 if iptables.version == 6 else Family.IPV4
        self._node_name = node_name
        self._settings = settings
        self._iptables = iptables
        self._kernel = kernel or NamespaceKernel(iptables.ns)
        self._given_proxies = proxies
        self._addresses = settings.node_addresses(())
        self._bound = next(self._of_family(self._addresses), None)
        self._host: Address | None = None
        self._book: RuleBook | None = None
        self._skipped: set[ServicePortName] = set()

    @property
    def _proxies(self) -> Proxies:
        """Those of the namespace, which an earlier back end of this process may have left at work."""
        return self._given_proxies or proxies_at(self._iptables.ns, self.family)

    def configure(self, facts: NodeFacts) -> bool:
        """See `Backend`. Only the node's own address matters: what the node itself sends is directed there."""
        addresses = self._settings.node_addresses([str(address) for address in facts.addresses])
        if addresses == self._addresses:
            return False
        self._addresses = addresses
        return True

    async def sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        """See `Backend`: proxies first, then one run of iptables-restore, or none if no rule differs.

        A changed endpoint is known to its proxy and to nobody else.
        """
        if changes is None or self._book is None:
            return await self._sync_all(state)
        ports = [port for name in changes.updated if (port := state.port(name)) and self._handled(port)]
        self._proxies.hold(ports, changes.removed)
        await self._open(state, ports, {})
        known = self._placed_now(ports, await self._host_address())
        document = self._book.change({**known, **dict.fromkeys(changes.removed)})
        report = await self._load(self._book, document)
        self._proxies.close(changes.removed)
        self._skipped -= changes.removed
        return report

    async def intact(self) -> bool:
        """See `Backend`: every rule is looked at, as every sync of Kubernetes' own proxy did."""
        return self._book is None or self._book.full(await self._read()) is None

    async def disturbed(self) -> str:
        """See `Backend`. The kernel tells nobody of changed iptables rules."""
        await asyncio.Event().wait()
        raise AssertionError

    async def cleanup(self) -> None:
        """See `Backend`. TCP connections that are open go on for as long as this process lives."""
        self._book = None
        await remove(self._iptables, self._proxies)

    def release(self) -> None:
        """See `Backend`. Nobody is accepted any more, and NodePorts are given back."""
        self._proxies.close_others(())

    async def stop(self) -> None:
        """End all proxies and connections. The rules stay, and lead nowhere until a proxy is back."""
        await self._proxies.stop()

    async def wanted(self, state: ProxyState) -> Listing:
        """See `Backend`. A service port that is not proxied yet has the proxy port that stands, or 0: any."""
        return (await self._wanted_book(state)).listing()

    async def standing(self) -> Listing:
        """See `Backend`."""
        return listing_of(await self._read())

    async def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """See `Backend`. Behind the rules comes the proxy, with its endpoints in the order of their turns."""
        port = state.port(name)
        if port is None or not self._handled(port):
            return ()
        endpoints = self._proxies.endpoints_of(name) or _ready(state, name)
        sessions = f", clients keep theirs for {port.affinity_seconds} s" if port.affinity_seconds else ""
        proxy = Section(
            f"proxy of {name.text}/{name.protocol}",
            tuple(endpoint.target for endpoint in endpoints),
            note=f"round robin{sessions}",
        )
        return (*(await self._wanted_book(state)).sections_of(name), proxy)

    async def _sync_all(self, state: ProxyState) -> SyncReport:
        standing = await self._read()
        ports = [port for port in state.ports() if self._handled(port)]
        names = {port.name for port in ports}
        self._proxies.hold(ports, ())
        await self._open(state, ports, standing_proxy_ports(standing))
        book = RuleBook.of(self._placed_now(ports, await self._host_address(afresh=True)))
        self._book = None
        report = await self._load(book, book.full(standing))
        self._book = book
        self._proxies.close_others(names)
        return report

    async def _load(self, book: RuleBook, document: Document | None) -> SyncReport:
        if document is None:
            return SyncReport(wrote=False, full=False, rules_total=book.rule_totals)
        await self._iptables.restore(document.text)
        return SyncReport(True, document.full, document.rules, book.rule_totals)

    async def _open(
        self, state: ProxyState, ports: Iterable[ServicePort], former: Mapping[tuple[str, Protocol], int]
    ) -> None:
        """Proxy all of `ports`; raises the first error when all have been tried."""
        failed: list[KernelError] = []
        for count, port in enumerate(ports):
            if count % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            wanted = former.get((port.name.text, port.protocol), 0)
            try:
                self._proxies.open(port, _ready(state, port.name), wanted, self._bound)
            except KernelError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _placed_now(self, ports: Iterable[ServicePort], host: Address) -> dict[ServicePortName, Placed]:
        """The rules of proxied service ports."""
        return {
            port.name: placed(
                port,
                self._render(port, self._proxies.port_of(port.name), host),
            )
            for port in ports
        }

    def _render(self, port: ServicePort, proxy_port: int, host: Address) -> PortRules:
        held = self._proxies.node_port_held(port.name)
        return render_port(port, proxy_port, host, bound=self._bound is not None, node_port=held)

    async def _wanted_book(self, state: ProxyState) -> RuleBook:
        former = standing_proxy_ports(await self._read())
        host = await self._host_address()
        found: dict[ServicePortName, Placed] = {}
        for port in state.ports():
            name = port.name
            if self._handled(port):
                number = self._proxies.port_of(name) or former.get((name.text, name.protocol), 0)
                found[name] = placed(port, self._render(port, number, host))
        return RuleBook.of(found)

    async def _read(self) -> Standing:
        return await asyncio.to_thread(read_standing, await self._iptables.save())

    async def _host_address(self, *, afresh: bool = False) -> Address:
        """The node's address of this family; if it has said none, the first it has that is no loopback address."""
        for address in self._of_family(self._addresses):
            return address
        if self._host is None or afresh:
            found = self._of_family(await asyncio.to_thread(self._kernel.addresses))
            usable = (item for item in found if not (item.is_loopback or item.is_link_local))
            self._host = next(usable, _LOOPBACK[self.family])
        return self._host

    def _of_family(self, addresses: Iterable[Address]) -> Iterator[Address]:
        return (address for address in addresses if address.version == self.family.version)

    def _handled(self, port: ServicePort) -> bool:
        """Whether this mode can proxy the port: it never could SCTP. Says so once."""
        if port.protocol is not Protocol.SCTP:
            return True
        if port.name not in self._skipped:
            self._skipped.add(port.name)
            log.warning("%s: SCTP is not proxied in userspace mode; the port is left out", port.name)
        return False


async def remove(iptables: IPTables, proxies: Proxies) -> bool:
    """Remove all rules of this mode, and then end its proxies, as far as this process has them.

    TCP connections that are open go on. True if there were rules.
    """
    document = removal(await iptables.save())
    if document:
        await iptables.restore(document)
    proxies.close_others(())
    return bool(document)


def _ready(state: ProxyState, name: ServicePortName) -> tuple[Endpoint, ...]:
    """The endpoints this mode knows: those of the Endpoints object, which never had others than ready ones."""
    return tuple(endpoint for endpoint in state.endpoints(name) if endpoint.ready)
