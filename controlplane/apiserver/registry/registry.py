"""The door of the API machinery: one method per verb over all kinds.

The HTTP layer, the in-process client and the bootstrap call it. It holds the store, the watch caches,
the admission chain and the allocators; the rules of each verb live beside it (`creation.py`, `updating.py`, ...).
It must not know HTTP, selectors' syntax or printing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.apiserver.admission.plugin import AdmissionPlugin, Operation, Remarks, ValidatingPlugin
from controlplane.apiserver.allocation.allocator import Allocator
from controlplane.apiserver.registry import binding as pod_binding
from controlplane.apiserver.registry.applying import Permission, apply
from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.creation import create
from controlplane.apiserver.registry.deletion import delete, delete_collection
from controlplane.apiserver.registry.deletion_rules import is_finalized_by_content
from controlplane.apiserver.registry.eviction import evict
from controlplane.apiserver.registry.expiry import Expiry
from controlplane.apiserver.registry.listing import get_object, list_objects
from controlplane.apiserver.registry.patching import Check, patched
from controlplane.apiserver.registry.planting import Seed, plant
from controlplane.apiserver.registry.requests import (
    DeleteOptions,
    ListOptions,
    ListResult,
    PatchType,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.registry.rescaling import apply_scale, rescale
from controlplane.apiserver.registry.scaling import stored_scale
from controlplane.apiserver.registry.storage import Storage
from controlplane.apiserver.registry.updating import Scope, Target, modify, replacement
from controlplane.apiserver.registry.watching import ObjectWatch
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Cause, NotFound, Object, invalid, qualified
from controlplane.meta.timestamps import utc_now
from controlplane.resources.kind import Kind
from controlplane.store.cache import WatchCache
from controlplane.store.compaction import Compactor
from controlplane.store.events import Stored
from controlplane.store.protocol import Store

LIFETIMES: Mapping[tuple[str, str], float] = {("", "events"): 3600.0}
"""Group and plural of kinds whose objects go when nobody has written them for so many seconds."""


class Registry:
    """See the module. `kinds` are all served kinds, a live set or a fixed one.

    `admission` and then `validation` run in order on each write. `lifetimes`: see LIFETIMES; 0 = for ever.
    """

    def __init__(
        self,
        store: Store,
        kinds: ServedKinds | Sequence[Kind],
        *,
        admission: Sequence[AdmissionPlugin] = (),
        validation: Sequence[ValidatingPlugin] = (),
        allocators: Sequence[Allocator] = (),
        lifetimes: Mapping[tuple[str, str], float] = LIFETIMES,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.kinds = ServedKinds.of(kinds)
        self._storage = Storage(store, self.kinds, allocators)
        self._context = Context(self._storage, self.kinds, tuple(admission), clock, tuple(validation))
        self._compactor = Compactor(store)
        self._lifetimes = lifetimes
        self._upkeep: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Rebuild the allocators from what is stored, begin compacting old history. Caches fill when asked for."""
        await self._storage.start()
        self._upkeep.append(asyncio.create_task(self._compactor.run(), name="compaction of the store"))
        for (group, plural), seconds in self._lifetimes.items():
            kind = self.kind_of(group, plural)
            if kind is not None and seconds > 0:
                expiry = Expiry(self._storage, kind, seconds, self._context.clock)
                self._upkeep.append(asyncio.create_task(expiry.run(), name=f"expiry of {plural}"))

    async def close(self) -> None:
        """End all watches and the background work. The store stays open: it belongs to the caller."""
        for task in self._upkeep:
            task.cancel()
        if self._upkeep:
            await asyncio.wait(self._upkeep)
        self._upkeep.clear()
        await self._storage.close()

    async def create(self, kind: Kind, namespace: str, obj: Object, opts: WriteOptions) -> Stored:
        """Store a new object. `namespace` is the URL's ("" for cluster scope). Takes ownership of `obj`."""
        await self._storage.ready(kind)
        return await create(self._context, kind, namespace, obj, opts)

    async def plant(self, seeds: Iterable[Seed]) -> int:
        """Make sure of the server's own objects, in one commit; returns how many were written."""
        return await plant(self._context, seeds)

    async def cache(self, kind: Kind) -> WatchCache:
        """The kind's watch cache, for parts of the server that decide by its objects. Read only."""
        await self._storage.ready(kind)
        return self._storage.cache(kind)

    def present_cache(self, kind: Kind) -> WatchCache:
        """The same once it has been there, without waiting; broken perhaps."""
        return self._storage.cache(kind)

    async def get(self, kind: Kind, namespace: str, name: str, resource_version: str = "") -> Stored:
        """The object, or NotFound. `resource_version` "" = newest, "0" = as cached, N = at least N."""
        await self._storage.ready(kind)
        return await get_object(self._context, kind, namespace, name, resource_version)

    async def get_scale(self, kind: Kind, namespace: str, name: str) -> Stored:
        """The object's autoscaling/v1 Scale."""
        return stored_scale(kind, await self.get(kind, namespace, name))

    async def list(self, kind: Kind, namespace: str, opts: ListOptions) -> ListResult:
        """Objects in key order at one revision. An empty `namespace` lists all of them."""
        await self._storage.ready(kind)
        return await list_objects(self._context, kind, namespace, opts)

    async def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        obj: Object,
        opts: WriteOptions,
        subresource: str = "",
        may_create: Permission | None = None,
    ) -> tuple[Stored, bool]:
        """Replace. `subresource`: "", "status", "scale" (body and answer are a Scale), "finalize".

        Returns the object and whether it was created (kinds with create_on_update), for which `may_create` is asked
        first. Takes ownership of `obj`.
        """
        await self._storage.ready(kind)
        if subresource == "scale":
            scale = await rescale(self._context, kind, namespace, name, lambda _: {**obj}, opts)
            return scale, False
        target = _target(kind, namespace, name, subresource)
        _check_name(obj, name)
        try:
            return await modify(self._context, target, replacement(obj), opts), False
        except NotFound:
            if not kind.create_on_update or subresource or obj["metadata"].get("resourceVersion"):
                raise
        if may_create is not None:
            await may_create()
        return await self.create(kind, namespace, obj, opts), True

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch_type: PatchType,
        patch: Any,
        opts: WriteOptions,
        subresource: str = "",
        check: Check | None = None,
    ) -> Stored:
        """Apply a parsed patch (a list for JSON patches, else a dict) to the newest state.

        After a lost race it is applied again. `check` sees each patched object before it is stored and returns
        it, pruned perhaps, or raises: the HTTP layer's validation of fields.
        """
        await self._storage.ready(kind)
        if subresource == "scale":

            def propose_scale(scale: Object) -> Object:
                return patched(scale, patch_type, patch, check, "autoscaling/v1", "Scale")

            return await rescale(self._context, kind, namespace, name, propose_scale, opts)

        def propose(current: Object) -> Object:
            result = patched(current, patch_type, patch, check, kind.api_version, kind.kind)
            _check_name(result, name)
            return result

        return await modify(self._context, _target(kind, namespace, name, subresource), propose, opts)

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        applied: Object,
        opts: WriteOptions,
        subresource: str = "",
        *,
        force: bool = False,
        check: Check | None = None,
        may_create: Permission | None = None,
    ) -> tuple[Stored, bool]:
        """Server-side apply of a parsed object. Returns what is stored and whether it was created by this.

        `check` is as for `patch`; `may_create` is asked before an object is created and raises what forbids it.
        """
        await self._storage.ready(kind)
        if subresource == "scale":
            scale = await apply_scale(self._context, kind, namespace, name, applied, opts, force, check)
            return scale, False
        target = _target(kind, namespace, name, subresource)
        return await apply(self._context, target, applied, opts, force, check, may_create)

    async def delete(self, kind: Kind, namespace: str, name: str, opts: DeleteOptions) -> tuple[Stored, bool]:
        """Delete or begin to. Returns the last state and whether it is gone at once (False: pending)."""
        await self._storage.ready(kind)
        return await delete(self._context, kind, namespace, name, opts)

    async def delete_collection(
        self, kind: Kind, namespace: str, opts: ListOptions, delete_options: DeleteOptions
    ) -> Sequence[Stored]:
        """Delete all that `opts` selects; returns their last states. Objects gone meanwhile are skipped."""
        await self._storage.ready(kind)
        return await delete_collection(self._context, kind, namespace, opts, delete_options)

    async def bind(self, namespace: str, name: str, binding: Object, opts: WriteOptions) -> None:
        """`pods/NAME/binding`: set spec.nodeName once; Conflict when the pod is assigned already."""
        pods = self.kind_of("", "pods")
        if pods is None:
            raise _no_such_resource()
        await self._storage.ready(pods)
        node = pod_binding.node_of(binding, name)
        clock = self._context.clock
        target = Target(pods, namespace, name, Scope.BINDING, "binding")
        await modify(self._context, target, lambda pod: pod_binding.bound(pod, binding, node, clock()), opts)

    async def lookup(self, group: str, plural: str, namespace: str, name: str) -> Object | None:
        """An object for the server's own decisions, read-only; None when it or its kind does not exist."""
        return await self._context.lookup(group, plural, namespace, name)

    async def evict(self, namespace: str, name: str, opts: DeleteOptions) -> None:
        """`pods/NAME/eviction`: delete the pod if its disruption budget allows it."""
        await self._storage.ready(_served(self, "", "pods"))
        await evict(self._context, namespace, name, opts)

    async def stored(self, kind: Kind, namespace: str) -> Sequence[Object]:
        """For admission: all objects of a namespace as last written, read-only."""
        await self._storage.ready(kind)
        return [stored.object for _, stored in self._storage.cache(kind).scan(namespace)]

    async def store_status(self, kind: Kind, obj: Object, user: UserInfo) -> None:
        """For admission: write a status if the object still has its resourceVersion. Raises Conflict, NotFound."""
        metadata = obj["metadata"]
        target = Target(kind, metadata.get("namespace", ""), metadata["name"], Scope.STATUS, "status")
        await self._storage.ready(kind)
        await modify(self._context, target, replacement(obj), WriteOptions(user=user))

    async def admit(
        self,
        operation: Operation,
        kind: Kind,
        namespace: str,
        name: str,
        subresource: str,
        body_kind: tuple[str, str, str],
        body: Object,
        user: UserInfo,
        *,
        dry_run: bool = False,
        remarks: Remarks | None = None,
        check: Callable[[], Sequence[Cause]] | None = None,
    ) -> None:
        """Ask admission about a subresource that is no write of its object: a binding, an eviction, a connection.

        `body_kind` is group, version and kind of `body`, which mutating plug-ins may edit in place. `check` validates
        it between the mutating and the validating plug-ins. Raises Invalid and what admission says.
        """
        request = self._context.admission_request(
            operation, kind, namespace, name, body, None, user, dry_run, remarks or Remarks(), subresource
        )
        request.body_kind = body_kind
        await self._context.admit(request)
        causes = check() if check is not None else ()
        if causes:
            raise invalid(body_kind[2], body_kind[0], "", causes)
        await self._context.validate(request)

    def watch(self, kind: Kind, namespace: str, opts: WatchOptions) -> ObjectWatch:
        """Frames until the timeout or the registry's end. Raises StatusErrors (Expired, ...) from a step.

        Close the iterator (`aclose`) when the client is gone.
        """
        return ObjectWatch(self._context, kind, namespace, opts)

    def kind_of(self, group: str, plural: str) -> Kind | None:
        """The served kind of that resource (its preferred version)."""
        return self._context.kind_of(group, plural)

    async def reload(self, kind: Kind) -> None:
        """Forget what is cached of a kind in any version: how its objects are read has changed. Its watches end."""
        await self._storage.drop(kind.prefix)

    def count(self, kind: Kind, namespace: str = "") -> int:
        """How many objects of `kind` are known now, in one namespace or in all; 0 for a kind nobody has asked for."""
        return self._storage.count(kind, namespace)

    def counts(self) -> dict[str, int]:
        """How many objects are known of each kind, by resource (`pods`, `deployments.apps`)."""
        return {qualified(kind.plural, kind.group): self.count(kind) for kind in self.kinds}

    async def revision(self) -> int:
        """The store's newest revision."""
        return await self._storage.revision()


def _served(registry: Registry, group: str, plural: str) -> Kind:
    kind = registry.kind_of(group, plural)
    if kind is None:
        raise _no_such_resource()
    return kind


def _target(kind: Kind, namespace: str, name: str, subresource: str) -> Target:
    if subresource in kind.parts:
        return Target(kind, namespace, name, Scope.PART, subresource)
    served = (
        subresource == ""
        or (subresource == "status" and kind.status)
        or (subresource == "finalize" and is_finalized_by_content(kind))
    )
    if not served:
        raise _no_such_resource()
    return Target(kind, namespace, name, Scope(subresource), subresource)


def _check_name(obj: Object, name: str) -> None:
    metadata = obj.get("metadata")
    given = metadata.get("name") if isinstance(metadata, dict) else None
    if not given:
        raise BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if given != name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")


def _no_such_resource() -> NotFound:
    return NotFound("the server could not find the requested resource")
