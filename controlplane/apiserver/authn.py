"""Who is asking: client certificates, bearer tokens, impersonation.

Called by the HTTP shell once per request, before the core. Authenticators know credentials, not requests.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from controlplane.apiserver.authz import AUTHENTICATED, Attributes, Authorizer, forbidden
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest

_PREFIX = "impersonate-"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connection and its request carry: the verified certificate's subject, and the bearer token."""

    common_name: str = ""
    organizations: tuple[str, ...] = ()
    bearer: str = ""


class Authenticator(Protocol):
    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The user, or None when these credentials say nothing to this authenticator."""


class CertificateAuthenticator:
    """Common name = user, organizations = groups. TLS has verified the certificate against the CA by then."""

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        if not credentials.common_name:
            return None
        return UserInfo(credentials.common_name, groups=(*credentials.organizations, AUTHENTICATED))


class TokenFileAuthenticator:
    """Static tokens from a CSV file as `kube-apiserver --token-auth-file` takes it: token,user,uid,"group1,group2".

    Raises ValueError for a line with fewer than three columns, OSError when the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._users: dict[bytes, UserInfo] = {}
        for number, row in enumerate(csv.reader(io.StringIO(path.read_text())), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3:
                raise ValueError(f"{path}:{number}: expected token,user,uid[,groups]")
            token, name, uid, *rest = (column.strip() for column in row)
            groups = tuple(group.strip() for group in rest[0].split(",") if group.strip()) if rest else ()
            self._users[_digest(token)] = UserInfo(name, uid=uid, groups=(*groups, AUTHENTICATED))

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        if not credentials.bearer:
            return None
        wanted = _digest(credentials.bearer)
        for known, user in self._users.items():
            if hmac.compare_digest(known, wanted):
                return user
        return None


class FirstOf:
    """Asks each authenticator in turn."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        for authenticator in self._authenticators:
            user = await authenticator.authenticate(credentials)
            if user is not None:
                return user
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def subject(peer_certificate: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of a certificate in the `ssl` module's form; empty without one."""
    common_name, organizations = "", []
    for names in (peer_certificate or {}).get("subject", ()):
        for key, value in names:
            if key == "commonName":
                common_name = value
            elif key == "organizationName":
                organizations.append(value)
    return common_name, tuple(organizations)


def bearer_token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def impersonate(user: UserInfo, headers: Sequence[tuple[str, str]], authorizer: Authorizer) -> UserInfo:
    """The user that `Impersonate-*` headers name, or `user` itself without them. `headers` have lower-case names.

    Raises BadRequest when groups are named without a user, Forbidden when `user` may not act for that one.
    """
    wanted = [(name.removeprefix(_PREFIX), value) for name, value in headers if name.startswith(_PREFIX)]
    if not wanted:
        return user
    names = [value for name, value in wanted if name == "user"]
    groups = tuple(value for name, value in wanted if name == "group")
    if not names:
        raise BadRequest("requested impersonation without impersonating a user")
    for resource, asked in (("users", names[:1]), ("groups", groups)):
        for name in asked:
            info = RequestInfo("impersonate", "", True, version="v1", resource=resource, name=name)
            attributes = Attributes(user, info)
            decision = await authorizer.authorize(attributes)
            if not decision.allowed:
                raise forbidden(attributes, decision)
    uids = [value for name, value in wanted if name == "uid"]
    return UserInfo(
        names[0], uid=uids[0] if uids else "", groups=tuple(dict.fromkeys((*groups, AUTHENTICATED)))
    )
