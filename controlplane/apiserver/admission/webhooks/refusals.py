"""What a client is told when a webhook says no, or cannot be asked. Pure."""

from __future__ import annotations

from functools import cache

from controlplane.errors import BadRequest, Cause, InternalError, Object, StatusError

_LONGEST = 64 * 1024


def internal(why: str) -> InternalError:
    """`Internal error occurred: ...` with the cause apart, as upstream's NewInternalError."""
    return InternalError(f"Internal error occurred: {why}", causes=[Cause("", why, "")])


def unsupported_dry_run(webhook: str) -> BadRequest:
    return BadRequest(f'admission webhook "{webhook}" does not support dry run')


def denial(webhook: str, status: Object) -> StatusError:
    """The webhook's own Status, its message led by who denied. A code below 400 becomes 400."""
    code = status.get("code")
    if not isinstance(code, int) or isinstance(code, bool) or not 400 <= code <= 599:
        code = 400
    reason = str(status.get("reason") or "")
    text = str(status.get("message") or reason)
    lead = f'admission webhook "{webhook}" denied the request'
    message = f"{lead}: {text}" if text else f"{lead} without explanation"
    details = status.get("details")
    found = details if isinstance(details, dict) else {}
    causes = found.get("causes")
    return _with(code, reason)(
        message[:_LONGEST],
        name=str(found.get("name") or ""),
        group=str(found.get("group") or ""),
        kind=str(found.get("kind") or ""),
        causes=[
            Cause(str(each.get("reason", "")), str(each.get("message", "")), str(each.get("field", "")))
            for each in (causes if isinstance(causes, list) else ())
            if isinstance(each, dict)
        ],
        retry_after=_seconds(found.get("retryAfterSeconds")),
    )


def _seconds(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


@cache
def _with(code: int, reason: str) -> type[StatusError]:
    return type("WebhookDenial", (StatusError,), {"code": code, "reason": reason})
