"""How long a request may take: the server's limit, or less when the client says so (`timeout=5s`). Pure.

Called by the core for everything but watches and streams.
"""

from __future__ import annotations

import re

from controlplane.apiserver.options import Query
from controlplane.errors import BadRequest, ServerTimeout

DEFAULT_SECONDS = 60.0
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a duration in Go's form (`1m30s`, `500ms`, `-2s`). Raises ValueError."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, end = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != end:
            break
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not rest or end != len(rest):
        raise ValueError(f"invalid duration {text!r}")
    return sign * total


def seconds(query: Query, limit: float) -> float:
    """The seconds this request may take. Raises BadRequest for a `timeout` that is no duration."""
    text = query.text("timeout")
    if not text:
        return limit
    try:
        asked = duration(text)
    except ValueError as error:
        raise BadRequest("invalid timeout specified in the request URL") from error
    return min(asked, limit) if asked > 0 else limit


def exceeded() -> ServerTimeout:
    return ServerTimeout(
        "Timeout: request did not complete within requested timeout - context deadline exceeded"
    )
