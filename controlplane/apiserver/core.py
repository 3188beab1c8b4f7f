"""The API server without any transport: one `ApiRequest` in, one `ApiResponse` out.

Called by the HTTP shell and, in the same process, by the in-process client. Authorizes, finds the handler, and turns
every failure into a Status.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from controlplane.apiserver.authz import Attributes, Authorizer, forbidden
from controlplane.apiserver.bodies import warning_header
from controlplane.apiserver.handlers import reads, subresources, writes
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.handlers.connect import Connector
from controlplane.apiserver.messages import ApiRequest, ApiResponse, error_response
from controlplane.apiserver.nonresource import NonResources
from controlplane.apiserver.options import Query
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.routing import RequestInfo, resolve, split
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.watching import FrameCache
from controlplane.errors import (
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    StatusError,
)
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

MAX_BODY = 3 * 1024 * 1024
"""Bytes a request's body may have."""

Handler = Callable[[Call], Awaitable[ApiResponse]]
SubresourceHandlers = Mapping[tuple[str, str, str], Mapping[str, Handler]]
"""(group, plural, subresource) -> verb -> handler. An empty subresource: objects that are made when asked for."""

_OBJECTS: Mapping[str, Handler] = {
    "create": writes.create,
    "delete": writes.delete,
    "deletecollection": writes.delete_collection,
    "get": reads.get,
    "list": reads.list_objects,
    "patch": writes.patch,
    "update": writes.update,
    "watch": reads.watch,
}
_STATUS: Mapping[str, Handler] = {"get": reads.get, "patch": writes.patch, "update": writes.update}
_SCALE: Mapping[str, Handler] = {
    "get": subresources.get_scale,
    "patch": subresources.patch_scale,
    "update": subresources.update_scale,
}
_COLLECTION_VERBS = frozenset({"deletecollection", "list", "watch"})
_NO_RESOURCE = "the server could not find the requested resource"
_NO_METHOD = "the server does not allow this method on the requested resource"


class Core:
    """Answers requests over `registry` for `kinds`, a live set."""

    def __init__(
        self,
        registry: Registry,
        kinds: ServedKinds,
        authorizer: Authorizer,
        non_resources: NonResources,
        subresources: SubresourceHandlers,
    ) -> None:
        self._registry = registry
        self._kinds = kinds
        self._authorizer = authorizer
        self._non_resources = non_resources
        self._frames = FrameCache()
        self._subresources = subresources

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """The answer; never raises but for cancellation."""
        try:
            return await self._answer(request)
        except StatusError as error:
            return error_response(error)
        except Exception:
            log.exception("%s %s: failed", request.method, request.path)
            return error_response(
                InternalError("an internal error occurred; the server's log has the details")
            )

    async def _answer(self, request: ApiRequest) -> ApiResponse:
        query = Query(request.query)
        info = resolve(request.method, request.path, watch=query.flag("watch"))
        attributes = Attributes(request.user, info)
        decision = await self._authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision)
        if len(request.body) > MAX_BODY:
            raise too_large()
        if not info.is_resource:
            return await self._non_resource(request, query)
        kind = self._kinds.find(info.group, info.version, info.resource)
        if kind is None or not _addressable(kind, info):
            raise NotFound(_NO_RESOURCE)
        handler = self._handler(kind, info)
        call = Call(request, info, kind, query, self._registry, self._frames, self._authorizer)
        response = await handler(call)
        return _deprecated(response, kind) if kind.deprecation else response

    async def _non_resource(self, request: ApiRequest, query: Query) -> ApiResponse:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_NO_METHOD)
        return await self._non_resources.answer(request, split(request.path), query)

    def _handler(self, kind: Kind, info: RequestInfo) -> Handler:
        """Raises NotFound for a subresource the kind does not have, MethodNotAllowed for a verb it does not take."""
        if not info.subresource:
            chosen = self._subresources.get((kind.group, kind.plural, ""), _OBJECTS)
            handlers: Mapping[str, Handler] | None = chosen if _takes(kind, info) else {}
        elif info.subresource == "status" and kind.status:
            handlers = _STATUS
        elif info.subresource == "scale" and kind.scale is not None:
            handlers = _SCALE
        else:
            handlers = self._subresources.get((kind.group, kind.plural, info.subresource))
        if handlers is None:
            raise NotFound(_NO_RESOURCE)
        handler = handlers.get(info.verb)
        if handler is None:
            raise MethodNotAllowed(_NO_METHOD, name=info.name, group=kind.group, kind=kind.plural)
        return handler


def _deprecated(response: ApiResponse, kind: Kind) -> ApiResponse:
    """The answer with a warning about the version, before those it has already."""
    told = response.headers.get("Warning", "")
    warning = warning_header([kind.deprecation])
    return replace(
        response, headers={**response.headers, "Warning": f"{warning}, {told}" if told else warning}
    )


def _takes(kind: Kind, info: RequestInfo) -> bool:
    """Whether the verb is served on a collection or on an object, whichever the path names."""
    if info.verb not in kind.verbs:
        return False
    if info.verb == "create":
        return not info.name and bool(info.namespace or not kind.namespaced)
    return bool(info.name) or info.verb in _COLLECTION_VERBS


def subresource_handlers(connector: Connector) -> SubresourceHandlers:
    """The handlers of all subresources but status and scale, which every kind has alike."""

    def streams(handler: Handler) -> Mapping[str, Handler]:
        return {"get": handler, "create": handler}

    def every(handler: Handler) -> Mapping[str, Handler]:
        return dict.fromkeys(("create", "delete", "get", "patch", "update", ""), handler)

    return {
        ("", "pods", "log"): {"get": connector.log},
        ("", "pods", "exec"): streams(connector.execute),
        ("", "pods", "attach"): streams(connector.attach),
        ("", "pods", "portforward"): streams(connector.port_forward),
        ("", "pods", "proxy"): every(connector.proxy_pod),
        ("", "pods", "binding"): {"create": subresources.bind},
        ("", "pods", "ephemeralcontainers"): _STATUS,
        ("", "pods", "eviction"): {"create": subresources.evict},
        ("", "services", "proxy"): every(connector.proxy_service),
        ("", "nodes", "proxy"): every(connector.proxy_node),
        ("", "namespaces", "finalize"): {"update": writes.update},
    }


def _addressable(kind: Kind, info: RequestInfo) -> bool:
    """Whether the path names the object the way its scope wants it."""
    if kind.namespaced:
        return bool(info.namespace) or not info.name
    return not info.namespace or (kind.group, kind.plural) == ("", "namespaces")


def too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"Request entity too large: limit is {MAX_BODY}")
