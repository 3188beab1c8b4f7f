"""How many pods the owners of some pods want: ReplicaSets through their Deployments, all others by `scale`."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import dig, name, namespace, uid
from controlplane.meta.owners import controller_of
from controlplane.resources.catalog import DEPLOYMENT, REPLICA_SET, by_kind


class NoScale(Exception):
    """An owner's number of pods cannot be found out; the text says why, in upstream's words."""


class Scales:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._replica_sets = informers.of(REPLICA_SET)
        self._deployments = informers.of(DEPLOYMENT)

    async def synced(self) -> None:
        """Return once the owners are in the caches."""
        await self._replica_sets.synced()
        await self._deployments.synced()

    async def expected(self, pods: Sequence[Object]) -> tuple[int, list[Object]]:
        """The sum over all owners, and the pods without one. Raises NoScale, StatusError."""
        seen: set[str] = set()
        scales: dict[str, int] = {}
        unmanaged: list[Object] = []
        for pod in pods:
            controller = controller_of(pod)
            if controller is None:
                unmanaged.append(pod)
            elif controller["uid"] not in seen:
                seen.add(controller["uid"])
                found = await self._of(namespace(pod), controller)
                if found is None:
                    raise NoScale(f'found no controllers for pod "{name(pod)}"')
                owner, scale = found
                scales[owner] = scale
        return sum(scales.values()), unmanaged

    async def _of(self, space: str, controller: Object) -> tuple[str, int] | None:
        """The uid of the one who decides, and how many it wants."""
        if (controller.get("apiVersion"), controller.get("kind")) == (
            REPLICA_SET.api_version,
            REPLICA_SET.kind,
        ):
            return self._of_replica_set(space, controller)
        scale = await self._by_subresource(space, controller)
        return None if scale is None else (controller["uid"], scale)

    def _of_replica_set(self, space: str, controller: Object) -> tuple[str, int] | None:
        replica_set = self._replica_sets.get(space, controller["name"])
        if replica_set is None or uid(replica_set) != controller["uid"]:
            return None
        owner = controller_of(replica_set)
        if owner is not None and owner.get("kind") == DEPLOYMENT.kind:
            deployment = self._deployments.get(space, owner["name"])
            if deployment is None or uid(deployment) != owner["uid"]:
                return None
            return owner["uid"], dig(deployment, "spec", "replicas", default=0)
        return controller["uid"], dig(replica_set, "spec", "replicas", default=0)

    async def _by_subresource(self, space: str, controller: Object) -> int | None:
        version = str(controller.get("apiVersion", ""))
        resource = await self._resource(version, str(controller.get("kind", "")))
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        path = f"{root}/namespaces/{space}/{resource}/{controller['name']}/scale"
        try:
            scale = orjson.loads((await self._client.raw("GET", path)).body)
        except NotFound as error:
            if error.name:
                return None
            group = version.rpartition("/")[0]
            raise NoScale(
                f"{resource}{'.' if group else ''}{group} does not implement the scale subresource"
            ) from error
        if dig(scale, "metadata", "uid", default=controller["uid"]) != controller["uid"]:
            return None
        found: int = dig(scale, "spec", "replicas", default=0)
        return found

    async def _resource(self, version: str, kind: str) -> str:
        """The plural of a kind: of the built-in ones, or as the server serves it."""
        known = by_kind(version, kind)
        if known is not None:
            return known.plural
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        served = orjson.loads((await self._client.raw("GET", root)).body)
        for resource in served.get("resources") or ():
            if resource.get("kind") == kind and "/" not in resource["name"]:
                return str(resource["name"])
        raise NoScale(f'no matches for kind "{kind}" in version "{version}"')
