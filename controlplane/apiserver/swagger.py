"""/openapi/v2: built in a thread when somebody asks, which only clients from before kubectl 1.29 do, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.schema import openapi_v2
from controlplane.schema.openapi_v2 import JSON_CONTENT_TYPE, PROTOBUF_CONTENT_TYPE, Documents

_PROTOBUF = "proto-openapi.spec.v2"


class Swagger:
    """The document of `kinds` as they are when it is asked for."""

    def __init__(self, kinds: ServedKinds) -> None:
        self._kinds = kinds
        self._built: tuple[int, Documents] | None = None
        self._lock = asyncio.Lock()

    async def answer(self, headers: Mapping[str, str]) -> ApiResponse:
        """In protobuf when `headers` (lower-case names) ask for that, else as JSON; 304 for who has it already."""
        documents = await self._documents()
        tag = f'"{documents.etag}"'
        shared = {"Etag": tag, "Vary": "Accept"}
        if headers.get("if-none-match") == tag:
            return ApiResponse(304, shared)
        if _PROTOBUF in headers.get("accept", ""):
            return ApiResponse(200, {**shared, "Content-Type": PROTOBUF_CONTENT_TYPE}, documents.protobuf)
        return ApiResponse(200, {**shared, "Content-Type": JSON_CONTENT_TYPE}, documents.json)

    async def _documents(self) -> Documents:
        async with self._lock:
            edition = self._kinds.edition
            if self._built is None or self._built[0] != edition:
                kinds = tuple(self._kinds)
                self._built = edition, await asyncio.to_thread(openapi_v2.build, kinds)
            return self._built[1]
