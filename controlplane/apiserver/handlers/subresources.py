"""scale, binding and eviction: subresources whose bodies are of another kind than their object."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.apiserver import bodies
from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.answers import single, success
from controlplane.apiserver.bodies import Target
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.handlers.writes import patched
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.options import Query, delete_options
from controlplane.errors import BadRequest, Object
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind

_SCALE = Target("autoscaling/v1", "Scale")
_BINDING = Target("v1", "Binding")
_EVICTION = Target("policy/v1", "Eviction")
_OLD_EVICTION = "policy/v1beta1"


def _scale_row(scale: Object, now: datetime) -> Sequence[object]:
    return (
        scale["metadata"]["name"],
        scale["spec"].get("replicas", 0),
        scale["status"].get("replicas", 0),
        age(scale, now),
    )


_SCALE_KIND = Kind(
    group="autoscaling",
    version="v1",
    kind="Scale",
    plural="scales",
    singular="scale",
    namespaced=True,
    columns=(
        NAME,
        Column("Desired", type="integer"),
        Column("Available", type="integer"),
        AGE,
    ),
    row=_scale_row,
)
"""Scale is never stored; this says only how it prints."""


async def get_scale(call: Call) -> ApiResponse:
    wanted = call.wants()
    stored = await call.registry.get_scale(call.kind, call.namespace, call.name)
    return single(_SCALE_KIND, stored, wanted, call.include)


async def update_scale(call: Call) -> ApiResponse:
    wanted, options = call.wants(), call.write_options("UpdateOptions")
    obj = call.body(_SCALE)
    bodies.check_name(obj, call.namespace, call.name)
    stored, _ = await call.registry.update(
        call.kind, call.namespace, call.name, obj, options, call.info.subresource
    )
    return call.warned(single(_SCALE_KIND, stored, wanted, call.include))


async def patch_scale(call: Call) -> ApiResponse:
    wanted = call.wants()
    stored, _ = await patched(call, _SCALE)
    return call.warned(single(_SCALE_KIND, stored, wanted, call.include))


async def bind(call: Call) -> ApiResponse:
    options = call.write_options()
    binding = call.body(_BINDING)
    _same_name(binding, call.name, "Binding")
    await _admit(call, ("", "v1", "Binding"), binding, options.dry_run)
    await call.registry.bind(call.namespace, call.name, binding, options)
    return call.warned(success(call.kind, call.name, status=201))


async def evict(call: Call) -> ApiResponse:
    """An eviction is a deletion with the body's `deleteOptions` that the pod's disruption budget must allow."""
    dry_run = call.write_options().dry_run
    decoded = bodies.decode(call.header("content-type"), call.request.body, _EVICTION)
    if isinstance(decoded.value, dict) and decoded.value.get("apiVersion") == _OLD_EVICTION:
        # The same object in its first version, which kubectl up to 1.21 sends.
        decoded.value["apiVersion"] = _EVICTION.api_version
    eviction = bodies.accept(decoded, _EVICTION, call.validation(), call.warnings)
    _same_name(eviction, call.name, "Eviction")
    await _admit(call, ("policy", "v1", "Eviction"), eviction, dry_run)
    given = {**(eviction.get("deleteOptions") or {})}
    if dry_run:
        given["dryRun"] = ["All"]
    options = delete_options(Query(()), given, call.request.user, call.remarks)
    await call.registry.evict(call.namespace, call.name, options)
    return call.warned(success(call.kind, call.name, status=201))


async def _admit(call: Call, body_kind: tuple[str, str, str], body: Object, dry_run: bool) -> None:
    """Admission sees the body of a subresource as something created."""
    await call.registry.admit(
        Operation.CREATE, call.kind, call.namespace, call.name, call.info.subresource, body_kind, body,
        call.request.user, dry_run=dry_run, remarks=call.remarks,
    )  # fmt: skip


def _same_name(obj: Object, name: str, kind: str) -> None:
    given = obj["metadata"].get("name") or name
    if given != name:
        raise BadRequest(f"name in URL does not match name in {kind} object")
