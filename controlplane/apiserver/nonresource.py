"""Paths that are no resources: discovery, OpenAPI, version, health. Called by the core."""

from __future__ import annotations

import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson

from controlplane.apiserver.aggregation import Aggregation
from controlplane.apiserver.discovery import AGGREGATED_TYPE, Discovery
from controlplane.apiserver.health import Health
from controlplane.apiserver.messages import ApiRequest, ApiResponse, json_response, typed
from controlplane.apiserver.negotiation import aggregated_discovery
from controlplane.apiserver.options import Query
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.swagger import Swagger
from controlplane.errors import NotFound
from controlplane.schema import openapi

MINOR = "32"
GIT_VERSION = "v1.32.5+netkit"
FOREVER = "public, max-age=31536000, immutable"
"""OpenAPI documents are asked for with their hash in the query: what is cached stays right."""

Page = Callable[[ApiRequest, Query], Awaitable[ApiResponse]]
"""Answers a GET of one further path, such as /metrics."""


def version() -> dict[str, str]:
    return {
        "major": "1",
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"{sys.implementation.name} {platform.python_version()}",
        "platform": f"linux/{_GO_MACHINES.get(platform.machine(), platform.machine())}",
    }


_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class NonResources:
    """Answers for everything outside /api/v1/... and /apis/G/V/...

    `documents` are fixed answers by path; `aggregation` knows what other servers serve.
    """

    def __init__(
        self,
        kinds: ServedKinds,
        discovery: Discovery,
        health: Health,
        documents: Mapping[str, ApiResponse] | None = None,
        aggregation: Aggregation | None = None,
    ) -> None:
        self._pages: dict[tuple[str, ...], Page] = {}
        self._health = health
        self._aggregation = aggregation
        self._fixed = {
            tuple(path.strip("/").split("/")): answer for path, answer in (documents or {}).items()
        }
        self._kinds = kinds
        self._edition = (0, 0)
        self._discovery = discovery
        self._openapi_index = b""
        self._swagger = Swagger(kinds)
        self._version = orjson.dumps(version(), option=orjson.OPT_INDENT_2)
        self._paths = [*(documents or ()), "/openapi/v2", "/openapi/v3", "/version"]
        self._paths += health.paths

    def add_pages(self, pages: Mapping[tuple[str, ...], Page]) -> None:
        """Answer further paths, named by their segments."""
        self._pages.update(pages)
        self._paths += ["/" + "/".join(segments) for segments in pages]

    async def answer(self, request: ApiRequest, segments: tuple[str, ...], query: Query) -> ApiResponse:
        """The answer to a GET of these path segments. Raises NotFound."""
        page = self._pages.get(segments)
        if page is not None:
            return await page(request, query)
        match segments:
            case ("version",):
                return typed(200, self._version)
            case ("api" | "apis" as root,):
                return self._root(root, request)
            case ("openapi", "v2"):
                return await self._swagger.answer(request.headers)
            case ("openapi", "v3"):
                return typed(200, self._index())
            case ("openapi", "v3", *rest):
                return await self._openapi(rest)
            case ("healthz" | "livez" | "readyz" as path, *names):
                return await self._health.answer(path, names, query)
            case ("",):
                return json_response(200, {"paths": sorted([*self._discovery.paths, *self._paths])})
        fixed = self._fixed.get(segments)
        if fixed is not None:
            return fixed
        document = self._discovery.document(segments)
        if document is None:
            raise NotFound("the server could not find the requested resource")
        return typed(200, document)

    def _index(self) -> bytes:
        remote = None if self._aggregation is None else self._aggregation.registrations
        edition = self._kinds.edition, 0 if remote is None else remote.edition
        if self._edition != edition:
            self._edition = edition
            index = openapi.index(self._kinds)
            for group, version in () if remote is None else remote.all():
                url = remote.served(group, version).openapi_url if remote is not None else ""
                if url:
                    index["paths"].setdefault(f"apis/{group}/{version}", {"serverRelativeURL": url})
            self._openapi_index = orjson.dumps(index)
        return self._openapi_index

    def _root(self, root: str, request: ApiRequest) -> ApiResponse:
        wanted = aggregated_discovery(request.headers.get("accept", ""))
        if wanted:
            content_type = AGGREGATED_TYPE.format(version=wanted)
            body = self._discovery.aggregated(root, wanted)
            headers = {"Content-Type": content_type, "Vary": "Accept"}
            return ApiResponse(200, headers, body)
        document = self._discovery.document((root,))
        return ApiResponse(200, {"Content-Type": "application/json", "Vary": "Accept"}, document or b"")

    async def _openapi(self, rest: Sequence[str]) -> ApiResponse:
        match rest:
            case ["api", version_name]:
                group = ""
            case ["apis", group, version_name]:
                pass
            case _:
                raise NotFound("the server could not find the requested resource")
        body: bytes | None = None
        if any(kind.group == group and kind.version == version_name for kind in self._kinds):
            body = openapi.document(group, version_name, self._kinds)
        elif self._aggregation is not None:
            body = await self._aggregation.openapi(group, version_name)
        if body is None:
            raise NotFound("the server could not find the requested resource")
        return ApiResponse(200, {"Content-Type": "application/json", "Cache-Control": FOREVER}, body)
