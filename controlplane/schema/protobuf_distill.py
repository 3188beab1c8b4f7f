"""Makes `protobuf.json.gz`, the table of the protobuf messages, from a kubectl program.

    python -m controlplane.schema.protobuf_distill KUBECTL

Run by hand when the served Kubernetes version moves; the program must be of that version. The server never
imports this module. kubectl also embeds the messages' own descriptors, but those lack what decoding needs:
which scalars are pointers (an explicit zero counts), which structs JSON inlines, and the JSON names where they
differ. The Go structs' tags say all of that and the field numbers as well, so the table is made from them; a
test compares it with the descriptors.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from controlplane.schema import definitions
from controlplane.schema.go_binary import GoField, GoKind, GoProgram, GoType
from controlplane.schema.protobuf_shapes import Row, Shape
from controlplane.schema.protobuf_table import DATA

_API, _MACHINERY = "k8s.io/api/", "k8s.io/apimachinery/"
_SCALARS = {
    GoKind.BOOL: "bool",
    GoKind.INT32: "int32",
    GoKind.INT64: "int64",
    GoKind.STRING: "string",
}
_SPECIAL = {
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "Quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "IntOrString",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "Time",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "MicroTime",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "RawJSON",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "RawJSON",
}
"""Structs whose JSON is not that of their fields."""
_WRAPPED_SLICES = ("Verbs", "ExtraValue")
"""Named slices that are messages of their own, with the items in field 1."""


def message_name(package: str, name: str) -> str:
    """As the OpenAPI definitions name a type: `io.k8s.api.core.v1.Pod`."""
    domain, _, path = package.partition("/")
    return ".".join([*reversed(domain.split(".")), *path.split("/"), name])


def distill(structs: Iterable[GoType], kinds: Iterable[str]) -> Mapping[str, Mapping[int, Row]]:
    """The messages reachable from `kinds`, by name and field number. Kinds without a struct are left out.

    Raises ValueError for a struct or field this does not know how to decode.
    """
    known = {message_name(found.package, found.name): found for found in structs}
    messages: dict[str, Mapping[int, Row]] = {}
    waiting = [name for name in kinds if name in known]
    while waiting:
        name = waiting.pop()
        if name in messages:
            continue
        messages[name] = rows = _message(known[name])
        waiting.extend(type_name for _, _, type_name in rows.values() if type_name in known)
    return messages


def _message(struct: GoType) -> Mapping[int, Row]:
    rows: dict[int, Row] = {}
    for field in struct.fields():
        number = re.search(r'\bprotobuf:"\w+,(\d+)', field.tag)
        if number is None:
            if field.name != "TypeMeta":
                raise ValueError(f"{struct.text}: field {field.name} has no number")
            continue
        try:
            rows[int(number[1])] = _row(field)
        except ValueError as error:
            raise ValueError(f"{struct.text}.{field.name}: {error}") from error
    return rows


def _row(field: GoField) -> Row:
    found = re.search(r'\bjson:"([^",]*)([^"]*)"', field.tag)
    if found is None or found[1] == "-" or (not found[1] and not field.embedded):
        raise ValueError("no JSON name")
    name, omitted = found[1], "omitempty" in found[2]
    shape, type_name = _shape(field.type)
    if shape is Shape.PLAIN and not omitted and "." not in type_name:
        shape = Shape.ALWAYS
    return name, shape, type_name


def _shape(type_: GoType) -> tuple[Shape, str]:
    if type_.kind == GoKind.POINTER:
        return Shape.POINTER, _single(type_.element)
    if type_.kind == GoKind.MAP:
        if type_.key.kind != GoKind.STRING:
            raise ValueError(f"a map with keys of {type_.key.text}")
        return Shape.MAP, _single(type_.element)
    if type_.kind == GoKind.SLICE and not type_.named and type_.element.kind != GoKind.UINT8:
        return Shape.LIST, _single(type_.element)
    return Shape.PLAIN, _single(type_)


def _single(type_: GoType) -> str:
    if type_.kind == GoKind.STRUCT:
        full = f"{type_.package}.{type_.name}"
        if full in _SPECIAL:
            return _SPECIAL[full]
        if type_.package.startswith((_API, _MACHINERY)):
            return message_name(type_.package, type_.name)
    elif type_.kind == GoKind.SLICE:
        item = type_.element.kind
        if item == GoKind.UINT8:
            return "bytes"
        if type_.named and item == GoKind.STRING and type_.name in _WRAPPED_SLICES:
            return "Strings"
    elif type_.kind in _SCALARS:
        return _SCALARS[GoKind(type_.kind)]
    raise ValueError(f"cannot decode {type_.text}")


def from_program(program: bytes) -> Mapping[str, Mapping[int, Row]]:
    """The table for all kinds of the definitions that `program` has structs of."""
    structs = [
        found for found in GoProgram(program).structs() if found.package.startswith((_API, _MACHINERY))
    ]
    kinds = sorted(
        name
        for name, schema in definitions.schemas().items()
        if schema.get("x-kubernetes-group-version-kind")
    )
    return distill(structs, kinds)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit("usage: python -m controlplane.schema.protobuf_distill KUBECTL")
    messages = from_program(Path(arguments[0]).read_bytes())
    table = {name: {str(number): row for number, row in rows.items()} for name, rows in messages.items()}
    # Without a time stamp the same input gives the same file.
    DATA.write_bytes(gzip.compress(orjson.dumps(table, option=orjson.OPT_SORT_KEYS), 9, mtime=0))
    print(f"{DATA.name}: {len(table)} messages, {DATA.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
