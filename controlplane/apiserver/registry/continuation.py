"""Continue tokens: where a list in pages goes on, opaque to clients. Pure.

The form is upstream's: base64url JSON of a version, the revision of the list and the key to start behind.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from controlplane.errors import BadRequest

_VERSION = "meta.k8s.io/v1"
LATEST = -1
"""The revision of a list that goes on at whatever is newest: its beginning has been compacted."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The list was read at `revision` (negative = `LATEST`); the last key handed out is `after`."""

    revision: int
    after: str

    def token(self) -> str:
        body = {"v": _VERSION, "rv": self.revision, "start": self.after + "\0"}
        return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")


def parse_token(token: str, namespace: str) -> Continuation:
    """Raises BadRequest ("invalid continue token: ...") for what we never gave out for this list."""
    try:
        body = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as fault:
        raise _bad(str(fault)) from fault
    if not isinstance(body, dict) or body.get("v") != _VERSION:
        raise _bad("server does not recognize this encoded version")
    revision, start = body.get("rv"), body.get("start")
    if not isinstance(revision, int) or isinstance(revision, bool) or revision == 0:
        raise _bad(f"incorrect encoded start resourceVersion (version {_VERSION})")
    if not isinstance(start, str) or not start.strip("\0"):
        raise _bad(f"encoded start key empty (version {_VERSION})")
    after = start.removesuffix("\0")
    if ".." in after.split("/") or (namespace and not after.startswith(namespace + "/")):
        raise _bad(start.strip("\0"))
    return Continuation(revision, after)


def _bad(why: str) -> BadRequest:
    return BadRequest(f"invalid continue token: continue key is not valid: {why}")
