"""OpenID Connect: ID tokens of an issuer outside the cluster, whose claims say who it is.

The rules are those of `--oidc-*` and of one `jwt` entry of an AuthenticationConfiguration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from controlplane.apiserver.authn.credentials import CREDENTIAL_ID, AuthenticationError, Identity, shared
from controlplane.apiserver.authn.jwt import Claims, VerifiedTokens, audiences_of, unverified
from controlplane.apiserver.authn.key_source import KeySource
from controlplane.apiserver.authn.keys import VerifyingKey
from controlplane.apiserver.user import UserInfo

SIGNING_ALGORITHMS = (
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
)  # fmt: skip
_NOT_BEFORE_LEEWAY = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMapping:
    """Which claim becomes a name, and what is put before it."""

    claim: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRules:
    """What is asked of the tokens of one issuer, and what their claims mean."""

    url: str
    audiences: tuple[str, ...]
    username: ClaimMapping
    groups: ClaimMapping = ClaimMapping()
    uid_claim: str = ""
    required_claims: Mapping[str, str] = field(default_factory=dict)
    signing_algorithms: tuple[str, ...] = ("RS256",)


class OidcAuthenticator:
    """Tokens of the issuer that `rules` describe, verified by the keys of `source`."""

    def __init__(self, rules: IssuerRules, source: KeySource, api_audiences: tuple[str, ...] = ()) -> None:
        self._rules = rules
        self._source = source
        self._api_audiences = api_audiences
        self._tokens = VerifiedTokens()

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        told = unverified(token)
        if told is None or told[1].get("iss") != self._rules.url:
            return None
        meant = shared(audiences, self._api_audiences)
        if self._api_audiences and not meant:
            return None
        claims = await self._verified(token, told[0])
        self._check(claims)
        return Identity(self._user(claims), meant)

    async def _verified(self, token: str, header: Claims) -> Claims:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._rules.signing_algorithms:
            raise AuthenticationError(
                "oidc: verify token: oidc: id token signed with unsupported algorithm, expected "
                f"[{' '.join(self._rules.signing_algorithms)}] got {algorithm}"
            )
        # A token that was verified once stays so, but not longer than its key is among the issuer's.
        keys = await self._source.keys(kid if isinstance(kid, str) else "")
        try:
            return self._tokens.claims(token, [VerifyingKey(key.key_id, algorithm, key.key) for key in keys])
        except AuthenticationError as error:
            raise AuthenticationError(
                "oidc: verify token: failed to verify signature: failed to verify id token signature"
            ) from error

    def _check(self, claims: Claims) -> None:
        now = time.time()
        ends, begins = claims.get("exp"), claims.get("nbf")
        if isinstance(ends, bool) or not isinstance(ends, int | float) or ends < now:
            told = (
                datetime.fromtimestamp(ends, UTC)
                if isinstance(ends, int | float) and 0 < ends < 1e11
                else ends
            )
            raise AuthenticationError(f"oidc: verify token: oidc: token is expired (Token Expiry: {told})")
        if begins is not None and (not isinstance(begins, int | float) or begins > now + _NOT_BEFORE_LEEWAY):
            raise AuthenticationError(
                f"oidc: verify token: oidc: current time before the nbf (not before) time: {begins}"
            )
        got = audiences_of(claims)
        if not shared(got, self._rules.audiences):
            expected = " ".join(f'"{audience}"' for audience in self._rules.audiences)
            told_got = " ".join(f'"{audience}"' for audience in got)
            raise AuthenticationError(
                f"oidc: verify token: oidc: expected audience in [{expected}] got [{told_got}]"
            )
        for name, wanted in self._rules.required_claims.items():
            if name not in claims:
                raise AuthenticationError(f"oidc: required claim {name} not present in ID token")
            if claims[name] != wanted:
                raise AuthenticationError(
                    f"oidc: required claim {name} value does not match. Got = {claims[name]}, want = {wanted}"
                )

    def _user(self, claims: Claims) -> UserInfo:
        rules = self._rules
        username = _text(claims, rules.username.claim, "username")
        if rules.username.claim == "email" and "email_verified" in claims:
            if not isinstance(claims["email_verified"], bool):
                raise AuthenticationError("oidc: parse 'email_verified' claim: not a boolean")
            if not claims["email_verified"]:
                raise AuthenticationError("oidc: email not verified")
        uid = _text(claims, rules.uid_claim, "uid") if rules.uid_claim else ""
        token_id = claims.get("jti")
        extra = {CREDENTIAL_ID: (f"JTI={token_id}",)} if isinstance(token_id, str) and token_id else {}
        return UserInfo(rules.username.prefix + username, uid, self._groups(claims), extra)

    def _groups(self, claims: Claims) -> tuple[str, ...]:
        mapping = self._rules.groups
        found = claims.get(mapping.claim) if mapping.claim else None
        if found is None:
            return ()
        names: Sequence[object] = (
            [found] if isinstance(found, str) else found if isinstance(found, list) else [None]
        )
        if not all(isinstance(name, str) for name in names):
            raise AuthenticationError(
                f'oidc: parse groups claim "{mapping.claim}": not a text or a list of texts'
            )
        return tuple(f"{mapping.prefix}{name}" for name in names)


def _text(claims: Claims, claim: str, meaning: str) -> str:
    value = claims.get(claim)
    if claim not in claims:
        raise AuthenticationError(f'oidc: parse {meaning} claims "{claim}": claim not present')
    if not isinstance(value, str):
        raise AuthenticationError(f'oidc: parse {meaning} claims "{claim}": not a text')
    if not value:
        raise AuthenticationError(f'oidc: {meaning} claim "{claim}" is empty')
    return value
