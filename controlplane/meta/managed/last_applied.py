"""The annotation in which client-side apply keeps what it applied, and what server-side apply makes of it."""

from __future__ import annotations

import json

import orjson

from controlplane.errors import Object
from controlplane.meta.managed.compare import compare
from controlplane.meta.managed.extract import fields_of
from controlplane.meta.managed.sets import FieldSet, difference
from controlplane.meta.managed.shapes import Shape
from controlplane.meta.managed.typed import Mistyped, check_type
from controlplane.resources.metadata import ANNOTATIONS_MAX

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
"""The manager under which `kubectl apply --server-side` goes on from `kubectl apply`."""


def last_applied(obj: Object) -> str:
    annotations = obj.get("metadata", {}).get("annotations")
    found = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else ""


def owned_by_last_applied(shape: Shape, live: Object, api_version: str) -> FieldSet:
    """The fields that client-side apply set and that still are as it set them; none without a usable annotation."""
    try:
        applied = orjson.loads(last_applied(live) or b"null")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(applied, dict) or applied.get("apiVersion") != api_version:
        return {}
    try:
        check_type(shape, applied)
    except Mistyped:
        return {}
    changed, removed = compare(shape, applied, live)
    return difference(difference(fields_of(shape, applied), changed), removed)


def with_last_applied(obj: Object, applied: Object) -> Object:
    """`obj` with the annotation brought up to date, or without it when it would be too large."""
    metadata = obj["metadata"]
    annotations = {**metadata["annotations"], ANNOTATION: _text(applied)}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_MAX:
        del annotations[ANNOTATION]
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def _text(applied: Object) -> str:
    """As Go's encoder writes it: sorted, HTML-safe, with a line's end."""
    metadata = dict(applied.get("metadata") or {})
    if isinstance(metadata.get("annotations"), dict):
        metadata["annotations"] = {
            key: value for key, value in metadata["annotations"].items() if key != ANNOTATION
        }
    text = json.dumps(
        {**applied, "metadata": metadata}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{text}\n"
