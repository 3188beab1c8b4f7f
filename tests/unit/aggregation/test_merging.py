"""Discovery of other servers' versions: what they say, what they say wrong, and the order of all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.aggregation.availability import resources_of
from controlplane.apiserver.aggregation.merging import discovered, in_order


def document(*rows: Any) -> bytes:
    return json.dumps({"kind": "APIResourceList", "resources": rows}).encode()


def test_a_subresource_without_its_resource_is_told_below_it() -> None:
    rows = resources_of(
        document({"name": "things/status", "kind": "Thing", "namespaced": True, "verbs": ["get"]})
    )
    assert discovered(rows, "g", "v1") == [
        {
            "resource": "things",
            "scope": "Namespaced",
            "singularResource": "",
            "verbs": [],
            "subresources": [
                {
                    "subresource": "status",
                    "responseKind": {"group": "g", "version": "v1", "kind": "Thing"},
                    "verbs": ["get"],
                }
            ],
        }
    ]


def test_a_subresource_may_come_first_and_be_of_another_group() -> None:
    scale = {
        "name": "things/scale",
        "kind": "Scale",
        "group": "autoscaling",
        "version": "v1",
        "verbs": ["get"],
    }
    (found,) = discovered(resources_of(document(scale, {"name": "things", "kind": "Thing"})), "g", "v1")
    assert found["responseKind"]["kind"] == "Thing"
    assert found["subresources"][0]["responseKind"] == {
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
    }


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"resources": 5}', b'{"resources": [5, {}, {"name": 7}]}']
)
def test_what_is_no_list_of_resources_is_none(body: bytes) -> None:
    assert resources_of(body) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {"name": _JSON}, optional=dict.fromkeys(("verbs", "kind", "namespaced", "shortNames", "group"), _JSON)
    ),
    max_size=4,
)


@given(_ROWS)
def test_whatever_a_server_says_discovery_is_well_formed(rows: list[Any]) -> None:
    for row in discovered(resources_of(document(*rows)), "g", "v1"):
        assert row["scope"] in ("Namespaced", "Cluster")
        assert isinstance(row["resource"], str)
        assert all(isinstance(verb, str) for verb in row["verbs"])


def test_groups_and_versions_as_they_rank() -> None:
    local = [
        ("", "v1"),
        ("apps", "v1"),
        ("autoscaling", "v1"),
        ("autoscaling", "v2"),
        ("b.example.com", "v1"),
    ]
    local.append(("apiregistration.k8s.io", "v1"))
    remote = {
        ("a.example.com", "v1"): (1000, 100),
        ("z.example.com", "v1"): (17_600, 1),
        ("apps", "v9"): (1, 999),
    }
    assert in_order([*local, *remote], remote) == {
        "apiregistration.k8s.io": ["v1"],
        "": ["v1"],
        "apps": ["v9", "v1"],
        "z.example.com": ["v1"],
        "autoscaling": ["v2", "v1"],
        "a.example.com": ["v1"],
        "b.example.com": ["v1"],
    }
