"""The IPVS mode's state as sections that people read and compare. Pure; called by `backend`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from netkit.kernel.ipvs_values import ServerKey, Target, VirtualServer
from netkit.proxy.addresses import Address, Family
from netkit.proxy.ipvs import sets
from netkit.proxy.ipvs.book import Book, Rules, Standing
from netkit.proxy.ipvs.chains import (
    CHAINS,
    FORWARD,
    IPVS_FILTER,
    IPVS_OUT_FILTER,
    JUMPS,
    POSTROUTING,
    PROXY_FIREWALL,
    SERVICES,
    Place,
)
from netkit.proxy.ipvs.plan import PortPlan
from netkit.proxy.ipvs.sets import DEVICE, SetKind
from netkit.proxy.listing import Listing, Section, listing

_BEFORE_IPVS: Final[tuple[Place, ...]] = (
    ("nat", SERVICES),
    ("filter", IPVS_OUT_FILTER),
    ("filter", PROXY_FIREWALL),
    ("filter", IPVS_FILTER),
)
_BEHIND_IPVS: Final[tuple[Place, ...]] = (("filter", FORWARD), ("nat", POSTROUTING))


def wanted_listing(book: Book, leaving: Mapping[ServerKey, Collection[Target]]) -> Listing:
    """What the book wants. Real servers that still leave are part of it, with weight 0."""
    family = book.family
    sections = [_device(book.bound), *_jumps(JUMPS)]
    sections += [_chain(place, rules) for place, rules in book.chains.items()]
    sections += [_set(kind, family, book.entries(kind)) for kind in sets.SETS]
    for key, plan in sorted(book.servers.items(), key=lambda item: str(item[0])):
        weights = dict.fromkeys(leaving.get(key, ()), 0) | dict.fromkeys(plan.targets, 1)
        sections.append(_server(plan.server, weights))
    return listing(sections)


def standing_listing(family: Family, standing: Standing) -> Listing:
    """What is in the kernel."""
    sections = [_device(standing.bound)] if standing.device else []
    sections += _jumps(jump for jump in JUMPS if jump in standing.jumps)
    sections += [_chain(place, standing.chains[place]) for place in CHAINS if place in standing.chains]
    sections += [_set(kind, family, standing.sets[kind]) for kind in sets.SETS if kind in standing.sets]
    for _, found in sorted(standing.servers.items(), key=lambda item: str(item[0])):
        sections.append(_server(found.server, found.weights))
    return listing(sections)


def port_sections(
    book: Book, plan: PortPlan, leaving: Mapping[ServerKey, Collection[Target]]
) -> Iterator[Section]:
    """What serves one port, in the order in which its packets meet it: rules that look at them on their way in, the
    address that brings them in, the virtual servers, and the rules on their way out.
    """
    entries = dict[SetKind, list[str]]()
    for kind, entry in sorted(plan.entries, key=lambda item: (item[0].name, item[1])):
        entries.setdefault(kind, []).append(entry)
    if plan.bound:
        entries[sets.IPVS_IPS] = [str(address) for address in sorted(plan.bound, key=str)]
    vaddrs = {str(address) for address in plan.kept_from_node}
    path = _Path(book, entries, vaddrs)
    yield from path.sections(_BEFORE_IPVS)
    if plan.bound:
        yield _device(plan.bound)
    for one in plan.servers:
        if book.server(one.server.key) == one:
            leavers = dict.fromkeys(leaving.get(one.server.key, ()), 0)
            yield _server(one.server, leavers | dict.fromkeys(one.targets, 1))
    yield from path.sections(_BEHIND_IPVS)


class _Path:
    """Chains as far as they concern one port; each chain and each set is shown once."""

    def __init__(self, book: Book, entries: Mapping[SetKind, list[str]], vaddrs: set[str]) -> None:
        self.book = book
        self.entries = entries
        self.vaddrs = vaddrs
        self.kinds = {kind.name_for(book.family): kind for kind in sets.SETS}
        self.shown: set[object] = set()

    def sections(self, places: Iterable[Place]) -> Iterator[Section]:
        for place in places:
            if place in self.shown:
                continue
            self.shown.add(place)
            rules = tuple(rule for rule in self.book.chains[place] if self._concerns(rule))
            if not rules:
                continue
            yield _chain(place, rules)
            for rule in rules:
                yield from self._sets_of(rule)
            targets = [(place[0], rule.rpartition("-j ")[2].split()[0]) for rule in rules]
            yield from self.sections(target for target in targets if target in self.book.chains)

    def _concerns(self, rule: str) -> bool:
        """A rule without a set concerns everybody, unless it is about one address."""
        words = rule.split()
        if "--vaddr" in words:
            return words[words.index("--vaddr") + 1] in self.vaddrs
        return all(kind in self.entries for kind in self._matched(words))

    def _sets_of(self, rule: str) -> Iterator[Section]:
        for kind in self._matched(rule.split()):
            if kind not in self.shown:
                self.shown.add(kind)
                yield _set(kind, self.book.family, self.entries[kind])

    def _matched(self, words: list[str]) -> Iterator[SetKind]:
        for word, name in pairwise(words):
            if word == "--match-set":
                yield self.kinds[name]


def _device(addresses: Iterable[Address]) -> Section:
    return Section(f"device {DEVICE}", tuple(sorted(map(str, addresses))), "dummy", ordered=False)


def _jumps(jumps: Iterable[tuple[Place, str]]) -> list[Section]:
    """Our rules of built-in chains, as they stand from top to bottom: the last one inserted is the first."""
    found: dict[Place, list[str]] = {}
    for place, rule in jumps:
        found.setdefault(place, []).insert(0, rule)
    return [Section(" ".join(place), tuple(rules), ordered=False) for place, rules in found.items()]


def _chain(place: Place, rules: Rules) -> Section:
    return Section(" ".join(place), rules)


def _set(kind: SetKind, family: Family, entries: Iterable[str]) -> Section:
    return Section(f"set {kind.name_for(family)}", tuple(sorted(entries)), kind.type, ordered=False)


def _server(server: VirtualServer, weights: Mapping[Target, int]) -> Section:
    entries = tuple(sorted(f"{target} weight {weight}" for target, weight in weights.items()))
    return Section(str(server.key), entries, server.options, ordered=False)
