"""Bearer tokens: where a request carries one, and what it means when nobody knows it."""

from __future__ import annotations

import base64
import binascii

from controlplane.apiserver.authn.credentials import (
    AuthenticationError,
    Credentials,
    Headers,
    Identity,
    TokenAuthenticator,
)

_WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."


def bearer_token(headers: Headers) -> str:
    """The token of the Authorization header, or of the WebSocket subprotocol browsers use for want of one."""
    words = headers.get("Authorization", "").strip().split(" ")
    if len(words) > 1 and words[0].lower() == "bearer":
        return words[1]
    if headers.get("Sec-WebSocket-Protocol", ""):
        return _subprotocol_token(headers)
    return ""


def _subprotocol_token(headers: Headers) -> str:
    for line in headers.getall("Sec-WebSocket-Protocol", ()):
        for protocol in line.split(","):
            encoded = protocol.strip().removeprefix(_WEBSOCKET_PREFIX)
            if encoded != protocol.strip():
                return _decoded(encoded)
    return ""


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


class BearerTokens:
    """Requests with a token. One that nobody knows is refused, so that it never passes for no token at all."""

    def __init__(self, tokens: TokenAuthenticator, api_audiences: tuple[str, ...]) -> None:
        self._tokens = tokens
        self._api_audiences = api_audiences

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if not credentials.bearer:
            return None
        audiences = credentials.audiences or self._api_audiences
        identity = await self._tokens.authenticate(credentials.bearer, audiences)
        if identity is None:
            raise AuthenticationError("invalid bearer token")
        return identity
