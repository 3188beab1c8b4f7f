"""One request on its way through a handler, and what all handlers share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controlplane.apiserver import bodies
from controlplane.apiserver.authz import Attributes, Authorizer, forbidden
from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.apiserver.negotiation import Representation, representation
from controlplane.apiserver.options import (
    FieldValidation,
    Query,
    check_patch_options,
    field_validation,
    write_options,
)
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.registry.requests import PatchType, Remarks, WriteOptions
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.watching import FrameCache
from controlplane.errors import Object
from controlplane.resources.kind import Kind


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a resource: `kind` is the path's, `registry` and `frames` are the server's."""

    request: ApiRequest
    info: RequestInfo
    kind: Kind
    query: Query
    registry: Registry
    frames: FrameCache
    authorizer: Authorizer
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def namespace(self) -> str:
        """The namespace objects of this kind are kept in; empty for cluster-scoped kinds."""
        return self.info.namespace if self.kind.namespaced else ""

    @property
    def warnings(self) -> list[str]:
        return self.remarks.warnings

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def include(self) -> str:
        return self.query.text("includeObject")

    def header(self, name: str) -> str:
        return self.request.headers.get(name, "")

    def wants(self, *, lists: bool = False, plain_only: bool = False) -> Representation:
        """The representation to answer in. Raises NotAcceptable."""
        return representation(self.header("accept"), lists=lists, plain_only=plain_only)

    def write_options(self, kind: str = "CreateOptions") -> WriteOptions:
        """`kind` is what the query's options are called when they are refused."""
        return write_options(self.query, self.request.user, self.header("user-agent"), self.remarks, kind)

    def patch_options(self, patch_type: PatchType) -> WriteOptions:
        check_patch_options(self.query, applies=patch_type is PatchType.APPLY)
        return self.write_options("PatchOptions")

    def validation(self, kind: str = "CreateOptions") -> FieldValidation:
        return field_validation(self.query, kind)

    async def may_create(self) -> None:
        """Raises Forbidden unless the user may create what this request names."""
        attributes = Attributes(self.request.user, replace(self.info, verb="create"))
        decision = await self.authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision)

    def body(self, target: bodies.Target) -> Object:
        """The body as an object of `target`; unknown fields are dropped and become warnings or a refusal."""
        decoded = bodies.decode(self.header("content-type"), self.request.body, target)
        return bodies.accept(decoded, target, self.validation(), self.warnings)

    def deletion(self) -> object:
        """The DeleteOptions in the body of a DELETE, None when there is no body."""
        return bodies.decode_delete_options(self.header("content-type"), self.request.body)

    def warned(self, response: ApiResponse) -> ApiResponse:
        """`response` with the warnings that came up."""
        if not self.warnings:
            return response
        headers = {**response.headers, "Warning": bodies.warning_header(self.warnings)}
        return replace(response, headers=headers)
