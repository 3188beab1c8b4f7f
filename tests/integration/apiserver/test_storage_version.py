"""storageVersionHash in discovery: the values every Kubernetes of these versions shows."""

from __future__ import annotations

import pytest
from support.apiserver import Served


@pytest.mark.parametrize(
    ("path", "resource", "expected"),
    [
        ("/api/v1", "pods", "xPOwRZ+Yhw8="),
        ("/apis/apps/v1", "deployments", "8aSe+NMegvE="),
        ("/api/v1", "events", "r2yiGXH7wu8="),
        ("/apis/events.k8s.io/v1", "events", "r2yiGXH7wu8="),
        ("/api/v1", "componentstatuses", None),
        ("/apis/authentication.k8s.io/v1", "tokenreviews", None),
        ("/api/v1", "pods/status", None),
    ],
)
async def test_hashes(api: Served, path: str, resource: str, expected: str | None) -> None:
    rows = (await api.json("GET", path))["resources"]
    (row,) = (row for row in rows if row["name"] == resource)
    assert row.get("storageVersionHash") == expected


async def test_versions_of_one_kind_are_stored_in_the_same(api: Served) -> None:
    hashes = set()
    for version in ("v1", "v2"):
        rows = (await api.json("GET", f"/apis/autoscaling/{version}"))["resources"]
        hashes |= {row["storageVersionHash"] for row in rows if row["name"] == "horizontalpodautoscalers"}
    assert len(hashes) == 1
