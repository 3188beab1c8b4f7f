"""Several authenticators as one: each is asked in turn, and the first that knows the credentials decides.

A refusal is not the end, since another authenticator may know better; only when nobody does are the refusals told,
all of them. What comes last (nobody at all) is `Authentication`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.apiserver.authn.credentials import (
    AuthenticationError,
    Authenticator,
    Credentials,
    Identity,
    TokenAuthenticator,
)
from controlplane.apiserver.user import AUTHENTICATED, SYSTEM_ANONYMOUS, UNAUTHENTICATED, UserInfo


class FirstOf:
    """The first of `authenticators` that knows the credentials."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        refusals: list[AuthenticationError] = []
        for authenticator in self._authenticators:
            try:
                identity = await authenticator.authenticate(credentials)
            except AuthenticationError as refusal:
                refusals.append(refusal)
                continue
            if identity is not None:
                return _among_the_authenticated(identity)
        if refusals:
            raise _together(refusals)
        return None


class FirstToken:
    """The first of `authenticators` that knows the token."""

    def __init__(self, authenticators: Sequence[TokenAuthenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        refusals: list[AuthenticationError] = []
        for authenticator in self._authenticators:
            try:
                identity = await authenticator.authenticate(token, audiences)
            except AuthenticationError as refusal:
                refusals.append(refusal)
                continue
            if identity is not None:
                return identity
        if refusals:
            raise _together(refusals)
        return None


def _together(refusals: Sequence[AuthenticationError]) -> AuthenticationError:
    """All texts, each once."""
    texts = list(dict.fromkeys(str(refusal) for refusal in refusals))
    return AuthenticationError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def _among_the_authenticated(identity: Identity) -> Identity:
    """Whoever is known belongs to `system:authenticated`, unless their groups say which of the two they are in."""
    user = identity.user
    if user.name == SYSTEM_ANONYMOUS or AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
        return identity
    known = UserInfo(user.name, user.uid, (*user.groups, AUTHENTICATED), user.extra)
    return Identity(known, identity.audiences)
