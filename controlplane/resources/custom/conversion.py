"""Custom resources between what is stored and what one version serves.

Stored objects may be of any version that once was the storage version. Reading prunes and defaults by the schema of
that version, converts, and prunes again; writing converts to the storage version. The conversion itself is handed in:
a change of apiVersion, or a webhook's answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.resources.custom.shaping import default, drop_nulls, prune
from controlplane.resources.custom.structural import Schema


class Converter(Protocol):
    async def convert(self, objs: Sequence[Object], api_version: str) -> Sequence[Object]:
        """New objects of that version, in the same order, none of which has it yet. Raises `kind.ConversionFault`."""


class RenameConverter:
    """Strategy None: another apiVersion, everything else as it is."""

    async def convert(self, objs: Sequence[Object], api_version: str) -> Sequence[Object]:
        return [{**obj, "apiVersion": api_version} for obj in objs]


class CustomConversion:
    """See `kind.Conversion`. `schemas` by apiVersion holds all versions of the definition, served or not."""

    def __init__(
        self, api_version: str, stored_version: str, schemas: Mapping[str, Schema], converter: Converter
    ) -> None:
        self._api_version = api_version
        self._stored_version = stored_version
        self._schemas = schemas
        self._converter = converter

    async def read(self, objs: Sequence[Object]) -> Sequence[Object]:
        current = [self._refreshed(obj) for obj in objs]
        foreign = [at for at, obj in enumerate(current) if obj["apiVersion"] != self._api_version]
        if foreign:
            converted = await self._convert([current[at] for at in foreign], self._api_version)
            for at, obj in zip(foreign, converted, strict=True):
                current[at] = obj
        return current

    async def write(self, obj: Object) -> Object:
        if self._api_version == self._stored_version:
            return obj
        return (await self._convert([obj], self._stored_version))[0]

    def _refreshed(self, obj: Object) -> Object:
        """The object as its own version's schema has it today; the same one when that changes nothing."""
        schema = self._schemas.get(obj["apiVersion"])
        if schema is None:
            return obj
        pruned = prune(obj, schema)
        if schema.has_defaults:
            pruned = clone(pruned)
            default(pruned, schema)
        drop_nulls(pruned, schema)
        return obj if pruned == obj else pruned

    async def _convert(self, objs: Sequence[Object], api_version: str) -> list[Object]:
        schema = self._schemas[api_version]
        return [prune(obj, schema) for obj in await self._converter.convert(objs, api_version)]
