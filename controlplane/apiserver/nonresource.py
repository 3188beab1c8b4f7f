"""Paths that are no resources: discovery, OpenAPI, version, health. Called by the core."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson

from controlplane.apiserver.discovery import AGGREGATED_TYPE, Discovery
from controlplane.apiserver.messages import ApiRequest, ApiResponse, json_response, typed
from controlplane.apiserver.negotiation import aggregated_discovery
from controlplane.apiserver.options import Query
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.swagger import Swagger
from controlplane.errors import NotFound, StatusError
from controlplane.schema import openapi

log = logging.getLogger(__name__)

MINOR = "32"
GIT_VERSION = "v1.32.5+netkit"
TEXT = "text/plain; charset=utf-8"
HEALTH_PATHS = ("healthz", "livez", "readyz")
FOREVER = "public, max-age=31536000, immutable"
"""OpenAPI documents are asked for with their hash in the query: what is cached stays right."""

Page = Callable[[ApiRequest, Query], Awaitable[ApiResponse]]
"""Answers a GET of one further path, such as /metrics."""

HealthCheck = Callable[[], Awaitable[str]]
"""Empty text = healthy, else the reason (for the log; clients are not told)."""


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

    `checks` by name, in the order they are told; `documents` are fixed answers by path. `healthy` holds the last result
    of each check, by kind (`livez`) and name.
    """

    def __init__(
        self,
        kinds: ServedKinds,
        discovery: Discovery,
        checks: Mapping[str, HealthCheck],
        documents: Mapping[str, ApiResponse] | None = None,
    ) -> None:
        self._pages: dict[tuple[str, ...], Page] = {}
        self.healthy: dict[str, dict[str, bool]] = {}
        self._fixed = {
            tuple(path.strip("/").split("/")): answer for path, answer in (documents or {}).items()
        }
        self._kinds = kinds
        self._edition = 0
        self._discovery = discovery
        self._checks = dict(checks)
        self._openapi_index = b""
        self._swagger = Swagger(kinds)
        self._version = orjson.dumps(version())
        self._paths = [*(documents or ()), "/openapi/v2", "/openapi/v3", "/version"]
        self._paths += [
            f"/{path}{check}" for path in HEALTH_PATHS for check in ("", *(f"/{n}" for n in self._checks))
        ]

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
                return self._openapi(rest)
            case ("healthz" | "livez" | "readyz" as path, *names):
                return await self._health(path, names, query)
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
        if self._edition != self._kinds.edition:
            self._edition = self._kinds.edition
            self._openapi_index = orjson.dumps(openapi.index(self._kinds))
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

    def _openapi(self, rest: Sequence[str]) -> ApiResponse:
        match rest:
            case ["api", version_name]:
                group = ""
            case ["apis", group, version_name]:
                pass
            case _:
                raise NotFound("the server could not find the requested resource")
        if not any(kind.group == group and kind.version == version_name for kind in self._kinds):
            raise NotFound("the server could not find the requested resource")
        body = openapi.document(group, version_name, self._kinds)
        return ApiResponse(200, {"Content-Type": "application/json", "Cache-Control": FOREVER}, body)

    async def _health(self, path: str, names: Sequence[str], query: Query) -> ApiResponse:
        if len(names) > 1 or (names and names[0] not in self._checks):
            raise NotFound("the server could not find the requested resource")
        excluded = set() if names else set(query.all("exclude"))
        lines: list[str] = []
        failed: list[str] = []
        for name in names or self._checks:
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            reason = await self._check(name)
            self.healthy.setdefault(path, {})[name] = not reason
            if reason:
                failed.append(name)
                log.warning("%s: check %s failed: %s", path, name, reason)
            lines.append(f"[-]{name} failed: reason withheld" if reason else f"[+]{name} ok")
        if failed:
            return typed(500, "\n".join([*lines, f"{path} check failed\n"]).encode(), TEXT)
        if "verbose" in query:
            return typed(200, "\n".join([*lines, f"{path} check passed\n"]).encode(), TEXT)
        return typed(200, b"ok", TEXT)

    async def _check(self, name: str) -> str:
        try:
            return await self._checks[name]()
        except (StatusError, OSError) as error:
            return str(error)
