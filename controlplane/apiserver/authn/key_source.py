"""The public keys of an OpenID Connect issuer, fetched when they are needed and kept while they serve.

A token with a key nobody knows makes them be fetched anew, but not more often than once a second for all tokens
together, so that forged tokens cannot make this server knock at the issuer's door without end.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from controlplane.apiserver.authn.credentials import AuthenticationError

_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
_LARGEST = 1024 * 1024


class KeySource:
    """Keys of the issuer `url`, found through `discovery_url`. `tls` verifies both servers."""

    def __init__(self, url: str, discovery_url: str, tls: ssl.SSLContext) -> None:
        self._url = url
        self._discovery_url = discovery_url
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._fetched_at = float("-inf")
        self._fault = ""
        self._keys_url = ""
        self._keys: Sequence[Any] = ()

    async def keys(self, kid: str) -> Sequence[Any]:
        """PyJWT's keys of that id, all of them when the token names none. Raises AuthenticationError."""
        found = self._matching(kid)
        if not found:
            await self._refresh()
            found = self._matching(kid)
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _matching(self, kid: str) -> Sequence[Any]:
        return [key for key in self._keys if not kid or not key.key_id or key.key_id == kid]

    async def _refresh(self) -> None:
        asked_at = time.monotonic()
        async with self._lock:
            if self._fetched_at > asked_at or time.monotonic() - self._fetched_at < _PAUSE_SECONDS:
                if self._fault:
                    raise AuthenticationError(self._fault)
                return
            try:
                await self._fetch()
                self._fault = ""
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                self._fault = f"oidc: keys of {self._url}: {str(error) or 'no answer in time'}"
                raise AuthenticationError(self._fault) from error
            finally:
                self._fetched_at = time.monotonic()

    async def _fetch(self) -> None:
        import jwt

        if not self._keys_url:
            document = await self._document(self._discovery_url)
            if document.get("issuer") != self._url:
                raise ValueError(
                    f'issuer did not match the issuer returned by provider, expected "{self._url}" '
                    f'got "{document.get("issuer")}"'
                )
            keys_url = document.get("jwks_uri")
            if not isinstance(keys_url, str) or not keys_url.startswith("https://"):
                raise ValueError("the provider's jwks_uri is no https URL")
            self._keys_url = keys_url
        entries = (await self._document(self._keys_url)).get("keys")
        found = []
        for entry in entries if isinstance(entries, list) else ():
            if (
                isinstance(entry, dict)
                and entry.get("use", "sig") == "sig"
                and entry.get("kty") in ("RSA", "EC")
            ):
                try:
                    found.append(jwt.PyJWK.from_dict(entry))
                except jwt.PyJWTError:
                    continue  # keys of kinds this server does not know may stand among the others
        self._keys = found

    async def _document(self, url: str) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
                trust_env=False,
            )
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"{url} answered {answer.status}")
            body = await answer.content.read(_LARGEST + 1)
            while len(body) <= _LARGEST and not answer.content.at_eof():
                body += await answer.content.read(_LARGEST + 1)
        if len(body) > _LARGEST:
            raise ValueError(f"{url} answered with more than {_LARGEST} bytes")
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError(f"{url} did not answer with an object")
        return found
