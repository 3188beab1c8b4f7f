"""Impersonation: a user who may, acts as another one. Texts and order are upstream's (`filters/impersonation.go`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.apiserver.authn.request_header import extra_key
from controlplane.apiserver.authz import Attributes, Authorizer, forbidden
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import AUTHENTICATED, SYSTEM_ANONYMOUS, UNAUTHENTICATED, UserInfo
from controlplane.errors import BadRequest

PREFIX = "impersonate-"
_EXTRA = "extra-"
_ACCOUNT = "system:serviceaccount:"
_GROUP = "authentication.k8s.io"


@dataclass(frozen=True, slots=True)
class _Wish:
    """Everything the `Impersonate-*` headers ask for."""

    user: str
    groups: tuple[str, ...]
    uid: str
    extra: dict[str, tuple[str, ...]]


async def impersonate(user: UserInfo, headers: Sequence[tuple[str, str]], authorizer: Authorizer) -> UserInfo:
    """The user that `Impersonate-*` headers name, or `user` itself without them. `headers` have lower-case names.

    Raises BadRequest when groups, a uid or extras come without a user, Forbidden when `user` may not act for that one.
    """
    wish = _wish(headers)
    if wish is None:
        return user
    for info in _asked(wish):
        attributes = Attributes(user, info)
        decision = await authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision)
    return UserInfo(wish.user, wish.uid, _groups(wish), wish.extra)


def _wish(headers: Sequence[tuple[str, str]]) -> _Wish | None:
    wanted = [(name.removeprefix(PREFIX), value) for name, value in headers if name.startswith(PREFIX)]
    if not wanted:
        return None
    extra: dict[str, tuple[str, ...]] = {}
    for name, value in wanted:
        if name.startswith(_EXTRA):
            key = extra_key(name.removeprefix(_EXTRA))
            extra[key] = (*extra.get(key, ()), value)
    found = _Wish(
        next((value for name, value in wanted if name == "user"), ""),
        tuple(value for name, value in wanted if name == "group"),
        next((value for name, value in wanted if name == "uid"), ""),
        extra,
    )
    if found.user:
        return found
    if found.groups or found.uid or extra:
        raise BadRequest(f"requested {_told(found)} without impersonating a user")
    return None


def _told(wish: _Wish) -> str:
    parts = [f"group {name}" for name in wish.groups]
    parts += [f"{key} {value}" for key, values in wish.extra.items() for value in values]
    parts += [f"uid {wish.uid}"] if wish.uid else []
    return f"[{', '.join(parts)}]"


def _account(name: str) -> tuple[str, str] | None:
    """Namespace and name of a ServiceAccount's user name, None for all others."""
    parts = name.removeprefix(_ACCOUNT).split(":")
    if not name.startswith(_ACCOUNT) or len(parts) != 2 or not all(parts):
        return None
    return parts[0], parts[1]


def _asked(wish: _Wish) -> Iterator[RequestInfo]:
    """What the impersonator must be allowed, each by itself, in upstream's order."""
    account = _account(wish.user)
    if account is not None:
        yield _info("serviceaccounts", account[1], namespace=account[0])
    else:
        yield _info("users", wish.user)
    for group in wish.groups:
        yield _info("groups", group)
    for key, values in wish.extra.items():
        for value in values:
            yield _info("userextras", value, group=_GROUP, subresource=key)
    if wish.uid:
        yield _info("uids", wish.uid, group=_GROUP)


def _info(
    resource: str, name: str, *, namespace: str = "", group: str = "", subresource: str = ""
) -> RequestInfo:
    return RequestInfo("impersonate", "", True, group, "v1", namespace, resource, name, subresource)


def _groups(wish: _Wish) -> tuple[str, ...]:
    groups = list(wish.groups)
    account = _account(wish.user)
    if account is not None and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    if wish.user == SYSTEM_ANONYMOUS:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    return tuple(groups)
