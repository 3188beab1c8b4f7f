"""Reviews: created, answered, never stored."""

from __future__ import annotations

from support.apiserver import Served

SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
WHOAMI = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


async def test_who_am_i(api: Served) -> None:
    review = await api.json("POST", SELF, 201, json=WHOAMI)
    assert list(review["metadata"]) == ["creationTimestamp"]
    user = review["status"]["userInfo"]
    assert (user["username"], user["groups"]) == (
        "kubernetes-admin",
        ["system:masters", "system:authenticated"],
    )
    credential = user["extra"]["authentication.kubernetes.io/credential-id"]
    assert credential[0].startswith("X509SHA256=")
    as_other = {"Impersonate-User": "alice", "Impersonate-Group": "system:masters"}
    review = await api.json("POST", SELF, 201, json=WHOAMI, headers=as_other)
    assert review["status"]["userInfo"]["username"] == "alice"


async def test_reviews_are_only_created(api: Served) -> None:
    for method, path in (
        ("GET", SELF),
        ("GET", f"{SELF}/x"),
        ("DELETE", f"{SELF}/x"),
        ("GET", f"{SELF}?watch=1"),
    ):
        await api.json(method, path, 405)
    await api.json("POST", SELF, 400, json={**WHOAMI, "kind": "TokenReview"})
    await api.json("POST", SELF, 422, json=WHOAMI, params={"dryRun": "x"})


async def test_reviews_are_in_discovery(api: Served) -> None:
    listed = await api.json("GET", "/apis/authentication.k8s.io/v1")
    rows = {row["name"]: row for row in listed["resources"]}
    assert rows["selfsubjectreviews"]["verbs"] == ["create"]
    document = await api.json("GET", "/openapi/v3/apis/authentication.k8s.io/v1")
    assert list(document["paths"][SELF]) == ["post", "parameters"]
    assert f"{SELF}/{{name}}" not in document["paths"]
