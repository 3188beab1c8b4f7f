"""What a request brings to prove who sends it, what authentication makes of it, and the protocols between.

Made by the HTTP shell (and by TokenReview, for a token alone); read by every authenticator of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.apiserver.user import UserInfo

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""Key of a user's `extra` that names the very certificate or token that was shown."""


class AuthenticationError(Exception):
    """Credentials that an authenticator knows, and refuses. The text goes to the log and into TokenReviews, never
    into a 401."""


class Headers(Protocol):
    """A request's headers; names are compared without case (`multidict.CIMultiDictProxy`)."""

    def get(self, name: str, default: str, /) -> str: ...

    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]: ...

    def items(self) -> Iterable[tuple[str, str]]: ...


class NoHeaders:
    """The headers of a request that has none."""

    def get(self, name: str, default: str, /) -> str:
        return default

    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]:
        return default

    def items(self) -> Iterable[tuple[str, str]]:
        return ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """`certificate` is the client's (DER, empty without one; TLS proved that the client has its key), `bearer` a token.

    `audiences` are those whom the credentials must be meant for; empty = the API server itself.
    """

    certificate: bytes = b""
    bearer: str = ""
    headers: Headers = field(default_factory=NoHeaders)
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who it is, and for which of the asked audiences that holds (empty = nothing is said about audiences)."""

    user: UserInfo
    audiences: tuple[str, ...] = ()


class Authenticator(Protocol):
    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Who it is, None when these credentials say nothing to this authenticator. Raises AuthenticationError."""


class TokenAuthenticator(Protocol):
    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """As above for a token. `audiences` are never empty."""


def shared(mine: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    """What both have, in the order of the first."""
    wanted = frozenset(theirs)
    return tuple(audience for audience in mine if audience in wanted)


Extra = Mapping[str, Sequence[str]]
