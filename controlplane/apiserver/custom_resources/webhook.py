"""Conversion of custom resources by a webhook: ConversionReview in v1 or v1beta1, and distrust of the answer.

A converter belongs to one state of one definition. The texts of faults are those of apiextensions v0.32.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controlplane.apiserver.webhook_client import WebhookClient, WebhookError
from controlplane.errors import Cause, Object
from controlplane.meta.objects import clone, dig
from controlplane.resources.kind import ConversionFault
from controlplane.resources.metadata import validate_annotations
from controlplane.resources.rules import Field

TIMEOUT_SECONDS = 30
_AT_ONCE = 500
"""Objects that are sent in one review."""
_GO_TYPES: Mapping[type, str] = {
    bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}",
    dict: "map[string]interface {}", type(None): "<nil>",
}  # fmt: skip


class WebhookConverter:
    """See `custom.conversion.Converter`. `webhook` is the definition's `spec.conversion.webhook`."""

    def __init__(self, client: WebhookClient, webhook: Object) -> None:
        self._client = client
        self._config: Object = webhook["clientConfig"]
        versions = webhook.get("conversionReviewVersions") or ()
        self._version = next((each for each in versions if each in ("v1", "v1beta1")), "")

    async def convert(self, objs: Sequence[Object], api_version: str) -> Sequence[Object]:
        found: list[Object] = []
        for first in range(0, len(objs), _AT_ONCE):
            found += await self._batch(objs[first : first + _AT_ONCE], api_version)
        return found

    async def _batch(self, objs: Sequence[Object], api_version: str) -> list[Object]:
        given = objs[0]
        shown = f"{given['apiVersion']}, Kind={given['kind']}"
        if not self._version:
            raise ConversionFault("no supported conversion review versions")
        uid = str(uuid.uuid4())
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{self._version}",
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list(objs)},
        }
        try:
            answer = await self._client.post(self._config, orjson.dumps(review), TIMEOUT_SECONDS)
            converted = _converted(answer, self._version, uid)
        except (WebhookError, ConversionFault) as fault:
            raise ConversionFault(f"conversion webhook for {shown} failed: {fault}") from fault
        if len(converted) != len(objs):
            raise ConversionFault(
                f"conversion webhook for {shown} returned {len(converted)} objects, expected {len(objs)}"
            )
        return [
            _accepted(original, obj, api_version, f"conversion webhook for {shown}", at)
            for at, (original, obj) in enumerate(zip(objs, converted, strict=True))
        ]


def _converted(answer: bytes, version: str, uid: str) -> Sequence[Any]:
    """The objects of a successful response. Raises ConversionFault."""
    try:
        review = orjson.loads(answer)
    except ValueError as fault:
        raise ConversionFault(f"couldn't get version/kind; json parse error: {fault}") from fault
    if not isinstance(review, dict):
        raise ConversionFault("couldn't get version/kind; json parse error: the answer is no object")
    if version == "v1":
        wanted = "apiextensions.k8s.io/v1, Kind=ConversionReview"
        found = f"{review.get('apiVersion') or ''}, Kind={review.get('kind') or ''}"
        if found != wanted:
            raise ConversionFault(f"expected webhook response of {wanted}, got {found}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise ConversionFault("no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise ConversionFault(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    status = dig(response, "result", "status", default="")
    if status != "Success":
        message = dig(response, "result", "message", default="")
        raise ConversionFault(str(message) or f"response.result.status was '{status}', not 'Success'")
    objects = response.get("convertedObjects") or []
    if not isinstance(objects, list):
        raise ConversionFault("response.convertedObjects is no list")
    return objects


def _accepted(original: Object, obj: Any, api_version: str, what: str, at: int) -> Object:
    """The converted object with the original's metadata, of which a webhook may change labels and annotations."""
    invalid = f"{what} returned invalid converted object at index {at}"
    if not isinstance(obj, dict):
        raise ConversionFault(f"{invalid}: invalid type, expected=Unstructured, got={_go_type(obj)}")
    if obj.get("apiVersion") != api_version:
        got = obj.get("apiVersion") or ""
        raise ConversionFault(f"{invalid}: invalid groupVersion (expected {api_version}, received {got})")
    if obj.get("kind") != original["kind"]:
        raise ConversionFault(
            f"{invalid}: invalid kind (expected {original['kind']}, received {obj.get('kind') or ''})"
        )
    metadata = obj.get("metadata")
    bad_metadata = f"{what} returned invalid metadata in object at index {at}"
    if "metadata" not in obj:
        metadata = {}
    if isinstance(metadata, dict):
        for key, words in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
            one, other = original["metadata"].get(key) or "", metadata.get(key) or ""
            if one != other:
                raise ConversionFault(f"{invalid}: must have the same {words}: {one} != {other}")
    if "metadata" not in obj:
        raise ConversionFault(f"{bad_metadata}: missing metadata in converted object")
    if not isinstance(metadata, dict):
        raise ConversionFault(
            f"{bad_metadata}: invalid metadata of type {_go_type(metadata)} in converted object"
        )
    return {**obj, "metadata": _restored(original["metadata"], metadata, bad_metadata)}


def _restored(original: Object, converted: Object, bad: str) -> Object:
    restored = clone(original)
    for name in ("labels", "annotations"):
        given = converted.get(name)
        if given is None:
            restored.pop(name, None)
            continue
        if not isinstance(given, dict):
            raise ConversionFault(
                f"{bad}: invalid metadata.{name} of type {_go_type(given)} in converted object"
            )
        for key, value in given.items():
            if not isinstance(value, str):
                raise ConversionFault(
                    f"{bad}: metadata.{name}[{key}] must be a string, but is {_go_type(value)} in converted object"
                )
        if given != (original.get(name) or {}):
            causes = _pair_causes(name, given)
            if causes:
                raise ConversionFault(
                    f"{bad}: " + ", ".join(f"{each.field}: {each.message}" for each in causes)
                )
        restored[name] = given
    return restored


def _pair_causes(name: str, given: Object) -> list[Cause]:
    if name == "labels":
        field = Field.root(given, "metadata.labels")
        field.labels()
    else:
        field = Field.root(given, "metadata.annotation")
        validate_annotations(field)
    return field.causes


def _go_type(value: object) -> str:
    return _GO_TYPES.get(type(value), type(value).__name__)
