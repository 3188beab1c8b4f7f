"""OpenAPI v3 as `/openapi/v3` serves it: an index, and one document per group and version.

Called by the API server. Documents are built when first asked for and kept; their hash, which is a part of
their address, is known without building them. The paths come from the table of served kinds, the schemas
from the package's data. What one path's operations look like is in `openapi_paths.py`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from controlplane.errors import NotFound, Object
from controlplane.resources.kind import Kind
from controlplane.schema import definitions, enums
from controlplane.schema.openapi_paths import META, paths

_documents: dict[tuple[str, str], tuple[str, bytes]] = {}
"""The latest document of each group and version, with its hash."""


def index(kinds: Iterable[Kind]) -> Object:
    """The document at `/openapi/v3`: where each group-version's document is, with its hash."""
    kinds = tuple(kinds)
    found = {}
    for group, version in sorted({(kind.group, kind.version) for kind in kinds}):
        path = _path(group, version)
        url = f"/openapi/v3/{path}?hash={content_hash(group, version, kinds)}"
        found[path] = {"serverRelativeURL": url}
    return {"paths": found}


def content_hash(group: str, version: str, kinds: Iterable[Kind]) -> str:
    """Changes whenever the document would; costs no more than the index."""
    signature = [_signature(kind) for kind in _of(group, version, kinds)]
    return (
        hashlib.sha256(orjson.dumps([_data_hash(), signature], option=orjson.OPT_NON_STR_KEYS))
        .hexdigest()
        .upper()
    )


def document(group: str, version: str, kinds: Iterable[Kind]) -> bytes:
    """The OpenAPI v3 document of one group-version, as JSON.

    `kinds` may hold kinds of other groups too. Raises NotFound when none belongs to this one.
    """
    served = _of(group, version, kinds)
    if not served:
        raise NotFound(f"no OpenAPI document for {_path(group, version)}")
    digest = content_hash(group, version, served)
    known = _documents.get((group, version))
    if known is None or known[0] != digest:
        known = _documents[group, version] = digest, orjson.dumps(_build(group, version, served))
    return known[1]


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _of(group: str, version: str, kinds: Iterable[Kind]) -> list[Kind]:
    return [kind for kind in kinds if (kind.group, kind.version) == (group, version)]


def _signature(kind: Kind) -> list[Any]:
    """All that the document takes from a kind."""
    subresources = [
        [found.name, found.kind, found.verbs, found.group, found.version] for found in kind.subresources
    ]
    return [
        kind.kind,
        kind.plural,
        kind.namespaced,
        kind.verbs,
        kind.status,
        kind.scale is not None,
        subresources,
        kind.strategic_merge,
        kind.definitions,
    ]


@cache
def _data_hash() -> int:
    return zlib.crc32(definitions.DATA.read_bytes())


def _build(group: str, version: str, kinds: Sequence[Kind]) -> Object:
    operations = {path: item for kind in kinds for path, item in paths(kind)}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": definitions.version()},
        "paths": operations,
        "components": {
            "schemas": _reachable(operations, kinds),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "name": "authorization",
                    "in": "header",
                    "description": "Bearer Token authentication",
                }
            },
        },
    }


def _reachable(operations: Object, kinds: Sequence[Kind]) -> Object:
    """The schemas the operations refer to, and those they refer to in turn."""
    known = ChainMap(*(dict(kind.definitions) for kind in kinds), dict(definitions.schemas()))
    found: Object = {}
    pending = [*_references(operations), f"{META}.Status"]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = enums.with_words(name, known[name])
            pending += _references(known[name])
    return dict(sorted(found.items()))


def _references(value: Any) -> Iterator[str]:
    """Full type names behind every `$ref` (which may also be the name of a property, then it is no text)."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key == "$ref" and isinstance(member, str):
                yield member.rpartition("/")[2]
            else:
                yield from _references(member)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
