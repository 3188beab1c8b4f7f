"""Fills Secrets of type `kubernetes.io/service-account-token`, and deletes them when their account is gone."""

from __future__ import annotations

import base64
from collections.abc import Callable

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.errors import NotFound, Object
from controlplane.meta import objects
from controlplane.resources.catalog import SECRET, SERVICE_ACCOUNT

TYPE = "kubernetes.io/service-account-token"
NAME_ANNOTATION = "kubernetes.io/service-account.name"
UID_ANNOTATION = "kubernetes.io/service-account.uid"

Sign = Callable[[Object, Object], str]
"""The token of a ServiceAccount in a Secret."""


class ServiceAccountTokenController:
    """Keys are namespace and name of a Secret. `ca_pem` is what pods verify the API server by."""

    def __init__(self, client: Client, informers: Informers, sign: Sign, ca_pem: str) -> None:
        self._client = client
        self._sign = sign
        self._ca = base64.b64encode(ca_pem.encode()).decode()
        self._secrets = informers.of(SECRET)
        self._accounts = informers.of(SERVICE_ACCOUNT)
        self._loop: Controller[NamespacedName] = Controller("serviceaccount-token", self._reconcile)
        self._secrets.on_change(self._secret_changed)
        self._accounts.on_change(self._account_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._secrets, self._accounts)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new.get("type") == TYPE:
            self._loop.queue.add((objects.namespace(new), objects.name(new)))

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        account = new or old
        if account is None:
            return
        for secret in self._secrets.items():
            if (
                secret.get("type") == TYPE
                and objects.namespace(secret) == objects.namespace(account)
                and objects.annotations(secret).get(NAME_ANNOTATION) == objects.name(account)
            ):
                self._loop.queue.add((objects.namespace(secret), objects.name(secret)))

    async def _reconcile(self, key: NamespacedName) -> None:
        secret = self._secrets.get(*key)
        if secret is None or secret.get("type") != TYPE or objects.is_being_deleted(secret):
            return
        account = await self._account(secret)
        if account is None:
            await self._client.delete(SECRET, key[1], key[0], uid=objects.uid(secret))
            return
        wanted = self._filled(secret, account)
        if wanted != secret:
            await self._client.update(SECRET, wanted)

    async def _account(self, secret: Object) -> Object | None:
        """The Secret's account, asked of the server before one is taken for gone."""
        notes = objects.annotations(secret)
        account_name, wanted = notes.get(NAME_ANNOTATION, ""), notes.get(UID_ANNOTATION)
        account = self._accounts.get(objects.namespace(secret), account_name)
        if account is None:
            try:
                account = await self._client.get(SERVICE_ACCOUNT, account_name, objects.namespace(secret))
            except NotFound:
                return None
        return account if not wanted or wanted == objects.uid(account) else None

    def _filled(self, secret: Object, account: Object) -> Object:
        data = {**(secret.get("data") or {})}
        data["ca.crt"] = self._ca
        data["namespace"] = base64.b64encode(objects.namespace(secret).encode()).decode()
        if not data.get("token"):
            token = self._sign(account, secret)
            data["token"] = base64.b64encode(token.encode()).decode()
        notes = {**objects.annotations(secret), UID_ANNOTATION: objects.uid(account)}
        return {**secret, "metadata": {**secret["metadata"], "annotations": notes}, "data": data}
