"""Keeps the ServiceAccount `default` in every namespace; pods that name none run as it."""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.errors import AlreadyExists, Forbidden, NotFound, Object
from controlplane.meta.objects import is_being_deleted, name, namespace
from controlplane.resources.catalog import NAMESPACE, SERVICE_ACCOUNT

DEFAULT = "default"


class ServiceAccountController:
    """Keys are names of namespaces."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._namespaces = informers.of(NAMESPACE)
        self._accounts = informers.of(SERVICE_ACCOUNT)
        self._loop: Controller[str] = Controller("serviceaccount", self._reconcile)
        self._namespaces.on_change(self._namespace_changed)
        self._accounts.on_change(self._account_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._namespaces, self._accounts)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None and name(old) == DEFAULT:
            self._loop.queue.add(namespace(old))

    async def _reconcile(self, key: str) -> None:
        found = self._namespaces.get("", key)
        if found is None or is_being_deleted(found) or self._accounts.get(key, DEFAULT) is not None:
            return
        account: Object = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT, "namespace": key},
        }
        try:
            await self._client.create(SERVICE_ACCOUNT, account)
        except (AlreadyExists, NotFound):
            return
        except Forbidden as error:
            if not any(cause.reason == "NamespaceTerminating" for cause in error.causes):
                raise
