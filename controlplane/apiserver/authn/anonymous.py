"""The last word of authentication: nobody known is nobody served, unless anonymous requests are allowed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from controlplane.apiserver.authn.credentials import (
    AuthenticationError,
    Authenticator,
    Credentials,
    Identity,
)
from controlplane.apiserver.user import ANONYMOUS
from controlplane.errors import Unauthorized

log = logging.getLogger(__name__)


class Authentication:
    """What the HTTP shell and TokenReview ask.

    `anonymous`: requests without any credentials are `system:anonymous`; with `anonymous_paths` only on those paths.
    `closers` end what authenticators keep open.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        api_audiences: tuple[str, ...] = (),
        *,
        anonymous: bool = False,
        anonymous_paths: Sequence[str] = (),
        closers: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.api_audiences = api_audiences
        self._authenticator = authenticator
        self._anonymous = anonymous
        self._anonymous_paths = frozenset(anonymous_paths)
        self._closers = tuple(closers)

    async def identify(self, credentials: Credentials, path: str) -> Identity:
        """Who sends a request to `path` (without its query). Raises Unauthorized, which never says why."""
        try:
            identity = await self._authenticator.authenticate(credentials)
        except AuthenticationError as refusal:
            log.warning("authentication failed: %s", refusal)
            raise Unauthorized("Unauthorized") from refusal
        if identity is not None:
            return identity
        if self._anonymous and (not self._anonymous_paths or path in self._anonymous_paths):
            return Identity(ANONYMOUS, credentials.audiences)
        raise Unauthorized("Unauthorized")

    async def review(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """Whose token that is, None when nobody knows. Raises AuthenticationError."""
        return await self._authenticator.authenticate(Credentials(bearer=token, audiences=audiences))

    async def close(self) -> None:
        """Close the connections of authenticators that ask others."""
        for close in self._closers:
            await close()
