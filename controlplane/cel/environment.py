"""The two environments of the CEL runtime: one per set of variables to check in, and one for all to evaluate in.

Checking knows the libraries' opaque types and the fields of object types (declared to the runtime as protobuf
messages); the runtime cannot hold such values from Python, so evaluation happens in an environment where they are
maps. Checked expressions are carried from one to the other, rewritten where results differ. Loaded with the runtime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from itertools import product
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    struct_pb2,
    timestamp_pb2,
)

from controlplane.cel.ast import Checked
from controlplane.cel.errors import compile_fault
from controlplane.cel.functions import Function
from controlplane.cel.library import FUNCTIONS
from controlplane.cel.types import DURATION, TIMESTAMP, CelType
from controlplane.cel.verification import verify

__all__ = ["adapt", "check", "evaluator", "verify"]

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL, "int": _FIELD.TYPE_INT64, "uint": _FIELD.TYPE_UINT64, "double": _FIELD.TYPE_DOUBLE,
    "string": _FIELD.TYPE_STRING, "bytes": _FIELD.TYPE_BYTES,
}  # fmt: skip
_WELL_KNOWN = {
    "google.protobuf.Timestamp": ".google.protobuf.Timestamp",
    "google.protobuf.Duration": ".google.protobuf.Duration",
    "list": ".google.protobuf.ListValue",
    "map": ".google.protobuf.Struct",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_UNUSABLE = re.compile(r"[^A-Za-z0-9_]")
_RESERVED = (19000, 1000)
"""The first field number that is protobuf's own, and how many there are."""
_TYPE = cel.Type
_RUNTIME_TYPES = {
    "bool": _TYPE.BOOL, "int": _TYPE.INT, "uint": _TYPE.UINT, "double": _TYPE.DOUBLE, "string": _TYPE.STRING,
    "bytes": _TYPE.BYTES, "null_type": _TYPE.NULL, "list": _TYPE.LIST, "map": _TYPE.MAP,
    "google.protobuf.Timestamp": _TYPE.TIMESTAMP, "google.protobuf.Duration": _TYPE.DURATION,
}  # fmt: skip
_KINDS = (*_RUNTIME_TYPES,)
_WIDTHS = ("google.protobuf.Timestamp", "google.protobuf.Duration")


@lru_cache(maxsize=512)
def checker(variables: tuple[tuple[str, CelType], ...]) -> Any:
    """The environment that checks expressions over these variables."""
    pool, names = _declare(kind for _, kind in variables)
    return cel.NewEnv(
        pool,
        config=_declarations(),
        variables={name: _checked_type(kind, names) for name, kind in variables},
        extensions=[ext_optional.ExtOptional()],
    )


def check(text: str, variables: tuple[tuple[str, CelType], ...]) -> Checked:
    """Raises CelCompileError."""
    try:
        return Checked(checker(variables).compile(text).serialize())
    except RuntimeError as fault:
        raise compile_fault(str(fault)) from fault


def adapt(checked: Checked) -> None:
    """Rewrite an expression for evaluation: results that the runtime cannot take from Python are made by it."""
    optional, timed = _special_functions()
    for node in list(checked.nodes()):
        if not node.HasField("call_expr"):
            continue
        call = node.call_expr
        key = (call.function, call.HasField("target"))
        result = checked.type_of(node)
        if key in timed and result in (TIMESTAMP, DURATION):
            call.function = _variant(call.function, result.name)
        elif key in optional and result.name in ("optional_type", "dyn"):
            checked.wrap_call(node, "optional.ofNonZeroValue")


@cache
def evaluator() -> Any:
    """The environment all expressions are evaluated in."""
    declarations: dict[str, list[Any]] = {}
    for function in FUNCTIONS:
        for name, returns in _forms(function):
            declarations.setdefault(name, []).extend(_runtime_overloads(function, name, returns))
    return cel.NewEnv(
        extensions=[ext_optional.ExtOptional()],
        functions=[cel.FunctionDecl(name, overloads) for name, overloads in declarations.items()],
    )


@cache
def _special_functions() -> tuple[frozenset[tuple[str, bool]], frozenset[tuple[str, bool]]]:
    """The functions with optional results, and those with results of several kinds among them times."""
    optional: set[tuple[str, bool]] = set()
    timed: set[tuple[str, bool]] = set()
    for function in FUNCTIONS:
        results = {overload.returns.name for overload in function.overloads}
        if "optional_type" in results:
            optional.add((function.name, function.member))
        if results & set(_WIDTHS):
            timed.add((function.name, function.member))
    return frozenset(optional), frozenset(timed)


def _variant(function: str, kind: str) -> str:
    return f"{function}@{kind.rpartition('.')[2].lower()}"


def _forms(function: Function) -> Iterable[tuple[str, Any]]:
    """The names it goes by at run time with the declared result: the runtime takes times only where declared."""
    yield function.name, _TYPE.DYN
    results = {overload.returns.name for overload in function.overloads}
    for name in _WIDTHS:
        if name in results:
            yield _variant(function.name, name), _RUNTIME_TYPES[name]


def _runtime_overloads(function: Function, name: str, returns: Any) -> Iterable[Any]:
    seen: set[tuple[str, ...]] = set()
    for overload in function.overloads:
        for kinds in product(*(_runtime_kinds(parameter) for parameter in overload.parameters)):
            if kinds in seen:
                continue
            seen.add(kinds)
            yield cel.Overload(
                f"{name}/{'member' if function.member else 'plain'}/{','.join(kinds)}",
                returns,
                [_RUNTIME_TYPES[kind] for kind in kinds],
                is_member=function.member,
                impl=function.implementation,
            )


def _runtime_kinds(kind: CelType) -> tuple[str, ...]:
    if kind.parameter or kind.name == "dyn":
        return _KINDS
    return (kind.name,) if kind.name in _RUNTIME_TYPES else ("map",)


@cache
def _declarations() -> Any:
    """All functions of the libraries as the runtime's configuration, which alone can name optional results."""
    functions: dict[str, list[dict[str, Any]]] = {}
    for function in FUNCTIONS:
        for overload in function.overloads:
            parameters = [_spelled(kind) for kind in overload.parameters]
            entry: dict[str, Any] = {"id": overload.id, "return": _spelled(overload.returns)}
            if function.member:
                entry["target"] = parameters.pop(0)
            entry["args"] = parameters
            functions.setdefault(function.name, []).append(entry)
    config = {
        "name": "kubernetes",
        "functions": [{"name": name, "overloads": overloads} for name, overloads in functions.items()],
    }
    return cel.NewEnvConfigFromYaml(json.dumps(config))


def _spelled(kind: CelType) -> dict[str, Any]:
    if kind.parameter:
        return {"type_name": kind.name, "is_type_param": True}
    name = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration"}.get(
        kind.name, kind.name
    )
    spelled: dict[str, Any] = {"type_name": name}
    if kind.params:
        spelled["params"] = [_spelled(inner) for inner in kind.params]
    return spelled


def _checked_type(kind: CelType, names: Mapping[CelType, str]) -> Any:
    if kind.fields is not None:
        return _TYPE(names[kind])
    if kind.name == "list":
        return _TYPE.List(_checked_type(kind.params[0], names))
    if kind.name == "map":
        return _TYPE.Map(_checked_type(kind.params[0], names), _checked_type(kind.params[1], names))
    if kind.is_opaque:
        return _TYPE(kind.name)
    return _RUNTIME_TYPES.get(kind.name, _TYPE.DYN)


def _declare(kinds: Iterable[CelType]) -> tuple[Any, Mapping[CelType, str]]:
    """A pool that describes all object types inside `kinds` as messages, and their names there."""
    objects: dict[CelType, str] = {}
    for kind in kinds:
        _collect(kind, objects)
    pool = descriptor_pool.DescriptorPool()
    for module in (struct_pb2, timestamp_pb2, duration_pb2):
        known = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(known)
        pool.Add(known)
    file = descriptor_pb2.FileDescriptorProto(name="objects.proto", syntax="proto2")
    file.dependency.extend(
        ["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/protobuf/duration.proto"]
    )
    for kind, name in objects.items():
        message = file.message_type.add(name=name)
        # What is no identifier no expression can name.
        usable = [pair for pair in kind.fields or () if _IDENTIFIER(pair[0])]
        for at, (field, inner) in enumerate(usable, start=1):
            number = at if at < _RESERVED[0] else at + _RESERVED[1]
            _add_field(message, name, number, field, inner, objects)
        for described in message.field:
            # Else protobuf makes one up, and finds it twice in `foo_bar` and `fooBar`.
            described.json_name = f"field{described.number}"
    pool.Add(file)
    return pool, objects


def _collect(kind: CelType, objects: dict[CelType, str]) -> None:
    if kind in objects:
        return
    if kind.fields is not None:
        taken = set(objects.values())
        name = _UNUSABLE.sub("_", kind.name) or "object"
        while name in taken:
            name += "_"
        objects[kind] = name
        for _, inner in kind.fields:
            _collect(inner, objects)
    for inner in kind.params:
        _collect(inner, objects)


def _add_field(
    message: Any, owner: str, number: int, name: str, kind: CelType, objects: Mapping[CelType, str]
) -> None:
    if kind.name == "list":
        label, element = _FIELD.LABEL_REPEATED, kind.params[0]
    elif kind.name == "map" and kind.params[0].name == "string":
        entry_name = _entry_name(name)
        if any(nested.name == entry_name for nested in message.nested_type):
            # Two names that differ in underscores only: protobuf has one word for both.
            field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            field.type, field.type_name = _FIELD.TYPE_MESSAGE, ".google.protobuf.Value"
            return
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        _describe(
            entry.field.add(name="value", number=2, label=_FIELD.LABEL_OPTIONAL), kind.params[1], objects
        )
        field = message.field.add(name=name, number=number, label=_FIELD.LABEL_REPEATED)
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{owner}.{entry_name}"
        return
    else:
        label, element = _FIELD.LABEL_OPTIONAL, kind
    _describe(message.field.add(name=name, number=number, label=label), element, objects)


def _entry_name(field: str) -> str:
    """What protobuf wants a map's entries to be called."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _describe(field: Any, kind: CelType, objects: Mapping[CelType, str]) -> None:
    if kind.name in _SCALARS and kind.fields is None:
        field.type = _SCALARS[kind.name]
        return
    field.type = _FIELD.TYPE_MESSAGE
    if kind.fields is not None:
        field.type_name = f".{objects[kind]}"
    else:
        field.type_name = _WELL_KNOWN.get(kind.name, ".google.protobuf.Value")
