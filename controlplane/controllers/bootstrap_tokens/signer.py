"""Signs the ConfigMap `kube-public/cluster-info` by bootstrap tokens, so that a new node can trust what it reads."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime

import orjson

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta import objects
from controlplane.meta.token_secrets import BOOTSTRAP_TOKEN, decoded, is_expired
from controlplane.resources.catalog import CONFIG_MAP, SECRET

_PREFIX = "jws-kubeconfig-"
_KEY = ("kube-public", "cluster-info")


class BootstrapSigner:
    """There is one key: the ConfigMap."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._secrets = informers.of(SECRET)
        self._config_maps = informers.of(CONFIG_MAP)
        self._loop: Controller[tuple[str, str]] = Controller("bootstrapsigner", self._reconcile, workers=1)
        self._secrets.on_change(self._secret_changed)
        self._config_maps.on_change(self._config_map_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._secrets, self._config_maps)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        secret = new or old
        if secret is not None and secret.get("type") == BOOTSTRAP_TOKEN:
            self._loop.queue.add(_KEY)

    def _config_map_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (objects.namespace(new), objects.name(new)) == _KEY:
            self._loop.queue.add(_KEY)

    async def _reconcile(self, key: tuple[str, str]) -> None:
        config_map = self._config_maps.get(*key)
        if config_map is None or "kubeconfig" not in (config_map.get("data") or {}):
            return
        data = {name: text for name, text in config_map["data"].items() if not name.startswith(_PREFIX)}
        for secret in self._secrets.items():
            token = _signing_token(secret)
            if token is not None:
                data[f"{_PREFIX}{token[0]}"] = detached_signature(data["kubeconfig"], *token)
        if data != config_map["data"]:
            await self._client.update(CONFIG_MAP, {**config_map, "data": data})


def _signing_token(secret: Object) -> tuple[str, str] | None:
    """Id and secret of a token that may sign, None for all other Secrets."""
    if secret.get("type") != BOOTSTRAP_TOKEN or objects.namespace(secret) != "kube-system":
        return None
    data = decoded(secret)
    if data.get("usage-bootstrap-signing") != "true" or is_expired(data, datetime.now(UTC)):
        return None
    if not data.get("token-id") or not data.get("token-secret"):
        return None
    return data["token-id"], data["token-secret"]


def detached_signature(content: str, token_id: str, token_secret: str) -> str:
    """A JSON Web Signature (HS256) of `content` without it: `header..signature`."""
    # PyJWT warns of keys as short as a bootstrap token's secret, whose length is given.
    header = _base64url(orjson.dumps({"alg": "HS256", "kid": token_id}))
    signed = f"{header}.{_base64url(content.encode())}".encode()
    return f"{header}..{_base64url(hmac.digest(token_secret.encode(), signed, 'sha256'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
