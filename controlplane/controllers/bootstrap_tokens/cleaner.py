"""Deletes bootstrap tokens whose time is over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta import objects, timestamps
from controlplane.meta.token_secrets import BOOTSTRAP_TOKEN, decoded, is_expired
from controlplane.resources.catalog import SECRET

NAMESPACE = "kube-system"


class TokenCleaner:
    """Keys are names of Secrets in kube-system."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._secrets = informers.of(SECRET)
        self._loop: Controller[str] = Controller("tokencleaner", self._reconcile)
        self._secrets.on_change(self._changed)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._loop.run(self._secrets)
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new.get("type") == BOOTSTRAP_TOKEN and objects.namespace(new) == NAMESPACE:
            self._loop.queue.add(objects.name(new))

    async def _reconcile(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        secret = self._secrets.get(NAMESPACE, key)
        if secret is None or secret.get("type") != BOOTSTRAP_TOKEN:
            return
        data, now = decoded(secret), datetime.now(UTC)
        if is_expired(data, now):
            await self._client.delete(SECRET, key, NAMESPACE, uid=objects.uid(secret))
        elif data.get("expiration"):
            seconds = (timestamps.parse(data["expiration"]) - now).total_seconds()
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(min(seconds, 86_400.0), self._loop.queue.add, key)
