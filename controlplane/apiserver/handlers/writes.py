"""create, update, patch, delete and deletecollection of whole objects."""

from __future__ import annotations

from controlplane.apiserver import bodies
from controlplane.apiserver.answers import single, splice, success
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.options import delete_options, list_options
from controlplane.apiserver.registry.requests import DeleteOptions, PatchType, Stored
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
    wanted, options = call.wants(), call.write_options("UpdateOptions")
    obj = call.body(bodies.target_of(call.kind))
    bodies.check_name(obj, call.namespace, call.name)
    stored, created = await call.registry.update(
        call.kind, call.namespace, call.name, obj, options, call.info.subresource, call.may_create
    )
    return call.warned(single(call.kind, stored, wanted, call.include, status=201 if created else 200))


async def patch(call: Call) -> ApiResponse:
    """PATCH of the object, its status or another subresource of its own form; a server-side apply may create it."""
    wanted = call.wants()
    stored, created = await patched(call, bodies.target_of(call.kind))
    return call.warned(single(call.kind, stored, wanted, call.include, status=201 if created else 200))


async def patched(call: Call, target: bodies.Target) -> tuple[Stored, bool]:
    """Carries out a PATCH whose subject is of the kind `target`. Returns the result and whether it is new."""
    body = bodies.decode_patch(call.header("content-type"), call.request.body, target)
    options, validation = call.patch_options(body.type), call.validation("PatchOptions")
    info = call.info
    if body.type is PatchType.APPLY and isinstance(body.value, dict):
        check = bodies.apply_check(body, target, validation, call.warnings)
        return await call.registry.apply(
            call.kind, call.namespace, call.name, body.value, options, info.subresource,
            force=call.query.flag("force"), check=check, may_create=call.may_create,
        )  # fmt: skip
    check = bodies.patch_check(body, target, validation, call.warnings)
    stored = await call.registry.patch(
        call.kind, call.namespace, call.name, body.type, body.value, options, info.subresource, check
    )
    return stored, False


async def delete(call: Call) -> ApiResponse:
    """Answers with Success when the object is gone, with the object while its deletion is pending."""
    wanted = call.wants()
    options = delete_options(call.query, call.deletion(), call.request.user, call.remarks)
    _warn_of_orphans(call, options)
    stored, gone = await call.registry.delete(call.kind, call.namespace, call.name, options)
    if gone:
        return call.warned(success(call.kind, call.name, str(stored.object["metadata"].get("uid", ""))))
    return call.warned(single(call.kind, stored, wanted, call.include))


async def delete_collection(call: Call) -> ApiResponse:
    options = delete_options(call.query, call.deletion(), call.request.user, call.remarks)
    _warn_of_orphans(call, options)
    selected = list_options(call.query, call.kind)
    deleted = await call.registry.delete_collection(call.kind, call.namespace, selected, options)
    revision = await call.registry.revision()
    return call.warned(typed(200, splice(call.kind, {"resourceVersion": str(revision)}, deleted)))


def _warn_of_orphans(call: Call, options: DeleteOptions) -> None:
    """Nothing was said of what the object owns, and its kind keeps it."""
    if options.propagation is None and call.kind.orphans_warning:
        call.warnings.append(call.kind.orphans_warning)
