"""Keeps the ConfigMap `kube-root-ca.crt` in every namespace: pods verify the API server with it."""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.errors import AlreadyExists, Conflict, Forbidden, NotFound, Object
from controlplane.meta.objects import is_being_deleted, name, namespace
from controlplane.resources.catalog import CONFIG_MAP, NAMESPACE

NAME = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class RootCaController:
    """Keys are names of namespaces; `ca_pem` is the certificate, or the chain, to publish."""

    def __init__(self, client: Client, informers: Informers, ca_pem: str) -> None:
        self._client = client
        self._data = {"ca.crt": ca_pem}
        self._namespaces = informers.of(NAMESPACE)
        self._config_maps = informers.of(CONFIG_MAP)
        self._loop: Controller[str] = Controller("root-ca", self._reconcile)
        self._namespaces.on_change(self._namespace_changed)
        self._config_maps.on_change(self._config_map_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._namespaces, self._config_maps)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))

    def _config_map_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None and name(obj) == NAME:
            self._loop.queue.add(namespace(obj))

    async def _reconcile(self, key: str) -> None:
        found = self._namespaces.get("", key)
        if found is None or is_being_deleted(found):
            return
        current = self._config_maps.get(key, NAME)
        if current is not None:
            if current.get("data") != self._data:
                await self._client.update(CONFIG_MAP, {**current, "data": self._data})
            return
        wanted: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": key,
                "annotations": {"kubernetes.io/description": _DESCRIPTION},
            },
            "data": self._data,
        }
        try:
            await self._client.create(CONFIG_MAP, wanted)
        except AlreadyExists as error:
            raise Conflict(f"{error}; the cache lags behind") from error
        except NotFound:
            return
        except Forbidden as error:
            if not any(cause.reason == "NamespaceTerminating" for cause in error.causes):
                raise
