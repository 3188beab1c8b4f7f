"""The types of the built-in kinds, compiled from the package's data file when first asked for.

Called by strict decoding, strategic merge patch and OpenAPI. Loading takes about 10 ms and happens once;
types are compiled one by one as they are reached. The data (Kubernetes' own definitions, Apache-2.0) is
made by `distill.py`.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path

import orjson

from controlplane.errors import Object
from controlplane.meta.patch.strategic import UNKNOWN, MergeRule

DATA = Path(__file__).with_name("kubernetes.json.gz")
_REFERENCE = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"


class Form(Enum):
    """How a value is decoded. RAW is taken as it is."""

    STRUCT = auto()
    MAP = auto()
    LIST = auto()
    STRING = auto()
    INT32 = auto()
    INT64 = auto()
    FLOAT = auto()
    BOOL = auto()
    BYTES = auto()
    QUANTITY = auto()
    INT_OR_STRING = auto()
    TIME = auto()
    MICRO_TIME = auto()
    RAW = auto()


_NAMED_FORMS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": Form.QUANTITY,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": Form.INT_OR_STRING,
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": Form.TIME,
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": Form.MICRO_TIME,
}
_SCALARS = {
    ("string", ""): (Form.STRING, "string"),
    ("string", "byte"): (Form.BYTES, "[]uint8"),
    ("string", "date-time"): (Form.TIME, "v1.Time"),
    ("integer", "int32"): (Form.INT32, "int32"),
    ("integer", "int64"): (Form.INT64, "int64"),
    ("number", "double"): (Form.FLOAT, "float64"),
    ("boolean", ""): (Form.BOOL, "bool"),
}


class SchemaType:
    """One type. Implements `MergeSchema`, so that it can be given to a strategic merge patch.

    `go_type` is what Go's messages call it (`[]v1.ServicePort`), `element` the type of a list's items or a
    map's values. `fields` (structs only) is compiled at the first access, because types refer to
    themselves.
    """

    __slots__ = ("_fields", "_properties", "_required", "element", "form", "go_type")

    def __init__(
        self, form: Form, go_type: str, element: SchemaType | None = None, schema: Object | None = None
    ) -> None:
        self.form = form
        self.go_type = go_type
        self.element = element
        self._properties: Mapping[str, Object] = (schema or {}).get("properties") or {}
        self._required = frozenset((schema or {}).get("required") or ())
        self._fields: Mapping[str, Field] | None = None

    @property
    def fields(self) -> Mapping[str, Field]:
        """A struct's fields by JSON name; empty for other forms."""
        if self._fields is None:
            self._fields = {
                name: _field(schema, name in self._required) for name, schema in self._properties.items()
            }
        return self._fields

    @property
    def struct_name(self) -> str:
        """The type without its package, as Go's messages name the struct a field belongs to."""
        return self.go_type.rpartition(".")[2]

    def merge_rule(self, field: str) -> MergeRule:
        """How a strategic merge patch treats one member of a struct or map."""
        if self.form is Form.MAP:
            return MergeRule(schema=self.element)
        found = self.fields.get(field)
        return found.merge if found else UNKNOWN

    def __repr__(self) -> str:
        return f"SchemaType({self.go_type})"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct. `list_type` is atomic, set or map (then by `list_map_keys`); empty means atomic.

    `map_type` is atomic or granular.
    """

    type: SchemaType
    required: bool
    merge: MergeRule
    list_type: str
    list_map_keys: tuple[str, ...]
    map_type: str


@cache
def _data() -> Object:
    found: Object = orjson.loads(gzip.decompress(DATA.read_bytes()))
    return found


def version() -> str:
    """The Kubernetes release the definitions belong to, e.g. `v1.32.0`."""
    return str(_data()["version"])


def schemas() -> Mapping[str, Object]:
    """All OpenAPI v3 schemas by full name (`io.k8s.api.core.v1.Pod`). Read-only."""
    found: Mapping[str, Object] = _data()["schemas"]
    return found


@cache
def _names_by_kind() -> Mapping[tuple[str, str], str]:
    """Full type names by (apiVersion, kind)."""
    return {
        (f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"], gvk["kind"]): name
        for name, schema in schemas().items()
        for gvk in schema.get(_GVK) or ()
    }


def name_for(api_version: str, kind: str) -> str | None:
    """The full name of a kind's type, or None if the release has no such kind."""
    return _names_by_kind().get((api_version, kind))


def type_for(api_version: str, kind: str) -> SchemaType | None:
    """The compiled type of a built-in kind, or None for all others."""
    name = name_for(api_version, kind)
    return None if name is None else named(name)


@cache
def named(name: str) -> SchemaType:
    """The compiled type with this full name. Raises KeyError if there is none."""
    schema = schemas()[name]
    go_type = ".".join(name.split(".")[-2:])
    if form := _NAMED_FORMS.get(name):
        return SchemaType(form, go_type)
    if "properties" in schema:
        return SchemaType(Form.STRUCT, go_type, schema=schema)
    return SchemaType(Form.RAW, go_type)


def reference(schema: Object) -> str | None:
    """The full name of the type a schema refers to, if it does."""
    target = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf") or ()), None)
    return target.removeprefix(_REFERENCE) if target else None


def _compile(schema: Object) -> SchemaType:
    """The type of a field, an item or a map's value."""
    name = reference(schema)
    if name is not None:
        return named(name)
    kind = schema.get("type", "")
    if kind == "array":
        element = _compile(schema["items"])
        return SchemaType(Form.LIST, f"[]{element.go_type}", element)
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        element = _compile(schema["additionalProperties"])
        return SchemaType(Form.MAP, f"map[string]{element.go_type}", element)
    form, go_type = _SCALARS.get((kind, schema.get("format", "")), (Form.RAW, "interface {}"))
    return SchemaType(form, go_type)


def _field(schema: Object, required: bool) -> Field:
    compiled = _compile(schema)
    strategies = str(schema.get("x-kubernetes-patch-strategy", "")).split(",")
    inner = compiled.element if compiled.form is Form.LIST else compiled
    rule = MergeRule(
        merge="merge" in strategies,
        key=schema.get("x-kubernetes-patch-merge-key", ""),
        replace="replace" in strategies,
        schema=inner if inner is not None and inner.form in (Form.STRUCT, Form.MAP) else None,
    )
    return Field(
        compiled,
        required,
        rule,
        schema.get("x-kubernetes-list-type", ""),
        tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        schema.get("x-kubernetes-map-type", ""),
    )
