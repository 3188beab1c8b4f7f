"""Follows the CustomResourceDefinitions: gives names, serves kinds, and empties what is deleted.

One task handles all definitions in the order of their changes, so that names are given in that order. A kind is served
before its definition says Established; who waits for the condition finds the kind. Started by the composing code
between the registry and the server.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from controlplane.apiserver.custom_resources.api_services import ApiServices
from controlplane.apiserver.custom_resources.naming import settled_status
from controlplane.apiserver.registry import (
    LOOPBACK_USER,
    DeleteOptions,
    FrameType,
    ListOptions,
    Registry,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.webhook_client import WebhookClient
from controlplane.errors import Conflict, NotFound, Object, StatusError
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.resources.custom.definition import (
    CUSTOM_RESOURCE_DEFINITION,
    ESTABLISHED,
    FINALIZER,
    TERMINATING,
    condition,
)
from controlplane.resources.kind import Kind

if TYPE_CHECKING:
    from controlplane.resources.custom.conversion import Converter

log = logging.getLogger(__name__)

_WRITE = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)
_RETRY_SECONDS = (0.2, 30.0)


class CustomResources:
    """See the module. Changes the registry's set of served kinds."""

    def __init__(self, registry: Registry, webhooks: WebhookClient) -> None:
        self._registry = registry
        self._webhooks = webhooks
        self._api_services = ApiServices(registry)
        self._definitions: dict[str, Object] = {}
        self._served: dict[str, tuple[bytes, bytes]] = {}
        self._emptying: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve what is established already, then follow."""
        found = await self._registry.list(CUSTOM_RESOURCE_DEFINITION, "", ListOptions())
        for stored in found.items:
            definition = stored.object
            self._definitions[name(definition)] = definition
            if conditions.status_of(definition, ESTABLISHED) == "True":
                try:
                    await self._serve(definition)
                except Exception:
                    log.exception("%s: cannot be served", name(definition))
        self._task = asyncio.create_task(self._run(), name="custom resource definitions")

    async def close(self) -> None:
        tasks = [*self._emptying.values(), *([self._task] if self._task else ())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        delay = _RETRY_SECONDS[0]
        while True:
            try:
                await self._follow()
                delay = _RETRY_SECONDS[0]
            except StatusError as fault:
                log.warning("custom resource definitions: %s; again in %.1f s", fault, delay)
            except Exception:
                log.exception("custom resource definitions: failed; again in %.1f s", delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])

    async def _follow(self) -> None:
        """Handle every definition there is, and every change, until the watch ends."""
        present = await self._registry.list(CUSTOM_RESOURCE_DEFINITION, "", ListOptions())
        names = {name(stored.object) for stored in present.items}
        for gone in [each for each in self._definitions if each not in names]:
            await self._forget(gone)
        watch = self._registry.watch(CUSTOM_RESOURCE_DEFINITION, "", WatchOptions())
        try:
            async for frame in watch:
                if frame.stored is None:
                    continue
                definition = frame.stored.object
                if frame.type is FrameType.DELETED:
                    await self._forget(name(definition))
                else:
                    self._definitions[name(definition)] = definition
                    await self._try(definition)
        finally:
            await watch.aclose()

    async def _forget(self, key: str) -> None:
        """A definition is gone; others of its group may get names now."""
        definition = self._definitions.pop(key)
        self._served.pop(key, None)
        self._registry.kinds.replace(key, ())
        await self._registry.reload(_storage_kind(definition))
        await self._api_services.sync()
        for other in self._group(definition):
            await self._try(other)

    def _group(self, definition: Object) -> list[Object]:
        """The other definitions of the group."""
        group = definition["spec"]["group"]
        return [
            other
            for key, other in self._definitions.items()
            if other["spec"]["group"] == group and key != name(definition)
        ]

    async def _try(self, definition: Object) -> None:
        """A definition that cannot be served must not keep the others from it."""
        try:
            await self._handle(definition)
        except StatusError as fault:
            log.warning("%s: %s", name(definition), fault)
        except Exception:
            log.exception("%s: cannot be served", name(definition))

    async def _handle(self, definition: Object) -> None:
        status = settled_status(definition, self._group(definition))
        settled = {**definition, "status": status}
        if conditions.status_of(settled, ESTABLISHED) == "True":
            await self._serve(settled)
            await self._api_services.sync()
        if status != definition.get("status"):
            stored = await self._write(settled, "status")
            if stored is None:
                return
            names_before = dig(definition, "status", "acceptedNames")
            definition = self._definitions[name(definition)] = stored
            if names_before != status["acceptedNames"]:
                for other in self._group(definition):
                    if conditions.status_of(other, "NamesAccepted") == "False":
                        await self._try(other)
        if is_being_deleted(definition) and FINALIZER in (definition["metadata"].get("finalizers") or ()):
            self._begin_emptying(name(definition))

    async def _serve(self, definition: Object) -> None:
        """Serve exactly what the definition says now. A definition that is as it was costs nothing."""
        key = name(definition)
        terminating = conditions.status_of(definition, TERMINATING) == "True"
        spec = orjson.dumps(definition["spec"])
        state = spec, orjson.dumps([definition["status"]["acceptedNames"], terminating])
        before = self._served.get(key)
        if before == state:
            return
        from controlplane.resources.custom.kinds import kinds_of  # see `_storage_kind`

        kinds = kinds_of(definition, self._converter(definition), terminating=terminating)
        self._served[key] = state
        self._registry.kinds.replace(key, kinds)
        if before is not None and before[0] != spec:
            # What is cached was read by the old schemas, and may be converted by another webhook.
            await self._registry.reload(_storage_kind(definition))
        log.info("%s: served in %s", key, ", ".join(kind.version for kind in kinds) or "no version")

    def _converter(self, definition: Object) -> Converter:
        from controlplane.apiserver.custom_resources.webhook import WebhookConverter  # see `_storage_kind`
        from controlplane.resources.custom.conversion import RenameConverter

        conversion = definition["spec"].get("conversion") or {}
        if conversion.get("strategy") == "Webhook":
            return WebhookConverter(self._webhooks, conversion["webhook"])
        return RenameConverter()

    async def _write(self, definition: Object, subresource: str = "") -> Object | None:
        """The definition as stored; None when it has changed meanwhile, which will be told."""
        try:
            stored, _ = await self._registry.update(
                CUSTOM_RESOURCE_DEFINITION, "", name(definition), definition, _WRITE, subresource
            )
        except (Conflict, NotFound):
            return None
        return stored.object

    # deletion

    def _begin_emptying(self, key: str) -> None:
        if key not in self._emptying:
            task = asyncio.create_task(self._empty(key), name=f"deletion of {key}")
            self._emptying[key] = task
            task.add_done_callback(lambda _: self._emptying.pop(key, None))

    async def _empty(self, key: str) -> None:
        """Delete the instances, then let the definition go."""
        delay = _RETRY_SECONDS[0]
        while True:
            try:
                if await self._emptied(key):
                    return
            except NotFound:
                return
            except StatusError as fault:
                log.warning("%s: instances cannot be deleted: %s; again in %.1f s", key, fault, delay)
                await self._tell(key, "True", "InstanceDeletionFailed", f"could not list instances: {fault}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])

    async def _emptied(self, key: str) -> bool:
        definition = (await self._registry.get(CUSTOM_RESOURCE_DEFINITION, "", key)).object
        if conditions.status_of(definition, ESTABLISHED) == "True":
            text = "CustomResource deletion is in progress"
            await self._tell(key, "True", "InstanceDeletionInProgress", text)
            await self._delete_instances(_storage_kind(definition, self._converter(definition)))
            await self._tell(key, "False", "InstanceDeletionCompleted", "removed all instances")
        else:
            await self._tell(key, "False", "NeverEstablished", "resource was never established")
        definition = (await self._registry.get(CUSTOM_RESOURCE_DEFINITION, "", key)).object
        metadata = {**definition["metadata"]}
        metadata["finalizers"] = [each for each in metadata.get("finalizers") or () if each != FINALIZER]
        return await self._write({**definition, "metadata": metadata}) is not None

    async def _delete_instances(self, kind: Kind) -> None:
        """Ends when there are none; those with finalizers are waited for."""
        await self._registry.delete_collection(kind, "", ListOptions(), DeleteOptions(user=LOOPBACK_USER))
        while True:
            found = await self._registry.list(kind, "", ListOptions())
            if not found.items:
                return
            options = WatchOptions(resource_version=str(found.revision), timeout_seconds=60.0)
            watch = self._registry.watch(kind, "", options)
            try:
                async for frame in watch:
                    if frame.type is FrameType.DELETED:
                        break
            finally:
                await watch.aclose()

    async def _tell(self, key: str, status: str, reason: str, message: str) -> None:
        """Set the condition Terminating, unless it says that already."""
        while True:
            definition = (await self._registry.get(CUSTOM_RESOURCE_DEFINITION, "", key)).object
            present = conditions.of(definition, TERMINATING) or {}
            if (present.get("status"), present.get("reason"), present.get("message")) == (
                status,
                reason,
                message,
            ):
                return
            listed = conditions.with_condition(
                definition["status"].get("conditions"), condition(TERMINATING, status, reason, message)
            )
            with suppress(Conflict):
                changed = {**definition, "status": {**definition["status"], "conditions": listed}}
                await self._registry.update(CUSTOM_RESOURCE_DEFINITION, "", key, changed, _WRITE, "status")
                return


def _storage_kind(definition: Object, converter: Converter | None = None) -> Kind:
    """The stored version. Without a converter it only says where the objects are."""
    # Loaded by the first definition: clusters without any start without all that custom resources need.
    from controlplane.resources.custom.conversion import RenameConverter
    from controlplane.resources.custom.kinds import storage_kind

    return storage_kind(definition, converter or RenameConverter())
