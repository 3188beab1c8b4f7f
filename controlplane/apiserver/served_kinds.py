"""The set of served kinds, which changes while the server runs: built-in kinds and those of CustomResourceDefinitions.

One object is shared by routing, discovery, OpenAPI and the registry, so that all of them change at once. Whoever keeps
something derived from the set compares `edition`. Loop's thread only; knows nothing of requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from controlplane.resources.kind import Kind
from controlplane.resources.versions import gather

_VERSION = re.compile(r"v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?").fullmatch
_STAGES = {None: 2, "beta": 1, "alpha": 0}


def version_priority(version: str) -> tuple[int, int, int, int, str]:
    """A key that sorts versions by preference: v2, v1, v1beta2, v1beta1, v1alpha1, then other words by the alphabet."""
    match = _VERSION(version)
    if match is None:
        return 1, 0, 0, 0, version
    major, stage, minor = match.groups()
    return 0, -_STAGES[stage], -int(major), -int(minor or 0), version


class ServedKinds:
    """Iterating gives all kinds in the order of discovery: the built-in ones as given, then custom ones by group."""

    def __init__(self, built_in: Iterable[Kind]) -> None:
        self._built_in = tuple(gather(tuple(built_in)))
        self._custom: dict[str, tuple[Kind, ...]] = {}
        self._edition = 0
        self._index()

    @classmethod
    def of(cls, kinds: ServedKinds | Iterable[Kind]) -> ServedKinds:
        return kinds if isinstance(kinds, ServedKinds) else cls(kinds)

    @property
    def edition(self) -> int:
        """Another number after each change."""
        return self._edition

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def built_in(self) -> Sequence[Kind]:
        return self._built_in

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served under `/apis/GROUP/VERSION/.../PLURAL`."""
        return self._by_plural.get((group, version, plural))

    def has_version(self, group: str, version: str) -> bool:
        """Whether any kind of that version of that group is served."""
        return (group, version) in self._versions

    def of_resource(self, group: str, plural: str) -> Kind | None:
        """The preferred version of a resource."""
        return self._by_resource.get((group, plural))

    def of_kind(self, api_version: str, kind: str) -> Kind | None:
        """The kind that an object's apiVersion and kind name."""
        return self._by_kind.get((api_version, kind))

    def replace(self, owner: str, kinds: Sequence[Kind]) -> None:
        """From now on `owner` (a CustomResourceDefinition's name) serves exactly `kinds`."""
        if not kinds and owner not in self._custom:
            return
        if kinds:
            self._custom[owner] = tuple(kinds)
        else:
            del self._custom[owner]
        self._index()

    def _index(self) -> None:
        self._edition += 1
        custom = [kind for kinds in self._custom.values() for kind in kinds]
        custom.sort(key=lambda kind: (kind.group, version_priority(kind.version), kind.plural))
        self._kinds = (*self._built_in, *custom)
        self._versions = {(kind.group, kind.version) for kind in self._kinds}
        self._by_plural = {(kind.group, kind.version, kind.plural): kind for kind in self._kinds}
        self._by_kind = {(kind.api_version, kind.kind): kind for kind in self._kinds}
        self._by_resource: dict[tuple[str, str], Kind] = {}
        for kind in self._kinds:
            self._by_resource.setdefault((kind.group, kind.plural), kind)
