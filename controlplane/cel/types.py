"""The types of CEL as values: what a variable is declared as and an expression checked to be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CelType:
    """One type. `params` are those of list, map and optional_type; `fields` of an object type, None for all others.

    `parameter` marks a type variable of an overload. A name with a dot and without fields is an opaque type of one
    of the libraries (`net.IP`).
    """

    name: str
    params: tuple[CelType, ...] = ()
    fields: tuple[tuple[str, CelType], ...] | None = None
    parameter: bool = False

    @property
    def is_opaque(self) -> bool:
        return self.fields is None and "." in self.name and not self.name.startswith("google.protobuf.")

    def __str__(self) -> str:
        """As cel-go writes it: `map(string, dyn)`."""
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(map(str, self.params))})"


DYN = CelType("dyn")
BOOL = CelType("bool")
INT = CelType("int")
UINT = CelType("uint")
DOUBLE = CelType("double")
STRING = CelType("string")
BYTES = CelType("bytes")
NULL = CelType("null_type")
TYPE = CelType("type")
TIMESTAMP = CelType("google.protobuf.Timestamp")
DURATION = CelType("google.protobuf.Duration")


def list_of(element: CelType) -> CelType:
    return CelType("list", (element,))


def map_of(key: CelType, value: CelType) -> CelType:
    return CelType("map", (key, value))


def optional_of(inner: CelType) -> CelType:
    return CelType("optional_type", (inner,))


def object_of(name: str, fields: Mapping[str, CelType]) -> CelType:
    """An object with exactly these fields; any other is `undefined field` at compile time. Its values are dicts."""
    return CelType(name, fields=tuple(fields.items()))


ANY_MAP = map_of(STRING, DYN)

AUTHORIZER = CelType("kubernetes.authorization.Authorizer")
PATH_CHECK = CelType("kubernetes.authorization.PathCheck")
GROUP_CHECK = CelType("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK = CelType("kubernetes.authorization.ResourceCheck")
DECISION = CelType("kubernetes.authorization.Decision")
QUANTITY = CelType("kubernetes.Quantity")
URL = CelType("kubernetes.URL")
NAMED_FORMAT = CelType("kubernetes.NamedFormat")
IP = CelType("net.IP")
CIDR = CelType("net.CIDR")
