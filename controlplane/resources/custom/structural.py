"""The structural part of a CustomResourceDefinition's schema: what is there, apart from which values it may have.

Made from a valid `openAPIV3Schema`; used by pruning, defaulting, list checks and CEL rules. Value validation reads the
same document on its own (`values.py`), since it also descends into allOf and its like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.errors import Object

META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """One node. `additional` describes the values of a map (None = no map); `raw` is the node as written."""

    raw: Object
    type: str = ""
    nullable: bool = False
    default: object = None
    properties: Mapping[str, Schema] = field(default_factory=dict)
    additional: Schema | None = None
    items: Schema | None = None
    preserve_unknown: bool = False
    embedded: bool = False
    int_or_string: bool = False
    list_type: str = ""
    list_map_keys: Sequence[str] = ()
    map_type: str = ""
    rules: Sequence[Object] = ()
    has_defaults: bool = False
    has_lists: bool = False
    has_rules: bool = False
    has_embedded: bool = False

    @property
    def children(self) -> list[Schema]:
        return [
            *self.properties.values(),
            *([self.additional] if self.additional else ()),
            *([self.items] if self.items else ()),
        ]


ANYTHING = Schema({"x-kubernetes-preserve-unknown-fields": True}, preserve_unknown=True)


def compile_schema(raw: Object | None) -> Schema:
    """The node and all below it. Unknown keywords are left alone: they were refused before."""
    if raw is None:
        return ANYTHING
    properties = {name: compile_schema(member) for name, member in (raw.get("properties") or {}).items()}
    written = raw.get("additionalProperties")
    additional = None
    if isinstance(written, dict):
        additional = compile_schema(written)
    elif written is True:
        additional = ANYTHING
    items = compile_schema(raw["items"]) if isinstance(raw.get("items"), dict) else None
    children = [*properties.values(), *([additional] if additional else ()), *([items] if items else ())]
    list_type = raw.get("x-kubernetes-list-type") or ""
    rules = tuple(raw.get("x-kubernetes-validations") or ())
    return Schema(
        raw,
        type=raw.get("type") or "",
        nullable=bool(raw.get("nullable")),
        default=raw.get("default"),
        properties=properties,
        additional=additional,
        items=items,
        preserve_unknown=bool(raw.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(raw.get("x-kubernetes-embedded-resource")),
        int_or_string=bool(raw.get("x-kubernetes-int-or-string")),
        list_type=list_type,
        list_map_keys=tuple(raw.get("x-kubernetes-list-map-keys") or ()),
        map_type=raw.get("x-kubernetes-map-type") or "",
        rules=rules,
        has_defaults=raw.get("default") is not None or any(child.has_defaults for child in children),
        has_lists=list_type in ("set", "map") or any(child.has_lists for child in children),
        has_rules=bool(rules) or any(child.has_rules for child in children),
        has_embedded=bool(raw.get("x-kubernetes-embedded-resource"))
        or any(child.has_embedded for child in children),
    )
