"""Which kinds the server serves, as controllers see it: a fixed set, or what discovery tells, kept up to date.

Controllers that must reach every kind (garbage collector, namespaces) share one. Of each resource they follow one
version, the preferred one; references may name any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson

from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.resources.catalog import CUSTOM_RESOURCE_DEFINITION, by_plural
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_POLL_SECONDS = 30.0

Added = Callable[[Kind], None]
Removed = Callable[[Kind], None]


def _no_removal(kind: Kind) -> None:
    """For those who do not mind kinds that are gone."""


class KnownKinds:
    """A fixed set. The first kind of a resource is its preferred version. What cannot be watched is left out."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._preferred: dict[tuple[str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self._subscribers: list[tuple[Added, Removed]] = []
        self._replace(tuple(kinds))

    @classmethod
    def of(cls, kinds: KnownKinds | Iterable[Kind]) -> KnownKinds:
        return kinds if isinstance(kinds, KnownKinds) else cls(kinds)

    @property
    def preferred(self) -> Sequence[Kind]:
        """One kind for each resource."""
        return tuple(self._preferred.values())

    def resolve(self, api_version: str, kind: str) -> Kind | None:
        """The preferred version of the kind that an object or reference names."""
        return self._by_kind.get((api_version, kind))

    def subscribe(self, added: Added, removed: Removed = _no_removal) -> None:
        """Be told of every kind there is, now, and of those that come and go."""
        self._subscribers.append((added, removed))
        for kind in self.preferred:
            added(kind)

    async def refresh(self) -> None:
        """Make sure that the set is up to date. Raises StatusError, ConnectionFailed."""

    def _replace(self, kinds: Sequence[Kind]) -> None:
        kinds = [kind for kind in kinds if {"list", "watch"} <= set(kind.verbs)]
        preferred: dict[tuple[str, str], Kind] = {}
        for kind in kinds:
            preferred.setdefault((kind.group, kind.plural), kind)
        before, self._preferred = self._preferred, preferred
        self._by_kind = {(kind.api_version, kind.kind): preferred[kind.group, kind.plural] for kind in kinds}
        for key, kind in before.items():
            if key not in preferred or preferred[key].version != kind.version:
                for _, removed in self._subscribers:
                    removed(kind)
        for key, kind in preferred.items():
            if key not in before or before[key].version != kind.version:
                for added, _ in self._subscribers:
                    added(kind)


class DiscoveredKinds(KnownKinds):
    """What the server's discovery tells. `kinds` is what is known before it was asked first."""

    def __init__(self, client: Client, informers: Informers, kinds: Iterable[Kind]) -> None:
        super().__init__(kinds)
        self._client = client
        self._definitions = informers.of(CUSTOM_RESOURCE_DEFINITION)
        self._changed = asyncio.Event()
        self._definitions.on_change(self._definition_changed)

    async def refresh(self) -> None:
        found: list[Kind] = []
        for root in ("/api", "/apis"):
            answer = await self._client.raw("GET", root, headers={"accept": _ACCEPT})
            found += _kinds(orjson.loads(answer.body))
        self._replace(found)

    async def run(self) -> None:
        """Ask whenever a definition changes, and now and then, until cancelled."""
        await self._definitions.synced()
        while True:
            self._changed.clear()
            try:
                await self.refresh()
            except (StatusError, ConnectionFailed) as fault:
                log.info("discovery: %s", fault)
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _definition_changed(self, old: Object | None, new: Object | None) -> None:
        self._changed.set()


def _kinds(document: Mapping[str, object]) -> list[Kind]:
    """The kinds of an APIGroupDiscoveryList, in its order."""
    found: list[Kind] = []
    groups = document.get("items")
    for group in groups if isinstance(groups, list) else ():
        name = group["metadata"].get("name", "")
        for version in group.get("versions") or ():
            if version.get("freshness") == "Stale":
                continue
            for resource in version.get("resources") or ():
                found.append(_kind(name, version["version"], resource))
    return found


def _kind(group: str, version: str, resource: Object) -> Kind:
    """The built-in kind, or the little that is needed to speak of another one."""
    known = by_plural(group, version, resource["resource"])
    if known is not None:
        return known
    return Kind(
        group=group,
        version=version,
        kind=resource["responseKind"]["kind"],
        plural=resource["resource"],
        singular=resource.get("singularResource") or "",
        namespaced=resource["scope"] == "Namespaced",
        verbs=tuple(resource["verbs"]),
    )
