"""The kernel side of the IPVS mode: reads what stands, writes what a `Delta` says, lets real servers leave.

Called by `backend`, in a thread: everything here blocks, and raises KernelError. Rules are the backend's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from netkit.kernel import ipset, ipvs
from netkit.kernel.errors import KernelError
from netkit.kernel.ipvs_values import RealServer, ServerKey, Target, Timeouts, VirtualServer
from netkit.kernel.netlink import Message
from netkit.proxy.addresses import Address, Family, Network
from netkit.proxy.ipvs.book import Book, Delta, ServerChange, Standing, StandingServer
from netkit.proxy.ipvs.chains import JUMPS
from netkit.proxy.ipvs.documents import read_saved
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.leaving import Leaving, waits
from netkit.proxy.ipvs.node import CONNECTIONS_STAY, kernel_settings
from netkit.proxy.ipvs.sets import DEVICE, SETS

SERVERS_INSPECTED: Final = 1000
"""Of how many virtual servers the real ones are compared at a time."""


class Writer:
    """One family's part of a node's kernel. Virtual servers inside `excluded` are somebody else's."""

    def __init__(
        self, drivers: Drivers, family: Family, excluded: Sequence[Network], look_seconds: float
    ) -> None:
        self._servers = drivers.servers
        self._sets = drivers.sets
        self._node = drivers.node
        self._translations = drivers.translations
        self._family = family
        self._excluded = excluded
        self._leaving = Leaving(look_seconds)
        self._inspected = 0

    # settings

    def prepare(self, options: tuple[bool, Timeouts]) -> tuple[str, ...]:
        """Make the kernel's settings; what was different. `options`: strictARP, and the timeouts."""
        strict_arp, timeouts = options
        changed = self._node.set(kernel_settings(strict_arp=strict_arp))
        if timeouts != Timeouts():
            now = self._servers.timeouts()
            wanted = Timeouts(
                timeouts.tcp or now.tcp, timeouts.tcp_fin or now.tcp_fin, timeouts.udp or now.udp
            )
            if wanted != now:
                self._servers.apply(ipvs.timeouts_set(wanted))
                changed += ("timeouts of IPVS",)
        return changed

    # reading

    def read(self, saved: str) -> Standing:
        """What of ours stands. `saved` is what iptables-save says."""
        found = self._node.addresses()
        headers = self._sets.headers()
        rules = read_saved(saved)
        return Standing(
            servers={server.key: StandingServer(server, self._reals(server.key)) for server in self._ours()},
            sets={
                kind: self._sets.entries(name)
                for kind in SETS
                if (name := kind.name_for(self._family)) in headers
            },
            device=DEVICE in found,
            bound=self._bound(found),
            chains=rules.chains,
            jumps=rules.jumps,
        )

    def as_wanted(self, book: Book, saved: str) -> bool:
        """Whether all that `book` wants stands; of real servers only those of the next SERVERS_INSPECTED."""
        rules = read_saved(saved)
        if rules.chains != book.chains or rules.jumps != frozenset(JUMPS):
            return False
        found = self._node.addresses()
        if DEVICE not in found or self._bound(found) != book.bound:
            return False
        headers = self._sets.headers()
        for kind in SETS:
            header = headers.get(kind.name_for(self._family))
            if header is None or header.size != len(book.entries(kind)):
                return False
        servers = book.servers
        if {server.key: server for server in self._ours()} != {
            key: plan.server for key, plan in servers.items()
        }:
            return False
        for key in self._next_inspected(list(servers)):
            weights = {target: real.weight for target, real in self._reals(key).items()}
            wanted = dict.fromkeys(servers[key].targets, 1)
            if {target: weight for target, weight in weights.items() if weight or target in wanted} != wanted:
                return False
        return True

    def leaving_of(self, book: Book, keys: Iterable[ServerKey]) -> Mapping[ServerKey, Collection[Target]]:
        """The real servers of these virtual servers that stand with weight 0 and that `book` does not want."""
        found = {}
        for key in keys:
            plan = book.server(key)
            targets = {
                target
                for target, real in self._reals(key).items()
                if not real.weight and (plan is None or target not in plan.targets)
            }
            if targets:
                found[key] = targets
        return found

    # writing

    def build(self, delta: Delta) -> None:
        """All that is new, but for rules and addresses; real servers that are not wanted any more begin to leave."""
        if delta.missing_device:
            self._node.make_device()
        version = self._family.version
        self._sets.apply(
            *(
                ipset.set_create(kind.name_for(self._family), kind.type, version)
                for kind in delta.missing_sets
            )
        )
        wanted = (change for change in delta.servers if change.after is not None)
        self._change_servers(sorted(wanted, key=lambda change: _place(change.key)))
        self._sets.apply(
            *(ipset.entry_add(kind.name_for(self._family), kind.type, entry) for kind, entry in delta.added)
        )

    def bind(self, delta: Delta) -> None:
        """New addresses."""
        if delta.bound:
            self._node.bind(delta.bound)

    def finish(self, delta: Delta) -> None:
        """Addresses, and the removal of what is not wanted."""
        self.bind(delta)
        if delta.unbound:
            self._node.unbind(delta.unbound)
        gone = [change.key for change in delta.servers if change.after is None]
        self._delete_servers(gone)
        for key in gone:
            self._leaving.drop(key)
        self._sets.apply(
            *(
                ipset.entry_delete(kind.name_for(self._family), kind.type, entry)
                for kind, entry in delta.removed
            )
        )

    def adopt_leaving(self, book: Book, standing: Standing) -> bool:
        """Keep in mind who was leaving before this process began; True if somebody could be deleted at once."""
        deleted: list[Message] = []
        now = time.monotonic()
        for key, found in standing.servers.items():
            plan = book.server(key)
            known = self._leaving.of(key)
            orphans = [
                real
                for target, real in found.reals.items()
                if plan is not None and not real.weight and target not in plan.targets and target not in known
            ]
            if orphans:
                deleted += [
                    ipvs.real_delete(key, target) for target in self._leaving.leave(key, orphans, now)
                ]
        self._servers.apply(*deleted)
        return bool(deleted)

    def next_look(self) -> float | None:
        """Seconds until leaving servers are to be looked at; None while nobody leaves."""
        return self._leaving.delay(time.monotonic())

    def look_at_leaving(self) -> list[tuple[ServerKey, Target]]:
        """Delete those whose last connection has ended, if it is time to look."""
        gone = []
        for key in self._leaving.due(time.monotonic()):
            gone += [(key, target) for target in self._leaving.looked(key, self._servers.real_servers(key))]
        self._servers.apply(*(ipvs.real_delete(key, target) for key, target in gone))
        # Not before: what could not be deleted is looked at again.
        for key, target in gone:
            self._leaving.drop(key, [target])
        return gone

    def _change_servers(self, changes: Sequence[ServerChange]) -> None:
        messages: list[Message] = []
        going: list[tuple[ServerKey, list[Target]]] = []
        for change in changes:
            messages += self._server_messages(change)
            targets = self._going(change)
            if not targets:
                continue
            if waits(change.key.transport):
                # First no new connections, then the question for old ones: none can slip in between.
                messages += [ipvs.real_set(change.key, target, 0) for target in targets]
                going.append((change.key, targets))
            else:
                messages += [ipvs.real_delete(change.key, target) for target in targets]
        self._servers.apply(*messages)
        deleted: list[Message] = []
        for key, targets in going:
            reals = self._reals(key)
            leaving = [reals[target] for target in targets if target in reals]
            gone = self._leaving.leave(key, leaving, time.monotonic())
            deleted += [ipvs.real_delete(key, target) for target in gone]
        self._servers.apply(*deleted)

    def _server_messages(self, change: ServerChange) -> Iterator[Message]:
        """What makes a virtual server and its wanted real servers right."""
        key, after = change.key, change.after
        assert after is not None
        if change.before is None:
            yield ipvs.server_add(after.server)
        elif change.before != after.server:
            yield ipvs.server_set(after.server)
        back = after.targets & self._leaving.of(key)
        self._leaving.drop(key, back)
        for target in sorted(after.targets, key=str):
            if target not in change.weights and target not in back:
                yield ipvs.real_add(key, target)
            elif target in back or change.weights[target] != 1:
                yield ipvs.real_set(key, target, 1)

    def _going(self, change: ServerChange) -> list[Target]:
        """Real servers that have to go and have not begun to."""
        after, leaving = change.after, self._leaving.of(change.key)
        assert after is not None
        return sorted(
            (
                target
                for target, weight in change.weights.items()
                if weight and target not in after.targets and target not in leaving
            ),
            key=str,
        )

    # taking away

    def remove_all(self) -> list[KernelError]:
        """Remove virtual servers, addresses, the device and the sets; what could not be removed. Connections go on."""
        self._leaving = Leaving(self._leaving.look_seconds)
        failed = []
        steps: tuple[Callable[[], None], ...] = (
            self._hand_over_connections,
            self._remove_servers,
            self._remove_addresses,
            self._remove_sets,
        )
        for step in steps:
            try:
                step()
            except KernelError as error:
                failed.append(error)
        return failed

    def _hand_over_connections(self) -> None:
        """IPVS drops the packets of connections whose virtual server is gone: conntrack translates them from now on.

        What IPVS itself knows of them must not end at once: it would take the entries of conntrack along.
        """
        keys = {
            (key.address.packed, key.port, key.transport) for key in (server.key for server in self._ours())
        }
        entries = [
            entry
            for transport in {transport for _, _, transport in keys}
            for entry in self._translations.untranslated(self._family.version, transport)
            if (entry.original.destination, entry.original.destination_port, transport) in keys
        ]
        if keys:
            self._node.set(CONNECTIONS_STAY)
        if entries:
            self._translations.translate(entries)

    def _remove_servers(self) -> None:
        self._delete_servers(server.key for server in self._ours())

    def _remove_addresses(self) -> None:
        found = self._node.addresses()
        if DEVICE not in found:
            return
        mine = self._bound(found)
        if all(address in mine or address.is_link_local for address in found[DEVICE]):
            self._node.remove_device()
        else:
            self._node.unbind(mine)

    def _remove_sets(self) -> None:
        headers = self._sets.headers()
        names = (kind.name_for(self._family) for kind in SETS)
        self._sets.apply(*(ipset.set_destroy(name) for name in names if name in headers))

    # pieces

    def _delete_servers(self, keys: Iterable[ServerKey]) -> None:
        """In the order opposite to that in which they are made.

        The kernel keeps deleted real servers on a list for one to two minutes, and searches it from the youngest on
        for each that is made: 50,000 searches for what lies at the end of 50,000 take minutes, for what lies at the
        beginning nothing.
        """
        backwards = sorted(keys, key=_place, reverse=True)
        self._servers.apply(*(ipvs.server_delete(key) for key in backwards))

    def _ours(self) -> Iterator[VirtualServer]:
        for server in self._servers.servers():
            address = server.key.address
            if address.version == self._family.version and not any(
                address in network for network in self._excluded
            ):
                yield server

    def _reals(self, key: ServerKey) -> dict[Target, RealServer]:
        return {real.target: real for real in self._servers.real_servers(key)}

    def _bound(self, found: Mapping[str, Collection[Address]]) -> frozenset[Address]:
        """Service addresses on kube-ipvs0; the kernel may have put a link-local one there by itself."""
        return frozenset(
            address
            for address in found.get(DEVICE, ())
            if address.version == self._family.version and not address.is_link_local
        )

    def _next_inspected(self, keys: Sequence[ServerKey]) -> Sequence[ServerKey]:
        begin = self._inspected if self._inspected < len(keys) else 0
        self._inspected = begin + SERVERS_INSPECTED
        return keys[begin : self._inspected]


def _place(key: ServerKey) -> tuple[bytes, int, int]:
    """Where a virtual server comes when there are many."""
    return key.address.packed, key.port, key.transport
