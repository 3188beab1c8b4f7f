"""create, update, patch, delete and deletecollection of whole objects."""

from __future__ import annotations

from controlplane.apiserver import bodies
from controlplane.apiserver.answers import single, splice, success
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.options import delete_options, list_options
from controlplane.errors import BadRequest


async def create(call: Call) -> ApiResponse:
    wanted, options = call.wants(), call.write_options()
    obj = call.body(bodies.target_of(call.kind))
    _check_namespace(obj["metadata"].get("namespace") or "", call.namespace)
    stored = await call.registry.create(call.kind, call.namespace, obj, options)
    return call.warned(single(call.kind, stored, wanted, call.include, status=201))


def _check_namespace(given: str, namespace: str) -> None:
    """The body's namespace may be left out, but not be another than the URL's (none for cluster scope)."""
    if given and given != namespace and namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


async def update(call: Call) -> ApiResponse:
    """PUT of the object, or of its status, finalize and the like by the same form."""
    wanted, options = call.wants(), call.write_options()
    obj = call.body(bodies.target_of(call.kind))
    bodies.check_name(obj, call.namespace, call.name)
    stored, created = await call.registry.update(
        call.kind, call.namespace, call.name, obj, options, call.info.subresource
    )
    return call.warned(single(call.kind, stored, wanted, call.include, status=201 if created else 200))


async def patch(call: Call) -> ApiResponse:
    """PATCH of the object or of its status."""
    wanted, options = call.wants(), call.write_options()
    types = bodies.patch_types(call.kind)
    body = bodies.decode_patch(call.header("content-type"), call.request.body, types)
    target = bodies.target_of(call.kind)
    check = bodies.patch_check(body, target, call.name, call.validation(), call.warnings)
    stored = await call.registry.patch(
        call.kind, call.namespace, call.name, body.type, body.value, options, call.info.subresource, check
    )
    return call.warned(single(call.kind, stored, wanted, call.include))


async def delete(call: Call) -> ApiResponse:
    """Answers with Success when the object is gone, with the object while its deletion is pending."""
    wanted = call.wants()
    options = delete_options(call.query, call.deletion(), call.request.user, call.remarks)
    stored, gone = await call.registry.delete(call.kind, call.namespace, call.name, options)
    if gone:
        return call.warned(success(call.kind, call.name, str(stored.object["metadata"].get("uid", ""))))
    return call.warned(single(call.kind, stored, wanted, call.include))


async def delete_collection(call: Call) -> ApiResponse:
    options = delete_options(call.query, call.deletion(), call.request.user, call.remarks)
    selected = list_options(call.query, call.kind)
    deleted = await call.registry.delete_collection(call.kind, call.namespace, selected, options)
    revision = await call.registry.revision()
    return call.warned(typed(200, splice(call.kind, {"resourceVersion": str(revision)}, deleted)))
