"""get, list and watch."""

from __future__ import annotations

from controlplane.apiserver.answers import include_object, listing, single
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import JSON_TYPE, ApiResponse
from controlplane.apiserver.options import list_options, watch_options
from controlplane.apiserver.watching import WatchStream


async def get(call: Call) -> ApiResponse:
    wanted = call.wants()
    stored = await call.registry.get(call.kind, call.namespace, call.name, call.query.text("resourceVersion"))
    return single(call.kind, stored, wanted, call.include)


async def list_objects(call: Call) -> ApiResponse:
    wanted = call.wants(lists=True)
    result = await call.registry.list(call.kind, call.namespace, list_options(call.query, call.kind))
    return listing(call.kind, result, wanted, call.include)


async def watch(call: Call) -> ApiResponse:
    """A stream of frames. Tables are chosen as for lists; YAML is not offered, as upstream."""
    wanted = call.wants()
    include = include_object(call.include)
    options = watch_options(call.query, call.kind, call.name)
    frames = call.registry.watch(call.kind, call.namespace, options)
    stream = WatchStream(call.kind, frames, wanted, include, call.frames)
    await stream.open()
    return ApiResponse(200, {"Content-Type": JSON_TYPE}, stream, is_watch=True)
