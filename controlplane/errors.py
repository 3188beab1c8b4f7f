"""API errors: each is one Kubernetes `Status` object with its reason, code and causes.

    StatusError
    |-- BadRequest              400 BadRequest
    |-- Unauthorized            401 Unauthorized
    |-- Forbidden               403 Forbidden
    |-- NotFound                404 NotFound
    |-- MethodNotAllowed        405 MethodNotAllowed
    |-- NotAcceptable           406 NotAcceptable
    |-- AlreadyExists           409 AlreadyExists
    |-- Conflict                409 Conflict
    |-- Gone                    410 Gone
    |   `-- Expired             410 Expired
    |-- RequestEntityTooLarge   413 RequestEntityTooLarge
    |-- UnsupportedMediaType    415 UnsupportedMediaType
    |-- Invalid                 422 Invalid
    |-- TooManyRequests         429 TooManyRequests
    |-- InternalError           500 InternalError
    |   `-- Unclassified        500 without a reason
    |-- ServiceUnavailable      503 ServiceUnavailable
    `-- ServerTimeout           504 Timeout

Reasons and message forms follow apimachinery's `pkg/api/errors` (v0.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

Object = dict[str, Any]
"""A Kubernetes object as parsed JSON. Treat what you did not make yourself as read-only."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One field's fault inside an `Invalid` answer.

    `reason` is Kubernetes' cause type (`FieldValueInvalid`, `FieldValueRequired`, ...), `field` a path such as
    `spec.ports[0].port`, `message` the text behind the field, e.g. `Invalid value: 0: must be between ...`.
    """

    reason: str
    message: str
    field: str

    def as_json(self) -> Object:
        return {"reason": self.reason, "message": self.message, "field": self.field}


class StatusError(Exception):
    """An answer other than success. `status()` is the body a client receives."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        group: str = "",
        kind: str = "",
        uid: str = "",
        causes: Sequence[Cause] = (),
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.group = group
        self.kind = kind
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after = retry_after

    def status(self) -> Object:
        """The `Status` object (`v1`) with `details` holding only what is known."""
        details: Object = {}
        for key, value in (
            ("name", self.name),
            ("group", self.group),
            ("kind", self.kind),
            ("uid", self.uid),
        ):
            if value:
                details[key] = value
        if self.causes:
            details["causes"] = [cause.as_json() for cause in self.causes]
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            **({"reason": self.reason} if self.reason else {}),
            "code": self.code,
        }
        if details:
            body["details"] = details
        return body


class BadRequest(StatusError):
    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    code, reason = 401, "Unauthorized"


class Forbidden(StatusError):
    code, reason = 403, "Forbidden"


class NotFound(StatusError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(StatusError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(StatusError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(StatusError):
    code, reason = 409, "AlreadyExists"


class Conflict(StatusError):
    code, reason = 409, "Conflict"


class Gone(StatusError):
    code, reason = 410, "Gone"


class Expired(Gone):
    """`continue_token`, set after it was made, leads to the rest of a list that can no longer be shown as it was."""

    reason = "Expired"
    continue_token: str = ""

    def status(self) -> Object:
        body = super().status()
        if self.continue_token:
            body["metadata"] = {"continue": self.continue_token}
        return body


class RequestEntityTooLarge(StatusError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(StatusError):
    code, reason = 422, "Invalid"


class TooManyRequests(StatusError):
    code, reason = 429, "TooManyRequests"


class InternalError(StatusError):
    code, reason = 500, "InternalError"


class Unclassified(InternalError):
    """A fault of the request that upstream has no reason for, e.g. an applied object that does not fit its type."""

    reason = ""


class ServiceUnavailable(StatusError):
    code, reason = 503, "ServiceUnavailable"


class ServerTimeout(StatusError):
    code, reason = 504, "Timeout"


_BY_REASON: Mapping[str, type[StatusError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict,
        Gone, Expired, RequestEntityTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError,
        ServiceUnavailable, ServerTimeout,
    )
}  # fmt: skip


def qualified(plural: str, group: str) -> str:
    """`deployments.apps`, or `pods` for the core group: how messages name a resource."""
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> NotFound:
    return NotFound(f'{qualified(plural, group)} "{name}" not found', name=name, group=group, kind=plural)


def already_exists(plural: str, group: str, name: str) -> AlreadyExists:
    return AlreadyExists(
        f'{qualified(plural, group)} "{name}" already exists', name=name, group=group, kind=plural
    )


def conflict(plural: str, group: str, name: str, why: str = "") -> Conflict:
    """A lost race. `why` defaults to the text about a modified object."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    return Conflict(
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}',
        name=name, group=group, kind=plural,
    )  # fmt: skip


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> Invalid:
    """422 with every cause; `kind` is the Kind here (`Service`), not the resource."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    title = f"{kind}.{group}" if group else kind
    return Invalid(f'{title} "{name}" is invalid: {text}', name=name, group=group, kind=kind, causes=causes)


def from_status(body: Mapping[str, Any], code: int = 0) -> StatusError:
    """The error an answer's `Status` body stands for; unknown reasons become `InternalError` with that code."""
    details = body.get("details") or {}
    cls = _BY_REASON.get(str(body.get("reason", "")), InternalError)
    error = cls(
        str(body.get("message", f"the server answered {code}")),
        name=str(details.get("name", "")),
        group=str(details.get("group", "")),
        kind=str(details.get("kind", "")),
        uid=str(details.get("uid", "")),
        causes=[
            Cause(str(c.get("reason", "")), str(c.get("message", "")), str(c.get("field", "")))
            for c in details.get("causes") or ()
        ],
        retry_after=int(details.get("retryAfterSeconds", 0)),
    )
    return error
