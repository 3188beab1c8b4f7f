"""The Accept header -> how an answer is represented. Pure; parsed once per distinct header.

Objects come as JSON (or YAML), as a Table, or as their metadata alone. Called by the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from controlplane.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
_META_VERSIONS = ("v1", "v1beta1")
_DISCOVERY_VERSIONS = ("v2", "v2beta1")


class Shape(StrEnum):
    """What the answer's objects look like."""

    OBJECT = "object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Representation:
    """`version` is that of meta.k8s.io for tables and metadata; empty for plain objects."""

    shape: Shape = Shape.OBJECT
    version: str = ""
    yaml: bool = False

    @property
    def content_type(self) -> str:
        return YAML if self.yaml else JSON


@dataclass(frozen=True, slots=True)
class _Clause:
    media_type: str
    parameters: tuple[tuple[str, str], ...]
    quality: float

    def parameter(self, name: str) -> str:
        return dict(self.parameters).get(name, "")


PLAIN = Representation()


@lru_cache(maxsize=256)
def clauses(accept: str) -> tuple[_Clause, ...]:
    """The header's media ranges, best first; equal qualities keep their order."""
    found: list[_Clause] = []
    for part in accept.split(","):
        media_type, *rest = (piece.strip() for piece in part.split(";"))
        if not media_type:
            continue
        parameters: list[tuple[str, str]] = []
        quality = 1.0
        for pair in rest:
            name, _, value = pair.partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "q":
                quality = _quality(value)
            else:
                parameters.append((name.strip().lower(), value))
        found.append(_Clause(media_type.lower(), tuple(parameters), quality))
    found.sort(key=lambda clause: -clause.quality)
    return tuple(clause for clause in found if clause.quality > 0)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


@lru_cache(maxsize=256)
def representation(accept: str, *, lists: bool = False, plain_only: bool = False) -> Representation:
    """The best representation `accept` allows for an object or a watch, or for a list (`lists`).

    `plain_only` refuses tables and bare metadata (subresources, whose bodies are of other kinds). Raises
    NotAcceptable.
    """
    if not accept:
        return PLAIN
    for clause in clauses(accept):
        found = _representation(clause, lists, plain_only)
        if found is not None:
            return found
    raise NotAcceptable("only the following media types are accepted: application/json, application/yaml")


def _representation(clause: _Clause, lists: bool, plain_only: bool) -> Representation | None:
    if clause.media_type in (JSON, "*/*", "application/*"):
        yaml = False
    elif clause.media_type in (YAML, "application/x-yaml", "text/yaml"):
        yaml = True
    else:
        return None
    wanted = clause.parameter("as")
    if not wanted:
        return Representation(yaml=yaml)
    version = clause.parameter("v")
    if plain_only or clause.parameter("g") != "meta.k8s.io" or version not in _META_VERSIONS:
        return None
    if wanted == "Table":
        return Representation(Shape.TABLE, version, yaml)
    if wanted == ("PartialObjectMetadataList" if lists else "PartialObjectMetadata"):
        return Representation(Shape.METADATA, version, yaml)
    return None


@lru_cache(maxsize=64)
def aggregated_discovery(accept: str) -> str:
    """The version (`v2`, `v2beta1`) of aggregated discovery that is preferred, "" for the legacy documents."""
    for clause in clauses(accept):
        if clause.media_type not in (JSON, "*/*", "application/*"):
            continue
        if not clause.parameter("as"):
            return ""
        if (
            clause.parameter("as") == "APIGroupDiscoveryList"
            and clause.parameter("g") == "apidiscovery.k8s.io"
            and clause.parameter("v") in _DISCOVERY_VERSIONS
        ):
            return clause.parameter("v")
    return ""
