"""Acting as somebody else: who one becomes, and what one must be allowed for it."""

from __future__ import annotations

from typing import Any

import pytest
from support.authentication import Rights

from controlplane.apiserver.authn.impersonation import impersonate
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Forbidden

ADMIN = UserInfo("admin", groups=("system:authenticated",))


async def become(*headers: tuple[str, str], rights: Rights | None = None) -> UserInfo:
    return await impersonate(ADMIN, [(name.lower(), value) for name, value in headers], rights or Rights())


@pytest.mark.parametrize(
    ("headers", "groups"),
    [
        ([("Impersonate-User", "a")], ("system:authenticated",)),
        ([("Impersonate-User", "a"), ("Impersonate-Group", "g")], ("g", "system:authenticated")),
        ([("Impersonate-User", "a"), ("Impersonate-Group", "system:authenticated")], ("system:authenticated",)),
        ([("Impersonate-User", "a"), ("Impersonate-Group", "system:unauthenticated")], ("system:unauthenticated",)),
        ([("Impersonate-User", "system:anonymous")], ("system:unauthenticated",)),
        ([("Impersonate-User", "system:anonymous"), ("Impersonate-Group", "g")], ("g", "system:unauthenticated")),
        ([("Impersonate-User", "system:serviceaccount:ns:robot")],
         ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")),
        ([("Impersonate-User", "system:serviceaccount:ns:robot"), ("Impersonate-Group", "g")],
         ("g", "system:authenticated")),
        ([("Impersonate-User", "system:serviceaccount:odd")], ("system:authenticated",)),
    ],
)  # fmt: skip
async def test_groups(headers: Any, groups: tuple[str, ...]) -> None:
    user = await become(*headers)
    assert (user.name, user.groups) == (headers[0][1], groups)


async def test_nothing_asked_changes_nothing() -> None:
    assert await become(("Accept", "x")) is ADMIN
    assert await become(("Impersonate-User", "")) is ADMIN


async def test_everything_asked_is_authorized_by_itself() -> None:
    rights = Rights()
    user = await become(
        ("Impersonate-User", "alice"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-Acme.com%2Fproject", "x"),
        ("Impersonate-Extra-Scopes", "view"),
        ("Impersonate-Extra-Scopes", "edit"),
        rights=rights,
    )
    assert user == UserInfo(
        "alice",
        "7",
        ("dev", "system:authenticated"),
        {"acme.com/project": ("x",), "scopes": ("view", "edit")},
    )
    asked = [(a.info.group, a.info.resource, a.info.subresource, a.info.name) for a in rights.asked]
    assert asked == [
        ("", "users", "", "alice"),
        ("", "groups", "", "dev"),
        ("authentication.k8s.io", "userextras", "acme.com/project", "x"),
        ("authentication.k8s.io", "userextras", "scopes", "view"),
        ("authentication.k8s.io", "userextras", "scopes", "edit"),
        ("authentication.k8s.io", "uids", "", "7"),
    ]
    assert {a.info.verb for a in rights.asked} == {"impersonate"}


@pytest.mark.parametrize(
    ("header", "refused", "told"),
    [
        (("Impersonate-Group", "g"), ("impersonate", "groups", "g"),
         'groups "g" is forbidden: User "admin" cannot impersonate resource "groups" in API group "" '
         "at the cluster scope"),
        (("Impersonate-Uid", "7"), ("impersonate", "uids", "7"),
         'uids.authentication.k8s.io "7" is forbidden: User "admin" cannot impersonate resource "uids" in API '
         'group "authentication.k8s.io" at the cluster scope'),
        (("Impersonate-Extra-Scopes", "view"), ("impersonate", "userextras/scopes", "view"),
         'userextras.authentication.k8s.io "view" is forbidden: User "admin" cannot impersonate resource '
         '"userextras/scopes" in API group "authentication.k8s.io" at the cluster scope'),
    ],
)  # fmt: skip
async def test_refusals(header: tuple[str, str], refused: tuple[str, str, str], told: str) -> None:
    with pytest.raises(Forbidden) as caught:
        await become(("Impersonate-User", "alice"), header, rights=Rights({refused}))
    assert caught.value.message == told


async def test_an_account_is_refused_in_its_namespace() -> None:
    rights = Rights({("impersonate", "serviceaccounts", "robot")})
    with pytest.raises(Forbidden) as caught:
        await become(("Impersonate-User", "system:serviceaccount:ns:robot"), rights=rights)
    assert caught.value.message == (
        'serviceaccounts "robot" is forbidden: User "admin" cannot impersonate resource "serviceaccounts" '
        'in API group "" in the namespace "ns"'
    )


@pytest.mark.parametrize("name", ["Group", "Uid", "Extra-Scopes"])
async def test_somebody_must_be_named(name: str) -> None:
    with pytest.raises(BadRequest, match="without impersonating a user"):
        await become((f"Impersonate-{name}", "x"))
