"""The authenticating proxy: it shows the front-proxy certificate and says in headers for whom it asks.

Nobody else's headers count: `certificates` decides who the proxy is before a header is read, and the HTTP shell takes
these headers off every request (`STANDARD_NAMES`), so that they reach no kubelet and no aggregated server.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from controlplane.apiserver.authn.certificates import ClientAuthority
from controlplane.apiserver.authn.credentials import AuthenticationError, Credentials, Headers, Identity
from controlplane.apiserver.authn.settings import HeaderNames
from controlplane.apiserver.user import UserInfo


class RequestHeaderAuthenticator:
    """Users named by a proxy that holds a certificate of `authority` with one of `allowed_names` (empty = any)."""

    def __init__(self, authority: ClientAuthority, allowed_names: Sequence[str], names: HeaderNames) -> None:
        self._authority = authority
        self._allowed = frozenset(allowed_names)
        self._names = names

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if not credentials.certificate:
            return None
        proxy = self._authority.examine(credentials.certificate)
        proxy.check()
        if self._allowed and proxy.common_name not in self._allowed:
            raise AuthenticationError(f"x509: subject with cn={proxy.common_name} is not in the allowed list")
        names, headers = self._names, credentials.headers
        user = _first(headers, names.users)
        if not user:
            return None
        groups = tuple(value for name in names.groups for value in headers.getall(name, ()))
        return Identity(UserInfo(user, _first(headers, names.uids), groups, self._extra(headers)))

    def _extra(self, headers: Headers) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, value in headers.items():
            for prefix in self._names.extra_prefixes:
                if name.lower().startswith(prefix.lower()):
                    key = extra_key(name[len(prefix) :])
                    found[key] = (*found.get(key, ()), value)
        return found


def _first(headers: Headers, names: Sequence[str]) -> str:
    return next((value for name in names if (value := headers.get(name, ""))), "")


def extra_key(suffix: str) -> str:
    """The key a header `X-Remote-Extra-<suffix>` names: lower case, percent-decoded where that can be done."""
    lowered = suffix.lower()
    try:
        return unquote(lowered, errors="strict") if "%" in lowered else lowered
    except UnicodeDecodeError:
        return lowered
