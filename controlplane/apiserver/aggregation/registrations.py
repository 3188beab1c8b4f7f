"""The APIServices that name another server, as they are now, and what is known of what those serve.

Read on the way of requests for what this server does not serve itself, by discovery and by OpenAPI. Pulls from a watch
cache, so that what was answered to a writer counts at once; `availability` puts in what servers said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.apiserver.authz.follower import CacheSource, Follower
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import name
from controlplane.resources.apiregistration import AVAILABLE


@dataclass(frozen=True, slots=True)
class Registration:
    """One APIService with `spec.service`. `service` is the Service's namespace, name and port.

    `ca_bundle` as stored (base64, "" = the system's authorities). `is_available` is what its status says.
    """

    name: str
    group: str
    version: str
    service: tuple[str, str, int]
    ca_bundle: str
    is_insecure: bool
    group_priority: int
    version_priority: int
    is_available: bool

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}"

    @property
    def server_name(self) -> str:
        """What its certificate must name."""
        return f"{self.service[1]}.{self.service[0]}.svc"


def registration_of(service: Object) -> Registration | None:
    """None for a version this server serves itself. Takes what validation let pass."""
    spec = service.get("spec") or {}
    reference = spec.get("service")
    if not reference:
        return None
    return Registration(
        name(service),
        str(spec.get("group", "")),
        str(spec.get("version", "")),
        (
            str(reference.get("namespace", "")),
            str(reference.get("name", "")),
            int(reference.get("port") or 443),
        ),
        str(spec.get("caBundle") or ""),
        bool(spec.get("insecureSkipTLSVerify")),
        int(spec.get("groupPriorityMinimum") or 0),
        int(spec.get("versionPriority") or 0),
        conditions.status_of(service, AVAILABLE) == "True",
    )


@dataclass(frozen=True, slots=True)
class Served:
    """What a server said it serves: rows of its APIResourceList, and where its OpenAPI v3 document is ("" = none)."""

    resources: Sequence[Object]
    openapi_url: str = ""
    is_current: bool = True


_NOTHING = Served((), is_current=False)


class Registrations:
    """`edition` is another number after each change that discovery shows."""

    def __init__(self) -> None:
        self._follower: Follower | None = None
        self._all: dict[str, Registration] = {}
        self._by_version: dict[tuple[str, str], Registration] = {}
        self._served: dict[tuple[str, str], Served] = {}
        self._edition = 0

    def follow(self, source: CacheSource) -> None:
        """Know the APIServices of that cache from now on."""
        self._follower = Follower(source, self._add, self._remove, self._all.clear)

    @property
    def edition(self) -> int:
        self._refresh()
        return self._edition

    def find(self, group: str, version: str) -> Registration | None:
        self._refresh()
        return self._by_version.get((group, version))

    def all(self) -> Mapping[tuple[str, str], Registration]:
        """By group and version."""
        self._refresh()
        return self._by_version

    def served(self, group: str, version: str) -> Served:
        return self._served.get((group, version), _NOTHING)

    def tell(self, group: str, version: str, served: Served) -> None:
        """What the server of that version serves now."""
        if self._served.get((group, version)) != served:
            self._served[group, version] = served
            self._edition += 1

    def tell_stale(self, group: str, version: str) -> None:
        """Its server does not answer: what it said last may not hold any more."""
        self.tell(group, version, _NOTHING)

    def forget(self, group: str, version: str) -> None:
        if self._served.pop((group, version), None) is not None:
            self._edition += 1

    def _refresh(self) -> None:
        if self._follower is None:
            return
        self._follower.refresh()
        found = {(one.group, one.version): one for one in self._all.values()}
        if found != self._by_version:
            self._by_version = found
            self._edition += 1

    def _add(self, service: Object) -> None:
        found = registration_of(service)
        if found is None:
            self._all.pop(name(service), None)
        else:
            self._all[found.name] = found

    def _remove(self, service: Object) -> None:
        self._all.pop(name(service), None)
