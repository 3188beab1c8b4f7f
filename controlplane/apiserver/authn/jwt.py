"""JSON Web Tokens: what one claims before anybody believes it, and what remains once its signature was verified.

Cryptography is PyJWT's, which is imported when the first token comes. Verified tokens are remembered by their hash,
a bounded number of them: only what they say of time and of other objects has to be looked at again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controlplane.apiserver.authn.credentials import AuthenticationError
from controlplane.apiserver.authn.keys import SigningKey, VerifyingKey

LEEWAY_SECONDS = 60
"""By how much clocks may differ."""
TOKEN_MAX = 64 * 1024
"""Bytes of the longest token that is looked at."""
_KEPT = 4096

Claims = Mapping[str, Any]


def sign(claims: Claims, key: SigningKey) -> str:
    """The token in compact form. Its header has algorithm and key id, as Kubernetes' own."""
    import jwt

    return jwt.encode(
        dict(claims), key.key, algorithm=key.public.algorithm, headers={"kid": key.public.id, "typ": ""}
    )


def unverified(token: str) -> tuple[Claims, Claims] | None:
    """Header and claims as they stand there, None for what is no token. Nothing of it is proven."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > TOKEN_MAX:
        return None
    header, claims = _part(parts[0]), _part(parts[1])
    return None if header is None or claims is None else (header, claims)


def _part(text: str) -> Claims | None:
    try:
        found = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    return found if isinstance(found, dict) else None


class VerifiedTokens:
    """Verifies signatures, each token's once, as long as the key that did it is among the keys. Knows nothing of
    time."""

    def __init__(self) -> None:
        self._claims: OrderedDict[bytes, tuple[Claims, VerifyingKey]] = OrderedDict()

    def claims(self, token: str, keys: Sequence[VerifyingKey]) -> Claims:
        """The claims of a token that one of `keys` signed. Raises AuthenticationError."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._claims.get(digest)
        if known is None or known[1] not in keys:
            known = verify(token, keys)
            self._claims[digest] = known
            if len(self._claims) > _KEPT:
                self._claims.popitem(last=False)
        return known[0]


def verify(token: str, keys: Sequence[VerifyingKey]) -> tuple[Claims, VerifyingKey]:
    """The claims of a token that one of `keys` signed, by that key's algorithm. Raises AuthenticationError."""
    import jwt

    fault = "invalid signature, no keys found"
    for key in keys:
        try:
            payload = jwt.PyJWS().decode(token, key.key, algorithms=[key.algorithm])
            claims = orjson.loads(payload)
        except (jwt.PyJWTError, ValueError) as error:
            fault = f"invalid signature: {error}"
            continue
        if isinstance(claims, dict):
            return claims, key
        fault = "the token's payload is not an object"
    raise AuthenticationError(fault)


def check_times(claims: Claims, title: str) -> None:
    """`exp`, `nbf` and `iat` against the clock; `title` begins the text of the refusal. Raises AuthenticationError."""
    now = time.time()
    if _moment(claims, "exp", title, now) < now - LEEWAY_SECONDS:
        raise AuthenticationError(f"{title} has expired")
    if _moment(claims, "nbf", title, now) > now + LEEWAY_SECONDS:
        raise AuthenticationError(f"{title} is not valid yet")
    if _moment(claims, "iat", title, now) > now + LEEWAY_SECONDS:
        raise AuthenticationError(f"{title} is issued in the future")


def _moment(claims: Claims, name: str, title: str, default: float) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthenticationError(f"{title} claims could not be validated: {name} is not a number")
    return value


def audiences_of(claims: Claims) -> tuple[str, ...]:
    """`aud`, which may be one text or several."""
    found = claims.get("aud") or ()
    if isinstance(found, str):
        return (found,)
    return tuple(str(audience) for audience in found) if isinstance(found, list) else ()
