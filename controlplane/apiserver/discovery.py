"""Discovery documents, aggregated and legacy, built from the served kinds whenever these have changed.

Called by the core for /api, /apis and what lies directly below. Versions that other servers serve are among them; the
order is that of APIServices' priorities.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from controlplane.apiserver.aggregation.merging import discovered, in_order
from controlplane.apiserver.aggregation.registrations import Registrations
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.errors import Object
from controlplane.resources.kind import Kind

_STATUS_VERBS = ("get", "patch", "update")
AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class _Subresource:
    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


def _subresources(kind: Kind, served: Container[tuple[str, str, str]]) -> Iterator[_Subresource]:
    found = [
        _Subresource(sub.name, sub.group, sub.version or kind.version, sub.kind, sub.verbs)
        for sub in kind.subresources
        if (kind.group, kind.plural, sub.name) in served
    ]
    if kind.status:
        found.append(_Subresource("status", kind.group, kind.version, kind.kind, _STATUS_VERBS))
    if kind.scale is not None:
        found.append(_Subresource("scale", "autoscaling", "v1", "Scale", _STATUS_VERBS))
    yield from sorted(found, key=lambda sub: sub.name)


class Discovery:
    """All documents, encoded; those handed out at one moment belong to one state of the set.

    `server_address` is `host:port` as clients reach it (legacy /api names it). Of the kinds' declared subresources
    only those in `served` (group, plural, subresource) are told. `registrations` are others' versions.
    """

    def __init__(
        self,
        kinds: ServedKinds | Sequence[Kind],
        server_address: str,
        served: Container[tuple[str, str, str]],
        registrations: Registrations | None = None,
    ) -> None:
        self._kinds = ServedKinds.of(kinds)
        self._registrations = registrations or Registrations()
        self._server_address = server_address
        self._served = served
        self._edition = (0, 0)
        self._aggregated: dict[tuple[str, str], bytes] = {}
        self._documents: dict[tuple[str, ...], bytes] = {}

    def document(self, segments: tuple[str, ...]) -> bytes | None:
        """The legacy document of that path (`("apis", "apps", "v1")`), None when nothing is served there."""
        self._refresh()
        return self._documents.get(segments)

    def aggregated(self, root: str, version: str) -> bytes:
        """The APIGroupDiscoveryList of `api` or `apis` in apidiscovery.k8s.io `v2` or `v2beta1`."""
        self._refresh()
        return self._aggregated[root, version]

    @property
    def paths(self) -> list[str]:
        self._refresh()
        return ["/" + "/".join(segments) for segments in self._documents]

    def _refresh(self) -> None:
        edition = self._kinds.edition, self._registrations.edition
        if self._edition != edition:
            self._edition = edition
            self._build()

    def _build(self) -> None:
        local: dict[tuple[str, str], list[Kind]] = {}
        for kind in self._kinds:
            local.setdefault((kind.group, kind.version), []).append(kind)
        # What this server serves itself nobody takes over.
        remote = {key: one for key, one in self._registrations.all().items() if key not in local}
        priorities = {key: (one.group_priority, one.version_priority) for key, one in remote.items()}
        groups = in_order([*local, *remote], priorities)
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._server_address}]
        core = groups.pop("", [])
        told = {key: self._told(key, local.get(key)) for key in (*local, *remote)}
        self._aggregated = {
            (root, version): orjson.dumps(_aggregated(chosen, version, told))
            for root, chosen in (("api", {"": core} if core else {}), ("apis", groups))
            for version in ("v2", "v2beta1")
        }
        self._documents = {
            ("api",): orjson.dumps(
                {"kind": "APIVersions", "versions": core, "serverAddressByClientCIDRs": addresses}
            ),
            ("apis",): orjson.dumps(
                {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [_group(name, versions) for name, versions in groups.items()],
                }
            ),
        }
        for name, versions in groups.items():
            document = {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}
            self._documents["apis", name] = orjson.dumps(document)
        for (group, version), members in local.items():
            root = ("apis", group, version) if group else ("api", version)
            self._documents[root] = orjson.dumps(_resource_list(group, version, members, self._served))

    def _told(self, key: tuple[str, str], kinds: Sequence[Kind] | None) -> Object:
        """One version in aggregated discovery."""
        if kinds is not None:
            rows = [_discovered(kind, self._served) for kind in sorted(kinds, key=lambda kind: kind.plural)]
            return {"version": key[1], "freshness": "Current", "resources": rows}
        found = self._registrations.served(*key)
        freshness = "Current" if found.is_current else "Stale"
        told: Object = {"version": key[1], "freshness": freshness}
        if found.resources:
            told["resources"] = discovered(found.resources, *key)
        return told


def _group(name: str, versions: Sequence[str]) -> Object:
    rows = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


def storage_version_hash(kind: Kind) -> str:
    """Names the version objects are stored in, as upstream: equal hashes mean the same version."""
    group, version = kind.hub or (kind.group, kind.version)
    digest = hashlib.sha256(f"{group}/{version}/{kind.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _is_stored_as_known(kind: Kind) -> bool:
    """Whether there are stored objects, and their version is not a matter of a conversion elsewhere."""
    return {"create", "watch"} <= set(kind.verbs) and (kind.convert is None or kind.hub is not None)


def _resource_list(
    group: str, version: str, kinds: Sequence[Kind], served: Container[tuple[str, str, str]]
) -> Object:
    rows: list[Object] = []
    for kind in sorted(kinds, key=lambda kind: kind.plural):
        row: Object = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            row["shortNames"] = list(kind.short_names)
        if kind.categories:
            row["categories"] = list(kind.categories)
        if _is_stored_as_known(kind):
            row["storageVersionHash"] = storage_version_hash(kind)
        rows.append(row)
        for sub in _subresources(kind, served):
            row = {
                "name": f"{kind.plural}/{sub.name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub.kind,
                "verbs": list(sub.verbs),
            }
            if (sub.group, sub.version) != (group, version):
                row["group"], row["version"] = sub.group, sub.version
            rows.append(row)
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows}


def _aggregated(
    groups: Mapping[str, Sequence[str]], api_version: str, told: Mapping[tuple[str, str], Object]
) -> Object:
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{api_version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name, "creationTimestamp": None},
                "versions": [told[name, version] for version in versions],
            }
            for name, versions in groups.items()
        ],
    }


def _discovered(kind: Kind, served: Container[tuple[str, str, str]]) -> Object:
    row: Object = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    subresources = [
        {
            "subresource": sub.name,
            "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
            "verbs": list(sub.verbs),
        }
        for sub in _subresources(kind, served)
    ]
    if subresources:
        row["subresources"] = subresources
    return row
