"""What the verbs of the registry share: storage, the served kinds, admission and the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.apiserver.admission.plugin import (
    AdmissionPlugin,
    AdmissionRequest,
    Operation,
    Remarks,
    ValidatingPlugin,
)
from controlplane.apiserver.registry.storage import Storage
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.resources.kind import Kind


@dataclass(frozen=True, slots=True)
class Context:
    """`clock` gives the present as aware datetime."""

    storage: Storage
    kinds: ServedKinds
    admission: Sequence[AdmissionPlugin]
    clock: Callable[[], datetime]
    validation: Sequence[ValidatingPlugin] = ()

    def kind_of(self, group: str, plural: str) -> Kind | None:
        return self.kinds.of_resource(group, plural)

    async def lookup(self, group: str, plural: str, namespace: str, name: str) -> Object | None:
        """Any object for admission, read-only; None when it or its kind does not exist."""
        kind = self.kind_of(group, plural)
        if kind is None:
            return None
        await self.storage.ready(kind)
        found = self.storage.cache(kind).get(namespace, name)
        if found is None:
            found = await self.storage.newest(kind, namespace, name)
        return found.object if found else None

    async def listing(self, group: str, plural: str, namespace: str) -> Sequence[Object]:
        """All objects of a kind for admission, read-only; none when the kind is not served."""
        kind = self.kind_of(group, plural)
        if kind is None:
            return ()
        await self.storage.ready(kind)
        cache = self.storage.cache(kind)
        if not cache.count(namespace):
            return ()
        return [stored.object for _, stored in cache.scan(namespace)]

    async def admit(self, request: AdmissionRequest) -> None:
        """Run all mutating plug-ins in order, twice when one asks for it; the first that refuses ends it."""
        for plugin in self.admission:
            await plugin.admit(request)
        if request.reinvocation.again:
            request.reinvocation.round += 1
            for plugin in self.admission:
                await plugin.admit(request)

    async def validate(self, request: AdmissionRequest) -> None:
        """Run all validating plug-ins in order; the first that refuses ends it."""
        for plugin in self.validation:
            await plugin.validate(request)

    def admission_request(
        self,
        operation: Operation,
        kind: Kind,
        namespace: str,
        name: str,
        obj: Object | None,
        old: Object | None,
        user: UserInfo,
        dry_run: bool,
        remarks: Remarks,
        subresource: str = "",
    ) -> AdmissionRequest:
        """What the plug-ins are shown of one write."""
        return AdmissionRequest(
            operation=operation,
            kind=kind,
            namespace=namespace,
            name=name,
            subresource=subresource,
            obj=obj,
            old=old,
            user=user,
            dry_run=dry_run,
            lookup=self.lookup,
            remarks=remarks,
            listing=self.listing,
        )
