"""Objects and lists -> response bodies in the negotiated representation.

Plain JSON is spliced from the stored bytes; nothing is parsed or encoded again. Called by the handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
import yaml

from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.negotiation import Representation, Shape
from controlplane.apiserver.registry.requests import ListResult
from controlplane.errors import BadRequest, Object
from controlplane.meta.timestamps import utc_now
from controlplane.resources.kind import Kind
from controlplane.resources.table import (
    INCLUDE_METADATA,
    INCLUDE_NONE,
    INCLUDE_OBJECT,
    partial_metadata,
    table,
)
from controlplane.store.cache import Stored

Clock = Callable[[], datetime]


def include_object(value: str) -> str:
    """The query's `includeObject`, checked. Raises BadRequest."""
    if value not in ("", INCLUDE_NONE, INCLUDE_METADATA, INCLUDE_OBJECT):
        raise BadRequest(f'unrecognized includeObject value: "{value}"')
    return value or INCLUDE_METADATA


def single(
    kind: Kind, stored: Stored, wanted: Representation, include: str = "", *, status: int = 200
) -> ApiResponse:
    """One object. `include` is `includeObject`, read for tables only."""
    if wanted.shape is Shape.OBJECT and not wanted.yaml:
        return typed(status, stored.encoded)
    if wanted.shape is Shape.TABLE:
        version = str(stored.object["metadata"].get("resourceVersion", ""))
        rows = table(kind, [stored.object], utc_now(), include_object(include), version)
        return encode(status, _versioned(rows, wanted.version), wanted)
    if wanted.shape is Shape.METADATA:
        return encode(status, _versioned(partial_metadata(stored.object), wanted.version), wanted)
    return encode(status, stored.object, wanted)


def listing(kind: Kind, result: ListResult, wanted: Representation, include: str = "") -> ApiResponse:
    """One page of a list."""
    if wanted.shape is Shape.TABLE:
        objects = [stored.object for stored in result.items]
        rows = table(
            kind,
            objects,
            utc_now(),
            include_object(include),
            str(result.revision),
            result.continue_token,
            result.remaining,
        )
        return encode(200, _versioned(rows, wanted.version), wanted)
    if wanted.shape is Shape.METADATA:
        items = [_versioned(partial_metadata(stored.object), wanted.version) for stored in result.items]
        body = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{wanted.version}",
            "metadata": _list_meta(result),
            "items": items,
        }
        return encode(200, body, wanted)
    joined = splice(kind, _list_meta(result), result.items)
    return encode(200, orjson.loads(joined), wanted) if wanted.yaml else typed(200, joined)


def splice(kind: Kind, metadata: Object, items: Sequence[Stored]) -> bytes:
    """A list object whose items are the stored bytes."""
    list_kind = kind.list_kind or f"{kind.kind}List"
    head = orjson.dumps({"kind": list_kind, "apiVersion": kind.api_version, "metadata": metadata})
    return b"".join((head[:-1], b',"items":[', b",".join([stored.encoded for stored in items]), b"]}"))


def encode(status: int, obj: Any, wanted: Representation) -> ApiResponse:
    if wanted.yaml:
        text = yaml.dump(obj, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
        return typed(status, text.encode(), wanted.content_type)
    return typed(status, orjson.dumps(obj))


def success(kind: Kind, name: str, uid: str = "", *, status: int = 200) -> ApiResponse:
    """`Status` Success, e.g. for an object that is gone. `details.kind` is the resource."""
    details = {"name": name, "kind": kind.plural}
    if kind.group:
        details["group"] = kind.group
    if uid:
        details["uid"] = uid
    body: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    if status != 200:
        body["code"] = status
    return typed(status, orjson.dumps(body))


def _list_meta(result: ListResult) -> Object:
    metadata: Object = {"resourceVersion": str(result.revision)}
    if result.continue_token:
        metadata["continue"] = result.continue_token
    if result.remaining is not None:
        metadata["remainingItemCount"] = result.remaining
    return metadata


def _versioned(obj: Object, version: str) -> Object:
    """Tables and bare metadata are the same in v1 and v1beta1 but for their apiVersion."""
    return obj if version == "v1" else {**obj, "apiVersion": f"meta.k8s.io/{version}"}
