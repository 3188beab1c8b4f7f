"""Lets claims and volumes go once nothing uses them: takes away the finalizers that admission gave them.

A claim is used as long as there is a pod with a node that mounts it, finished or not; a volume as long as it is
bound.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, name, namespace
from controlplane.resources.catalog import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
_BY_CLAIM = "claim"


def claims_of(pod: Object) -> Iterator[str]:
    """Names of the claims a pod mounts, those made for it included."""
    for volume in dig(pod, "spec", "volumes", default=()):
        claim = dig(volume, "persistentVolumeClaim", "claimName")
        if claim:
            yield str(claim)
        elif volume.get("ephemeral") is not None:
            yield f"{name(pod)}-{volume.get('name', '')}"


def _claim_keys(pod: Object) -> list[str]:
    if not dig(pod, "spec", "nodeName"):
        return []
    return [f"{namespace(pod)}/{claim}" for claim in claims_of(pod)]


class StorageProtectionController:
    """Keys are (namespace, name) of claims, and ("", name) of volumes. Two identities, as upstream has two
    controllers: `claims` may let claims go, `volumes` volumes."""

    def __init__(self, claims: Client, volumes: Client, informers: Informers) -> None:
        self._claim_client = claims
        self._volume_client = volumes
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIM)
        self._volumes = informers.of(PERSISTENT_VOLUME)
        self._pods = informers.of(POD)
        self._pods.index_by(_BY_CLAIM, _claim_keys)
        self._loop: Controller[NamespacedName] = Controller("storage-protection", self._reconcile)
        self._claims.on_change(self._storage_changed)
        self._volumes.on_change(self._storage_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._claims, self._volumes, self._pods)

    def _storage_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and is_being_deleted(new):
            self._loop.queue.add((namespace(new), name(new)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            for claim in claims_of(old):
                self._loop.queue.add((namespace(old), claim))

    async def _reconcile(self, key: NamespacedName) -> None:
        is_claim = bool(key[0])
        kind = PERSISTENT_VOLUME_CLAIM if is_claim else PERSISTENT_VOLUME
        finalizer = CLAIM_FINALIZER if is_claim else VOLUME_FINALIZER
        found = (self._claims if is_claim else self._volumes).get(*key)
        finalizers = dig(found, "metadata", "finalizers", default=())
        if found is None or not is_being_deleted(found) or finalizer not in finalizers:
            return
        if await self._is_used(key) if is_claim else dig(found, "status", "phase") == "Bound":
            return
        left = [other for other in finalizers if other != finalizer]
        client = self._claim_client if is_claim else self._volume_client
        await client.update(kind, {**found, "metadata": {**found["metadata"], "finalizers": left}})

    async def _is_used(self, key: NamespacedName) -> bool:
        claim = "/".join(key)
        if self._pods.lookup(_BY_CLAIM, claim):
            return True
        # The cache may not have the newest pod yet, and what is let go once is gone.
        newest = await self._claim_client.list(POD, key[0])
        return any(claim in _claim_keys(pod) for pod in newest.items)
