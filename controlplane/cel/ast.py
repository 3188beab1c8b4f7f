"""Checked expressions as protobuf messages, to read types from and to rewrite calls in. Loaded with the CEL runtime.

Only the fields this package needs are described; protobuf carries the others along untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from controlplane.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    list_of,
    map_of,
)

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _FIELD.TYPE_STRING, "int": _FIELD.TYPE_INT64, "bool": _FIELD.TYPE_BOOL}
_MESSAGES: dict[str, tuple[str, ...]] = {
    "Any": ("1 string type_url", "2 bytes value"),
    "Constant": ("3 int int64_value", "6 string string_value"),
    "Ident": ("1 string name",),
    "Select": ("1 Expr operand", "2 string field", "3 bool test_only"),
    "Call": ("1 Expr target", "2 string function", "3 *Expr args"),
    "CreateList": ("1 *Expr elements",),
    "Entry": ("3 Expr map_key", "4 Expr value"),
    "CreateStruct": ("2 *Entry entries",),
    "Comprehension": (
        "1 string iter_var", "2 Expr iter_range", "3 string accu_var", "4 Expr accu_init", "5 Expr loop_condition",
        "6 Expr loop_step", "7 Expr result", "8 string iter_var2",
    ),
    "Expr": (
        "2 int id", "3 Constant const_expr", "4 Ident ident_expr", "5 Select select_expr", "6 Call call_expr",
        "7 CreateList list_expr", "8 CreateStruct struct_expr", "9 Comprehension comprehension_expr",
    ),
    "Empty": (),
    "ListType": ("1 Type elem_type",),
    "MapType": ("1 Type key_type", "2 Type value_type"),
    "AbstractType": ("1 string name", "2 *Type parameter_types"),
    "Type": (
        "1 Empty dyn", "2 int null", "3 int primitive", "4 int wrapper", "5 int well_known", "6 ListType list_type",
        "7 MapType map_type", "9 string message_type", "14 AbstractType abstract_type",
    ),
    "Typed": ("1 int key", "2 Type value"),
    "Position": ("1 int key", "2 int value"),
    "SourceInfo": ("3 *int line_offsets", "4 *Position positions"),
    "CheckedExpr": ("3 *Typed type_map", "4 Expr expr", "5 SourceInfo source_info"),
}  # fmt: skip
_PRIMITIVES = {1: BOOL, 2: INT, 3: UINT, 4: DOUBLE, 5: STRING, 6: BYTES}


def _classes() -> dict[str, Any]:
    package = "netkit.cel"
    file = descriptor_pb2.FileDescriptorProto(name="netkit/cel.proto", package=package, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            number, kind, field = text.split()
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            added = message.field.add(
                name=field,
                number=int(number),
                label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
            )
            if kind == "bytes":
                added.type = _FIELD.TYPE_BYTES
            elif kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type = _FIELD.TYPE_MESSAGE
                added.type_name = f".{package}.{kind}"
            if not repeated and kind in _SCALARS and name in ("Type", "Constant"):
                # Members of a oneof, whose presence matters even for zero values.
                added.proto3_optional = True
                added.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in ("Any", "CheckedExpr", "Expr")
    }


_CLASSES = _classes()
Node = Any
"""An `Expr` message."""


class Checked:
    """One checked expression: its root, the type of each node, and where each stands in the text."""

    def __init__(self, serialized: bytes) -> None:
        self._envelope = _CLASSES["Any"].FromString(serialized)
        self._message = _CLASSES["CheckedExpr"].FromString(self._envelope.value)
        self._types = {entry.key: entry.value for entry in self._message.type_map}

    @property
    def root(self) -> Node:
        return self._message.expr

    def type_of(self, node: Node) -> CelType:
        found = self._types.get(node.id)
        return DYN if found is None else _type(found)

    def position(self, node: Node) -> int:
        """The node's offset in the text, in characters."""
        for entry in self._message.source_info.positions:
            if entry.key == node.id:
                return int(entry.value)
        return 0

    def nodes(self) -> Iterator[Node]:
        yield from walk(self.root)

    def wrap_call(self, node: Node, function: str) -> None:
        """Put `function(...)` around the node."""
        inner = _CLASSES["Expr"]()
        inner.CopyFrom(node)
        highest = max(entry.key for entry in self._message.type_map)
        node.Clear()
        node.id = highest + 1
        added = self._message.type_map.add(key=highest + 1)
        added.value.dyn.SetInParent()
        node.call_expr.function = function
        node.call_expr.args.add().CopyFrom(inner)

    def serialize(self) -> bytes:
        self._envelope.value = self._message.SerializeToString()
        return bytes(self._envelope.SerializeToString())


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, children first, so that a caller may rewrite what it is given."""
    for child in children(node):
        yield from walk(child)
    yield node


def children(node: Node) -> list[Node]:
    """The expressions directly inside."""
    found: list[Node] = []
    if node.HasField("select_expr"):
        found.append(node.select_expr.operand)
    elif node.HasField("call_expr"):
        if node.call_expr.HasField("target"):
            found.append(node.call_expr.target)
        found += node.call_expr.args
    elif node.HasField("list_expr"):
        found += node.list_expr.elements
    elif node.HasField("struct_expr"):
        for entry in node.struct_expr.entries:
            if entry.HasField("map_key"):
                found.append(entry.map_key)
            found.append(entry.value)
    elif node.HasField("comprehension_expr"):
        loop = node.comprehension_expr
        found += [loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result]
    return found


def _type(message: Any) -> CelType:
    if message.HasField("null"):
        return NULL
    if message.HasField("primitive"):
        return _PRIMITIVES[message.primitive]
    if message.HasField("wrapper"):
        return _PRIMITIVES[message.wrapper]
    if message.HasField("well_known"):
        return {2: TIMESTAMP, 3: DURATION}.get(message.well_known, DYN)
    if message.HasField("list_type"):
        return list_of(_type(message.list_type.elem_type))
    if message.HasField("map_type"):
        return map_of(_type(message.map_type.key_type), _type(message.map_type.value_type))
    if message.HasField("message_type"):
        return CelType(message.message_type)
    if message.HasField("abstract_type"):
        abstract = message.abstract_type
        return CelType(abstract.name, tuple(map(_type, abstract.parameter_types)))
    return DYN
