"""ServiceAccounts as users, and the tokens that say so. Pure.

The claims are those of Kubernetes 1.32: `kubernetes.io` holds namespace, account and the object the token is bound to.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.apiserver.authn import jwt
from controlplane.apiserver.authn.credentials import CREDENTIAL_ID
from controlplane.apiserver.authn.keys import SigningKey
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object

LEGACY_ISSUER = "kubernetes/serviceaccount"
ALL_ACCOUNTS = "system:serviceaccounts"
_EXTRA = "authentication.kubernetes.io/"


def user_name(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def account_user(
    namespace: str,
    name: str,
    uid: str,
    *,
    token_id: str = "",
    pod: Object | None = None,
    node: Object | None = None,
) -> UserInfo:
    """The user an account is. `pod` and `node` are the references of the token's claims."""
    extra: dict[str, tuple[str, ...]] = {}
    if token_id:
        extra[CREDENTIAL_ID] = (f"JTI={token_id}",)
    for word, reference in (("pod", pod), ("node", node)):
        if reference and reference.get("name"):
            extra[f"{_EXTRA}{word}-name"] = (reference["name"],)
            if reference.get("uid"):
                extra[f"{_EXTRA}{word}-uid"] = (reference["uid"],)
    return UserInfo(user_name(namespace, name), uid, (ALL_ACCOUNTS, f"{ALL_ACCOUNTS}:{namespace}"), extra)


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs tokens as `issuer` with `key`. `audiences` are the API server's own; times in seconds.

    `max_expiration` 0 = no limit. `extend_expiration`: a pod's token for the API server that was asked for the usual
    3607 seconds is good for a year, since old clients never read it again; `warnafter` tells the time asked for.
    """

    issuer: str
    key: SigningKey
    audiences: tuple[str, ...]
    max_expiration: int = 0
    extend_expiration: bool = True

    def bound(
        self,
        account: Object,
        audiences: Sequence[str],
        now: int,
        seconds: int,
        *,
        pod: Object | None = None,
        node: Object | None = None,
        secret: Object | None = None,
        warn_after: int = 0,
    ) -> str:
        """A token of `account` for `audiences`, good from `now` (since the epoch) for `seconds`."""
        metadata = account["metadata"]
        private: Object = {"namespace": metadata["namespace"]}
        for word, obj in (("node", node), ("pod", pod), ("secret", secret)):
            if obj is not None:
                private[word] = _reference(obj)
        private["serviceaccount"] = _reference(account)
        if warn_after:
            private["warnafter"] = now + warn_after
        claims = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "nbf": now,
            "sub": user_name(metadata["namespace"], metadata["name"]),
        }
        return jwt.sign(claims, self.key)


def legacy_token(account: Object, secret: Object, key: SigningKey) -> str:
    """The token of a Secret of type `kubernetes.io/service-account-token`, which never ends."""
    metadata, prefix = account["metadata"], "kubernetes.io/serviceaccount/"
    claims = {
        "iss": LEGACY_ISSUER,
        f"{prefix}namespace": metadata["namespace"],
        f"{prefix}secret.name": secret["metadata"]["name"],
        f"{prefix}service-account.name": metadata["name"],
        f"{prefix}service-account.uid": metadata["uid"],
        "sub": user_name(metadata["namespace"], metadata["name"]),
    }
    return jwt.sign(claims, key)


def _reference(obj: Object) -> Object:
    metadata = obj["metadata"]
    found = {"name": metadata["name"]}
    if metadata.get("uid"):
        found["uid"] = metadata["uid"]
    return found
