"""A request -> the `audit.k8s.io/v1` Event of one of its stages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from controlplane.apiserver.audit.policy import API_VERSION, Level, Stage, Verdict
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.passage import Passage
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.meta.timestamps import format_micro_time
from controlplane.schema import protobuf

_LONGEST_BODY = 256 * 1024
"""Bodies beyond are not parsed for the log; the event says so."""


def event(passage: Passage, verdict: Verdict, stage: Stage, response: ApiResponse | None = None) -> Object:
    """The event of `stage`; `response` is the answer once there is one."""
    request = passage.request
    told: Object = {
        "kind": "Event",
        "apiVersion": API_VERSION,
        "level": verdict.level.value,
        "auditID": passage.id,
        "stage": stage.value,
        "requestURI": _uri(passage),
        "verb": passage.info.verb,
        "user": _user(request.impersonator or request.user),
    }
    if request.impersonator is not None:
        told["impersonatedUser"] = _user(request.user)
    if request.remote:
        told["sourceIPs"] = [request.remote]
    if request.headers.get("user-agent"):
        told["userAgent"] = request.headers["user-agent"]
    if passage.info.is_resource:
        told["objectRef"] = _reference(passage, response)
    if response is not None:
        told["responseStatus"] = _status(passage, response)
    _add_bodies(told, passage, verdict, response)
    told["requestReceivedTimestamp"] = _time(passage.received)
    elapsed = 0.0 if stage is Stage.RECEIVED else passage.seconds
    told["stageTimestamp"] = _time(passage.received + elapsed)
    if stage is not Stage.RECEIVED and passage.remarks.annotations:
        told["annotations"] = dict(passage.remarks.annotations)
    return told


def _time(seconds: float) -> str:
    return format_micro_time(datetime.fromtimestamp(seconds, UTC))


def _uri(passage: Passage) -> str:
    query = urlencode(passage.request.query)
    return f"{passage.request.path}?{query}" if query else passage.request.path


def _user(user: UserInfo) -> Object:
    told: Object = {"username": user.name}
    if user.uid:
        told["uid"] = user.uid
    if user.groups:
        told["groups"] = list(user.groups)
    if user.extra:
        told["extra"] = {key: list(values) for key, values in user.extra.items()}
    return told


def _reference(passage: Passage, response: ApiResponse | None) -> Object:
    """What the request is about; of a new object the name is in the body."""
    info, name = passage.info, passage.info.name
    if info.verb == "create" and not name and response is not None:
        body = _request_object(passage.request.headers, passage.request.body)
        metadata = body.get("metadata") if isinstance(body, dict) else None
        name = str(metadata.get("name") or "") if isinstance(metadata, dict) else ""
    told: Object = {"resource": info.resource}
    for key, value in (
        ("namespace", info.namespace),
        ("name", name),
        ("apiGroup", info.group),
        ("apiVersion", info.version),
        ("subresource", info.subresource),
    ):
        if value:
            told[key] = value
    return told


def _status(passage: Passage, response: ApiResponse) -> Object:
    told: Object = {"metadata": {}, "code": response.status}
    if passage.panic:
        return {
            **told,
            "status": "Failure",
            "reason": "InternalError",
            "message": f"APIServer panic'd: {passage.panic}",
        }
    if response.status >= 400 and isinstance(response.body, bytes):
        body = _parsed(response.body)
        if isinstance(body, Mapping) and body.get("kind") == "Status":
            for key in ("status", "message", "reason", "details"):
                if body.get(key):
                    told[key] = body[key]
    return told


def _add_bodies(told: Object, passage: Passage, verdict: Verdict, response: ApiResponse | None) -> None:
    if not passage.info.is_resource or verdict.level.rank < Level.REQUEST.rank:
        return
    request = passage.request
    if request.body and response is not None:
        told["requestObject"] = _plain(_request_object(request.headers, request.body), verdict)
    if verdict.level is Level.REQUEST_RESPONSE and response is not None and isinstance(response.body, bytes):
        told["responseObject"] = _plain(_parsed(response.body), verdict)


def _request_object(headers: Mapping[str, str], body: bytes) -> Any:
    if headers.get("content-type", "").startswith(protobuf.CONTENT_TYPE):
        try:
            return protobuf.decode(body, "", "")
        except ValueError:
            return None
    return _parsed(body)


def _parsed(body: bytes) -> Any:
    if len(body) > _LONGEST_BODY:
        return {"kind": "Unknown", "apiVersion": "v1", "note": f"{len(body)} bytes are too many for the log"}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")


def _plain(obj: Any, verdict: Verdict) -> Any:
    """Without managedFields where the policy wants it so, in items of lists as well."""
    if not verdict.omit_managed_fields or not isinstance(obj, dict):
        return obj
    metadata = obj.get("metadata")
    if isinstance(metadata, dict) and "managedFields" in metadata:
        obj = {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
    if isinstance(obj.get("items"), list):
        obj = {**obj, "items": [_plain(item, verdict) for item in obj["items"]]}
    return obj
