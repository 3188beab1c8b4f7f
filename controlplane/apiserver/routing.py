"""Path and method -> what is asked of which resource (upstream's RequestInfo). Pure.

The path is split first and each segment percent-decoded once, so that an encoded slash or dot never changes what is
addressed. Called by the core and by the authorizer's attributes; knows nothing of kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from controlplane.errors import BadRequest

_VERBS = {
    "POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
}  # fmt: skip
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request, taken apart.

    `verb` is Kubernetes' (`list`, `watch`, `deletecollection`, ...), or the lower-case HTTP method where no resource
    is named. `rest` holds the segments behind a `proxy` subresource, decoded. `is_resource` is False for /version,
    /healthz and discovery.
    """

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    rest: tuple[str, ...] = ()


def split(path: str) -> tuple[str, ...]:
    """The decoded segments of a percent-encoded path.

    Raises BadRequest for segments no name can be (`.`, `..`, with a slash or NUL inside, not UTF-8). A trailing slash
    is ignored; empty segments elsewhere are kept, so that they match nothing.
    """
    segments: list[str] = []
    for raw in path.removeprefix("/").removesuffix("/").split("/"):
        segment = raw
        if "%" in raw:
            try:
                segment = unquote_to_bytes(raw).decode()
            except UnicodeDecodeError as error:
                raise BadRequest(f"the path segment {raw!r} is not UTF-8") from error
        if segment in (".", "..") or "/" in segment or "\0" in segment:
            raise BadRequest(f"the path segment {raw!r} is not allowed")
        segments.append(segment)
    return tuple(segments)


def resolve(method: str, path: str, *, watch: bool = False) -> RequestInfo:
    """What `method` on `path` asks. `watch` is the query's `watch=true`. Raises BadRequest for unsafe paths."""
    raw = path.removeprefix("/").split("/")
    proxied = _proxy_position(raw)
    if proxied:
        head = split("/".join(raw[:proxied]))
        return _resolve(method, path, head, tuple(raw[proxied:]), watch=watch)
    return _resolve(method, path, split(path), (), watch=watch)


def _proxy_position(raw: Sequence[str]) -> int:
    """Where the part behind `.../proxy/` begins, 0 without one. It belongs to the far server: passed on as sent."""
    start = {"api": 2, "apis": 3}.get(raw[0], 0)
    if not start or "proxy" not in raw:
        return 0
    if raw[start : start + 1] == ["namespaces"] and len(raw) > start + 3:
        start += 2
    return start + 3 if len(raw) > start + 3 and raw[start + 2] == "proxy" else 0


def _resolve(
    method: str, path: str, segments: Sequence[str], rest: tuple[str, ...], *, watch: bool
) -> RequestInfo:
    # Rules about paths see what is served, not how it was spelled.
    decoded = "/" + "/".join(segments) + ("/" if path.endswith("/") and segments != ("",) else "")
    other = RequestInfo(method.lower(), decoded if "%" in path else path)
    if len(segments) >= 3 and segments[0] == "api":
        group, version, tail = "", segments[1], list(segments[2:])
    elif len(segments) >= 4 and segments[0] == "apis":
        group, version, tail = segments[1], segments[2], list(segments[3:])
    else:
        return other
    verb = _VERBS.get(method)
    if verb is None and method == "OPTIONS" and rest:
        verb = ""  # as upstream: only who may do everything to a proxy may do that
    if verb is None or "" in tail:
        return other
    namespace = ""
    if tail[0] == "namespaces" and len(tail) > 1:
        namespace = tail[1]
        if len(tail) > 2 and tail[2] not in _NAMESPACE_SUBRESOURCES:
            tail = tail[2:]
    resource, name, subresource = [*tail, "", ""][:3]
    if len(tail) > 3:
        return other
    if not name:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    if watch and not subresource and verb in ("get", "list"):
        verb = "watch"
    return RequestInfo(verb, path, True, group, version, namespace, resource, name, subresource, rest)
