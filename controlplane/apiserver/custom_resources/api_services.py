"""APIServices of the groups of custom resources: one for each version that some definition serves.

Called whenever what definitions serve has changed. Touches only APIServices that are marked as kept by the server;
those of built-in groups are planted at the start.
"""

from __future__ import annotations

from controlplane.apiserver.registry import LOOPBACK_USER, DeleteOptions, ListOptions, Registry, WriteOptions
from controlplane.errors import AlreadyExists, NotFound
from controlplane.resources.apiregistration import (
    API_SERVICE,
    AUTO_REGISTER_LABEL,
    CUSTOM_PRIORITY,
    local_api_service,
)

_WRITE = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)
_DELETE = DeleteOptions(user=LOOPBACK_USER)
_MANAGED = "true"


class ApiServices:
    """`sync` costs nothing while the set of versions stays the same."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: frozenset[str] | None = None

    async def sync(self) -> None:
        """Create what is missing, delete what nobody serves any more. Raises StatusErrors of the store."""
        if self._registry.kind_of(API_SERVICE.group, API_SERVICE.plural) is None:
            return
        own = {kind.api_version for kind in self._registry.kinds.built_in}
        served = frozenset(kind.api_version for kind in self._registry.kinds) - own
        if served == self._known:
            return
        present = await self._registry.list(API_SERVICE, "", ListOptions())
        wanted = {}
        for api_version in sorted(served):
            service = local_api_service(api_version, CUSTOM_PRIORITY, auto_managed=_MANAGED)
            wanted[service["metadata"]["name"]] = service
        for stored in present.items:
            metadata = stored.object["metadata"]
            if wanted.pop(metadata["name"], None) is None and _is_ours(metadata.get("labels") or {}):
                await self._delete(metadata["name"])
        for service in wanted.values():
            await self._create(service)
        self._known = served

    async def _create(self, service: dict[str, object]) -> None:
        try:
            await self._registry.create(API_SERVICE, "", service, _WRITE)
        except AlreadyExists:
            return

    async def _delete(self, name: str) -> None:
        try:
            await self._registry.delete(API_SERVICE, "", name, _DELETE)
        except NotFound:
            return


def _is_ours(labels: dict[str, str]) -> bool:
    return labels.get(AUTO_REGISTER_LABEL) == _MANAGED
