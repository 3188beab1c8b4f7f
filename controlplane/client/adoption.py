"""Which dependents a controller owns: adoption of matching orphans, release of those that match no longer.

Shared by the controllers that own objects through a selector (Deployment, ReplicaSet).
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.errors import NotFound, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import controller_of, owner_reference
from controlplane.resources.kind import Kind


class Adopter:
    """Claims objects of kind `child` for one owner of kind `owner_kind`.

    `owner` may come from a cache: before the first adoption it is read anew, and nothing is adopted when it
    is being deleted or was replaced by another object of the same name. Adopted objects get `finalizer`, if any.
    """

    def __init__(
        self,
        client: Client,
        owner_kind: Kind,
        owner: Object,
        selector: LabelSelector,
        child: Kind,
        finalizer: str = "",
    ) -> None:
        self._client = client
        self._owner_kind = owner_kind
        self._owner = owner
        self._selector = selector
        self._child = child
        self._finalizer = finalizer
        self._may_adopt: bool | None = None

    async def claim(self, candidates: Iterable[Object]) -> list[Object]:
        """The owner's objects among `candidates` (of its namespace), after adopting and releasing."""
        claimed = []
        for obj in candidates:
            mine = await self._claim_one(obj)
            if mine is not None:
                claimed.append(mine)
        return claimed

    async def _claim_one(self, obj: Object) -> Object | None:
        controller = controller_of(obj)
        matches = self._selector.matches(labels(obj))
        if controller is not None:
            if controller.get("uid") != uid(self._owner):
                return None
            if matches:
                return obj
            if not is_being_deleted(self._owner):
                await self._release(obj)
            return None
        if not matches or is_being_deleted(obj) or is_being_deleted(self._owner):
            return None
        return await self._adopt(obj)

    async def _adopt(self, obj: Object) -> Object | None:
        if self._may_adopt is None:
            self._may_adopt = await self._owner_stands()
        if not self._may_adopt:
            return None
        reference = owner_reference(self._owner_kind.api_version, self._owner_kind.kind, self._owner)
        try:
            return await self._set_owners(obj, [*_references(obj), reference], self._finalizer)
        except NotFound:
            return None

    async def _owner_stands(self) -> bool:
        fresh = await self._client.get(self._owner_kind, name(self._owner), namespace(self._owner))
        return uid(fresh) == uid(self._owner) and not is_being_deleted(fresh)

    async def _release(self, obj: Object) -> None:
        kept = [reference for reference in _references(obj) if reference.get("uid") != uid(self._owner)]
        try:
            await self._set_owners(obj, kept)
        except NotFound:
            return

    async def _set_owners(self, obj: Object, references: list[Object], finalizer: str = "") -> Object:
        """Write the list, unless the object has changed since it was cached (Conflict: the queue tries
        again).
        """
        metadata: Object = {
            "resourceVersion": obj["metadata"]["resourceVersion"],
            "ownerReferences": references or None,
        }
        finalizers = obj["metadata"].get("finalizers") or []
        if finalizer and finalizer not in finalizers:
            metadata["finalizers"] = [*finalizers, finalizer]
        patch = {"metadata": metadata}
        return await self._client.patch(self._child, name(obj), patch, namespace(obj))


def _references(obj: Object) -> list[Object]:
    return obj["metadata"].get("ownerReferences") or []
