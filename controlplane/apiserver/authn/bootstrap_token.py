"""Bootstrap tokens: Secrets in kube-system by which a new node introduces itself."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from controlplane.apiserver.authn.credentials import Identity, shared
from controlplane.apiserver.authn.objects import Lookup
from controlplane.apiserver.user import UserInfo
from controlplane.meta.token_secrets import BOOTSTRAP_TOKEN, decoded, is_expired

DEFAULT_GROUP = "system:bootstrappers"
TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})").fullmatch
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]").fullmatch


class BootstrapTokenAuthenticator:
    """Tokens `<id>.<secret>` of the Secrets `bootstrap-token-<id>`."""

    def __init__(self, lookup: Lookup, api_audiences: tuple[str, ...] = ()) -> None:
        self._lookup = lookup
        self._api_audiences = api_audiences

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        parts = TOKEN(token)
        if parts is None:
            return None
        token_id, token_secret = parts.groups()
        secret = await self._lookup("", "secrets", "kube-system", f"bootstrap-token-{token_id}")
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            return None
        data = decoded(secret)
        if (
            secret.get("type") != BOOTSTRAP_TOKEN
            or data.get("token-id") != token_id
            or not hmac.compare_digest(data.get("token-secret", "").encode(), token_secret.encode())
            or data.get("usage-bootstrap-authentication") != "true"
            or is_expired(data, datetime.now(UTC))
        ):
            return None
        groups = groups_of(data)
        meant = shared(audiences, self._api_audiences)
        if groups is None or (self._api_audiences and not meant):
            return None
        return Identity(UserInfo(f"system:bootstrap:{token_id}", groups=groups), meant)


def groups_of(data: Mapping[str, str]) -> tuple[str, ...] | None:
    """The groups the token's user is in, sorted; None when it names one that bootstrap tokens may not have."""
    extra = {group.strip() for group in data.get("auth-extra-groups", "").split(",") if group.strip()}
    if not all(_GROUP(group) for group in extra):
        return None
    return tuple(sorted({DEFAULT_GROUP, *extra}))
