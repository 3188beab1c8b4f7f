"""What admission plug-ins may do to objects other than the request's: list them, and keep their own books.

The composition makes one `StoredObjects`, hands it to the plug-ins, and attaches it to the registry once that is
there (the registry wants its plug-ins first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from controlplane.apiserver.user import LOOPBACK_USER, UserInfo
from controlplane.errors import Object
from controlplane.resources.kind import Kind


class Access(Protocol):
    """The part of the registry that plug-ins use."""

    async def stored(self, kind: Kind, namespace: str) -> Sequence[Object]:
        """All objects of a kind in a namespace as last written, read-only."""

    async def store_status(self, kind: Kind, obj: Object, user: UserInfo) -> None:
        """Write an object's status if it still has its resourceVersion. Raises Conflict, NotFound."""


class StoredObjects:
    """See the module. Used before `attach` there is nothing, as in a cluster without objects."""

    def __init__(self) -> None:
        self._access: Access | None = None

    def attach(self, access: Access) -> None:
        self._access = access

    async def list(self, kind: Kind, namespace: str) -> Sequence[Object]:
        return () if self._access is None else await self._access.stored(kind, namespace)

    async def store_status(self, kind: Kind, obj: Object) -> None:
        """Raises Conflict when the object has changed since, NotFound."""
        if self._access is not None:
            await self._access.store_status(kind, obj, LOOPBACK_USER)
