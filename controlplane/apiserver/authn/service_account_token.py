"""ServiceAccount tokens: signed by this cluster, and good only while the account and the bound object are there.

What can change is looked at anew for each request: a token ends with its pod, whatever its date. The texts are
upstream's (`pkg/serviceaccount/claims.go`, `legacy.go`).
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Any

from controlplane.apiserver.authn.credentials import AuthenticationError, Identity, shared
from controlplane.apiserver.authn.jwt import (
    LEEWAY_SECONDS,
    Claims,
    VerifiedTokens,
    audiences_of,
    check_times,
    unverified,
)
from controlplane.apiserver.authn.keys import VerifyingKey
from controlplane.apiserver.authn.objects import Lookup
from controlplane.apiserver.authn.service_account import LEGACY_ISSUER, account_user, user_name
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.meta import timestamps
from controlplane.meta.token_secrets import decoded
from controlplane.resources.fieldpath import quoted_list

_TITLE = "service account token"
_INVALIDATED = "service account token has been invalidated"
_BOUND = (("secret", "secrets"), ("pod", "pods"), ("node", "nodes"))
_LEGACY = "kubernetes.io/serviceaccount/"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"


class ServiceAccountTokens:
    """Tokens of `issuers` (the first signs, the others did), verified by `keys`; legacy ones as well."""

    def __init__(
        self,
        issuers: Sequence[str],
        keys: Sequence[VerifyingKey],
        api_audiences: tuple[str, ...],
        lookup: Lookup,
    ) -> None:
        self._issuers = frozenset(issuers)
        self._keys = tuple(keys)
        self._api_audiences = api_audiences
        self._lookup = lookup
        self._tokens = VerifiedTokens()

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        told = unverified(token)
        if told is None:
            return None
        issuer = told[1].get("iss")
        if not isinstance(issuer, str) or (issuer not in self._issuers and issuer != LEGACY_ISSUER):
            return None
        kid = told[0].get("kid")
        claims = self._tokens.claims(token, [key for key in self._keys if not kid or key.id == kid])
        meant_for = audiences_of(claims) or self._api_audiences
        meant = shared(meant_for, audiences)
        if not meant:
            raise AuthenticationError(
                f"token audiences {quoted_list(meant_for)} is invalid for the target audiences {quoted_list(audiences)}"
            )
        if issuer == LEGACY_ISSUER:
            return Identity(await self._legacy_user(token, claims), meant)
        return Identity(await self._user(claims), meant)

    async def _user(self, claims: Claims) -> UserInfo:
        check_times(claims, _TITLE)
        private = _mapping(claims, "kubernetes.io")
        namespace, reference = str(private.get("namespace", "")), _mapping(private, "serviceaccount")
        name, uid = str(reference.get("name", "")), str(reference.get("uid", ""))
        if claims.get("sub") != user_name(namespace, name):
            raise AuthenticationError("service account token claims could not be validated: sub is invalid")
        await self._check_account(namespace, name, uid, "service account")
        for word, plural in _BOUND:
            # A pod's token tells the pod's node, but is bound to the pod alone.
            if private.get(word) and not (word == "node" and private.get("pod")):
                await self._check_bound(word, plural, namespace, _mapping(private, word))
        return account_user(
            namespace,
            name,
            uid,
            token_id=str(claims.get("jti", "")),
            pod=private.get("pod"),
            node=private.get("node"),
        )

    async def _check_account(self, namespace: str, name: str, uid: str, title: str) -> None:
        account = await self._lookup("", "serviceaccounts", namespace, name)
        if account is None:
            raise AuthenticationError(f'serviceaccounts "{name}" not found')
        if _is_deleted(account):
            raise AuthenticationError(f"{title} {namespace}/{name} has been deleted")
        if account["metadata"]["uid"] != uid:
            raise AuthenticationError(
                f"{title} UID ({account['metadata']['uid']}) does not match claim ({uid})"
            )

    async def _check_bound(self, word: str, plural: str, namespace: str, reference: Claims) -> None:
        found = await self._lookup(
            "", plural, "" if word == "node" else namespace, str(reference.get("name", ""))
        )
        if found is None or _is_deleted(found):
            raise AuthenticationError(_INVALIDATED)
        present, claimed = found["metadata"]["uid"], reference.get("uid")
        if present != claimed:
            raise AuthenticationError(
                f"{word} UID ({present}) does not match service account {word} ref claim ({claimed})"
            )

    async def _legacy_user(self, token: str, claims: Claims) -> UserInfo:
        namespace = _named(claims, "namespace", "namespace")
        secret_name = _named(claims, "secret.name", "secretName")
        name = _named(claims, "service-account.name", "serviceAccountName")
        uid = _named(claims, "service-account.uid", "serviceAccountUID")
        if claims.get("sub") != user_name(namespace, name):
            raise AuthenticationError("sub claim is invalid")
        secret = await self._lookup("", "secrets", namespace, secret_name)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            raise AuthenticationError("Token has been invalidated")
        if not hmac.compare_digest(decoded(secret).get("token", "").encode(), token.encode()):
            raise AuthenticationError("Token does not match server's copy")
        await self._check_account(namespace, name, uid, "ServiceAccount")
        since = (secret["metadata"].get("labels") or {}).get(INVALID_SINCE)
        if since:
            raise AuthenticationError(
                f"the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been "
                "marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or "
                f"remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )
        return account_user(namespace, name, uid)


def _is_deleted(obj: Object) -> bool:
    """Whether its deletion has been due for longer than clocks may differ."""
    moment = obj["metadata"].get("deletionTimestamp")
    return bool(moment) and timestamps.parse(moment).timestamp() < time.time() - LEEWAY_SECONDS


def _mapping(claims: Claims, name: str) -> Claims:
    found: Any = claims.get(name)
    return found if isinstance(found, dict) else {}


def _named(claims: Claims, claim: str, told: str) -> str:
    value = claims.get(_LEGACY + claim)
    if not value or not isinstance(value, str):
        raise AuthenticationError(f"{told} claim is missing")
    return value
