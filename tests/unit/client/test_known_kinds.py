"""Which kinds controllers follow."""

from __future__ import annotations

from dataclasses import replace

from controlplane.client.known_kinds import KnownKinds, _kinds
from controlplane.resources.catalog import CONFIG_MAP, POD
from controlplane.resources.kind import Kind


def kind(version: str, **rest: object) -> Kind:
    made = Kind(group="g", version=version, kind="W", plural="ws", singular="w", namespaced=True)
    return replace(made, **rest)  # type: ignore[arg-type]


def test_one_version_of_each_resource_stands_for_all() -> None:
    known = KnownKinds([kind("v1"), kind("v1beta1"), CONFIG_MAP])
    assert [each.api_version for each in known.preferred] == ["g/v1", "v1"]
    assert known.resolve("g/v1beta1", "W") == kind("v1")
    assert known.resolve("g/v2", "W") is None


def test_what_cannot_be_watched_is_left_out() -> None:
    assert KnownKinds([kind("v1", verbs=("create",)), kind("v2", verbs=("get", "list"))]).preferred == ()


def test_subscribers_hear_of_what_comes_and_goes() -> None:
    known = KnownKinds([POD])
    heard: list[str] = []
    known.subscribe(
        lambda each: heard.append(f"+{each.api_version} {each.kind}"),
        lambda each: heard.append(f"-{each.api_version} {each.kind}"),
    )
    known._replace([POD, kind("v1beta1")])
    known._replace([POD, kind("v1"), kind("v1beta1")])
    known._replace([POD])
    assert heard == ["+v1 Pod", "+g/v1beta1 W", "-g/v1beta1 W", "+g/v1 W", "-g/v1 W"]


def test_discovery_documents() -> None:
    verbs = ["get", "list", "watch", "delete"]
    custom = {"resource": "ws", "responseKind": {"kind": "W"}, "scope": "Cluster", "verbs": verbs}
    document = {
        "items": [
            {"metadata": {"name": "g"}, "versions": [
                {"version": "v1", "freshness": "Current", "resources": [custom]},
                {"version": "v0", "freshness": "Stale", "resources": [custom]},
            ]},
        ]
    }  # fmt: skip
    (found,) = _kinds(document)
    assert (found.api_version, found.plural, found.namespaced, found.verbs) == (
        "g/v1",
        "ws",
        False,
        tuple(verbs),
    )
