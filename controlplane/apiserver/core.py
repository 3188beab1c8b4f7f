"""The API server without any transport: one `ApiRequest` in, one `ApiResponse` out.

Called by the HTTP shell and, in the same process, by the in-process client. Waits for a place, authorizes, finds the
handler, keeps to the deadline, and turns every failure into a Status. Observers see each request come and go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from controlplane.apiserver import deadline
from controlplane.apiserver.aggregation import Aggregation
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.service_account import TokenIssuer
from controlplane.apiserver.authz import Attributes, Authorizer, forbidden
from controlplane.apiserver.authz.chain import as_chain
from controlplane.apiserver.authz.selectors import attributes_of
from controlplane.apiserver.bodies import warning_header
from controlplane.apiserver.flowcontrol.gate import Gate, OpenGate
from controlplane.apiserver.handlers import reads, reviews, subresources, writes
from controlplane.apiserver.handlers.access_reviews import AccessReviews
from controlplane.apiserver.handlers.authentication_reviews import TokenReviews, review_self
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.handlers.connect import Connector
from controlplane.apiserver.handlers.token_request import TokenRequests
from controlplane.apiserver.messages import ApiRequest, ApiResponse, error_response
from controlplane.apiserver.nonresource import NonResources
from controlplane.apiserver.passage import Observer, Passage, begin, observed
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.routing import RequestInfo, split
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
    """Answers requests over `registry` for `kinds`, a live set. `gate` says when a request's turn is."""

    def __init__(
        self,
        registry: Registry,
        kinds: ServedKinds,
        authorizer: Authorizer,
        non_resources: NonResources,
        subresources: SubresourceHandlers,
        reviewers: reviews.ReviewHandlers | None = None,
        *,
        gate: Gate | None = None,
        observers: Sequence[Observer] = (),
        request_timeout: float = deadline.DEFAULT_SECONDS,
        aggregation: Aggregation | None = None,
    ) -> None:
        self._aggregation = aggregation
        self._gate = gate or OpenGate()
        self._observers = tuple(observers)
        self._deadlines = deadline.Deadlines(request_timeout)
        self._reviews: dict[tuple[str, str], Mapping[str, Handler]] = {
            key: {"create": reviews.handler(answer)} for key, answer in (reviewers or {}).items()
        }
        self._registry = registry
        self._kinds = kinds
        self._authorizer = authorizer
        self._non_resources = non_resources
        self.frames = FrameCache()
        self._subresources = subresources

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """The answer; never raises but for cancellation."""
        passage = begin(request)
        for observer in self._observers:
            observer.received(passage)
        try:
            response = await self._guarded(passage)
        except BaseException:
            passage.leave_seat()
            raise
        return observed(passage, response, self._observers)

    def refuse(self, request: ApiRequest, error: StatusError) -> ApiResponse:
        """The answer to a request that gets no further, told to the observers as any other."""
        passage = begin(request)
        for observer in self._observers:
            observer.received(passage)
        return observed(passage, error_response(error), self._observers)

    async def _guarded(self, passage: Passage) -> ApiResponse:
        request = passage.request
        try:
            if passage.fault is not None:
                raise passage.fault
            return await self._in_time(passage)
        except StatusError as error:
            return error_response(error)
        except Exception as error:
            log.exception("%s %s: failed", request.method, request.path)
            passage.panic = str(error) or type(error).__name__
            return error_response(
                InternalError("an internal error occurred; the server's log has the details")
            )

    async def _in_time(self, passage: Passage) -> ApiResponse:
        """The answer before the deadline; what goes on for as long as the client wants has none."""
        if passage.is_long_running:
            return await self._in_turn(passage)
        seconds = deadline.seconds(passage.query, self._deadlines.limit)
        if seconds is None:
            return await self._deadlines.keep(lambda: self._in_turn(passage))
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._in_turn(passage)
        except TimeoutError:
            if not limit.expired():
                raise
            raise deadline.exceeded() from None

    async def _in_turn(self, passage: Passage) -> ApiResponse:
        passage.seat = await self._gate.enter(passage)
        return await self._answer(passage)

    async def _answer(self, passage: Passage) -> ApiResponse:
        request, query, info = passage.request, passage.query, passage.info
        await self._authorize(passage, attributes_of(request.user, info, query))
        if len(request.body) > MAX_BODY:
            raise too_large()
        if not info.is_resource:
            return await self._non_resource(passage)
        kind = self._kinds.find(info.group, info.version, info.resource)
        if kind is None:
            return await self._elsewhere(passage)
        if not _addressable(kind, info):
            raise NotFound(_NO_RESOURCE)
        handler = self._handler(kind, info)
        call = Call(
            request, info, kind, query, self._registry, self.frames, self._authorizer, passage.remarks
        )
        response = await handler(call)
        return _deprecated(response, kind) if kind.deprecation else response

    async def _authorize(self, passage: Passage, attributes: Attributes) -> None:
        """Raises Forbidden, or InternalError when an authorizer failed and none allowed it."""
        decision = await self._authorizer.authorize(attributes)
        notes = passage.remarks.annotations
        notes["authorization.k8s.io/decision"] = "allow" if decision.allowed else "forbid"
        notes["authorization.k8s.io/reason"] = decision.reason
        if decision.allowed:
            return
        if decision.error:
            raise InternalError(f'Internal Server Error: "{passage.request.path}": {decision.error}')
        raise forbidden(attributes, decision)

    async def _elsewhere(self, passage: Passage) -> ApiResponse:
        """What another server says of it. Raises NotFound: versions this server has are nobody else's."""
        one = None if self._aggregation is None else self._aggregation.proxy.find(passage)
        if one is None or self._kinds.has_version(one.group, one.version):
            raise NotFound(_NO_RESOURCE)
        assert self._aggregation is not None
        return await self._aggregation.proxy.answer(passage, one)

    async def _non_resource(self, passage: Passage) -> ApiResponse:
        request = passage.request
        if passage.info.path.startswith("/apis/"):
            with suppress(NotFound):
                return await self._elsewhere(passage)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_NO_METHOD)
        return await self._non_resources.answer(request, split(request.path), passage.query)

    def _handler(self, kind: Kind, info: RequestInfo) -> Handler:
        """Raises NotFound for a subresource the kind does not have, MethodNotAllowed for a verb it does not take."""
        if not info.subresource:
            key = kind.group, kind.plural
            chosen = self._reviews.get(key) or self._subresources.get((*key, ""), _OBJECTS)
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
            text = kind.refusals.get(info.verb, _NO_METHOD)
            raise MethodNotAllowed(text, name=info.name, group=kind.group, kind=kind.plural)
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


def subresource_handlers(connector: Connector, issuer: TokenIssuer | None = None) -> SubresourceHandlers:
    """The handlers of all subresources but status and scale, which every kind has alike.

    Without an `issuer` nobody is given tokens.
    """

    def streams(handler: Handler) -> Mapping[str, Handler]:
        return {"get": handler, "create": handler}

    def every(handler: Handler) -> Mapping[str, Handler]:
        return dict.fromkeys(("create", "delete", "get", "patch", "update", ""), handler)

    tokens: SubresourceHandlers = {}
    if issuer is not None:
        tokens = {("", "serviceaccounts", "token"): {"create": TokenRequests(issuer).create}}
    return {
        **tokens,
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
        ("certificates.k8s.io", "certificatesigningrequests", "approval"): _STATUS,
    }


def review_handlers(authentication: Authentication, authorizer: Authorizer) -> reviews.ReviewHandlers:
    """Who answers each kind of `catalog.REVIEW_KINDS`."""
    return {
        **AccessReviews(as_chain(authorizer)).handlers(),
        ("authentication.k8s.io", "tokenreviews"): TokenReviews(authentication).review,
        ("authentication.k8s.io", "selfsubjectreviews"): review_self,
    }


def _addressable(kind: Kind, info: RequestInfo) -> bool:
    """Whether the path names the object the way its scope wants it."""
    if kind.namespaced:
        return bool(info.namespace) or not info.name
    return not info.namespace or (kind.group, kind.plural) == ("", "namespaces")


def too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"Request entity too large: limit is {MAX_BODY}")
