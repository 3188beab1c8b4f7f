"""AdmissionReview: what a webhook is asked, and what counts as an answer. Pure.

Texts are those of the webhook packages of k8s.io/apiserver (v1.32).
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.resources.kind import Kind

REVIEW_VERSIONS = ("v1", "v1beta1")
_OPTIONS = {
    Operation.CREATE: "CreateOptions",
    Operation.UPDATE: "UpdateOptions",
    Operation.DELETE: "DeleteOptions",
}


class InvalidReview(Exception):
    """The answer is no valid AdmissionReview; the text says why."""


@dataclass(frozen=True, slots=True)
class Response:
    """`patch` is None where the object stays as it is."""

    allowed: bool
    status: Object = field(default_factory=dict)
    patch: Any = None
    warnings: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


def review_version(accepted: list[str]) -> str:
    """The first version of AdmissionReview that both sides know, "" for none."""
    return next((version for version in accepted if version in REVIEW_VERSIONS), "")


def review_request(request: AdmissionRequest, kind: Kind, uid: str = "") -> Object:
    """The `request` of a review in terms of `kind`, without object and oldObject."""
    resource = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    own = request.kind
    own_resource = {"group": own.group, "version": own.version, "resource": own.plural}
    body = request.body_kind
    object_kind = _group_version_kind(*(body or (kind.group, kind.version, kind.kind)))
    user: Object = {"username": request.user.name}
    if request.user.uid:
        user["uid"] = request.user.uid
    if request.user.groups:
        user["groups"] = list(request.user.groups)
    if request.user.extra:
        user["extra"] = {key: list(values) for key, values in request.user.extra.items()}
    found: Object = {
        "uid": uid,
        "kind": object_kind,
        "resource": resource,
        "requestKind": _group_version_kind(*(body or (own.group, own.version, own.kind))),
        "requestResource": own_resource,
        "operation": request.operation.value,
        "userInfo": user,
        "object": None,
        "oldObject": None,
        "dryRun": request.dry_run,
        "options": _options(request),
    }
    if request.subresource:
        found["subResource"] = found["requestSubResource"] = request.subresource
    if request.name:
        found["name"] = request.name
    is_namespace = (own.group, own.plural) == ("", "namespaces")
    if request.namespace or (is_namespace and request.name):
        found["namespace"] = request.namespace or request.name
    return found


def _options(request: AdmissionRequest) -> Object | None:
    if request.options:
        return request.options
    kind = _OPTIONS.get(request.operation)
    if kind is None:
        return None
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if request.dry_run:
        options["dryRun"] = ["All"]
    return options


def _group_version_kind(group: str, version: str, kind: str) -> Object:
    return {"group": group, "version": version, "kind": kind}


def review(
    request: AdmissionRequest, kind: Kind, version: str, obj: Object | None, old: Object | None
) -> tuple[str, bytes]:
    """A review's uid and body; `obj` and `old` are in the version of `kind`."""
    uid = str(uuid.uuid4())
    body = review_request(request, kind, uid)
    body["object"], body["oldObject"] = obj, old
    return uid, orjson.dumps(
        {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": body}
    )


def parse_response(body: bytes, uid: str, version: str, *, mutating: bool) -> Response:
    """What the webhook answered. Raises InvalidReview."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise InvalidReview(f"couldn't get version/kind; json parse error: {fault}") from fault
    if not isinstance(parsed, dict):
        raise InvalidReview("couldn't get version/kind; json parse error: the answer is not an object")
    response = parsed.get("response")
    if not isinstance(response, dict):
        raise InvalidReview("webhook response was absent")
    if version == "v1":
        _check_identity(parsed, response, uid)
    patch = _patch(response, version, mutating)
    return Response(
        allowed=response.get("allowed") is True,
        status=_mapping(response.get("status")),
        patch=patch,
        warnings=tuple(text for text in _sequence(response.get("warnings")) if isinstance(text, str)),
        annotations={
            str(key): value
            for key, value in _mapping(response.get("auditAnnotations")).items()
            if isinstance(value, str)
        },
    )


def _check_identity(review: Object, response: Object, uid: str) -> None:
    if response.get("uid", "") != uid:
        raise InvalidReview(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    found = f"{review.get('apiVersion', '')}, Kind={review.get('kind', '')}"
    if found != "admission.k8s.io/v1, Kind=AdmissionReview":
        raise InvalidReview(
            f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {found or '/'}"
        )


def _patch(response: Object, version: str, mutating: bool) -> Any:
    patch, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        if version == "v1" and patch:
            raise InvalidReview("validating webhook may not return response.patch")
        if version == "v1" and kind is not None:
            raise InvalidReview("validating webhook may not return response.patchType")
        return None
    if version == "v1" and patch and kind is None:
        raise InvalidReview("webhook returned response.patch but not response.patchType")
    if version == "v1" and not patch and kind is not None:
        raise InvalidReview("webhook returned response.patchType but not response.patch")
    if not patch:
        return None
    if kind is not None and kind != "JSONPatch":
        raise InvalidReview(f'webhook returned invalid response.patchType of "{kind}"')
    try:
        return orjson.loads(base64.b64decode(patch, validate=True))
    except (binascii.Error, ValueError, TypeError) as fault:
        raise InvalidReview(f"received undecodable patch in webhook response: {fault}") from fault


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
