"""What discovery says with the versions of other servers in it: rows in both forms, and the order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controlplane.apiserver.served_kinds import version_priority
from controlplane.errors import Object
from controlplane.resources.apiregistration import CUSTOM_PRIORITY, PRIORITIES

_FIRST = (20_001, 1)
"""This server's own registration API comes before all others, as upstream."""

Version = tuple[str, str]


def in_order(versions: Iterable[Version], remote: Mapping[Version, tuple[int, int]]) -> dict[str, list[str]]:
    """Groups, and the versions of each, as APIServices rank them. `remote`: group and version priority of others'."""
    ranks = {version: remote.get(version) or _own(version) for version in versions}
    groups: dict[str, list[str]] = {}
    for group, version in ranks:
        groups.setdefault(group, []).append(version)
    highest = {group: max(ranks[group, version][0] for version in found) for group, found in groups.items()}
    return {
        group: sorted(
            groups[group], key=lambda version: (-ranks[group, version][1], version_priority(version))
        )
        for group in sorted(groups, key=lambda group: (-highest[group], group))
    }


def _own(version: Version) -> tuple[int, int]:
    group, name = version
    if group == "apiregistration.k8s.io":
        return _FIRST
    return PRIORITIES.get(f"{group}/{name}" if group else name, CUSTOM_PRIORITY)


def discovered(rows: Sequence[Object], group: str, version: str) -> list[Object]:
    """The rows of an APIResourceList as aggregated discovery has them."""
    found: dict[str, Object] = {}
    for row in rows:
        name, _, subresource = str(row["name"]).partition("/")
        kind = {
            "group": row.get("group") or group,
            "version": row.get("version") or version,
            "kind": row.get("kind", ""),
        }
        if subresource:
            entry: Object = {
                "subresource": subresource,
                "responseKind": kind,
                "verbs": row.get("verbs") or [],
            }
            parent = found.setdefault(name, _bare(row, name))
            parent.setdefault("subresources", []).append(entry)
            continue
        entry = {**_bare(row, name), "responseKind": kind, "verbs": row.get("verbs") or []}
        for key in ("shortNames", "categories"):
            if row.get(key):
                entry[key] = row[key]
        if name in found and "subresources" in found[name]:
            entry["subresources"] = found[name]["subresources"]
        found[name] = entry
    return list(found.values())


def _bare(row: Object, name: str) -> Object:
    """Of a resource of which perhaps only subresources are served."""
    return {
        "resource": name,
        "scope": "Namespaced" if row.get("namespaced") else "Cluster",
        "singularResource": row.get("singularName", ""),
        "verbs": [],
    }
