"""Faults of CEL expressions, in the words of cel-go and the Kubernetes API server.

CelError
|-- CelCompileError     the text is no expression, or its types do not fit
`-- CelRuntimeError     it is one, but these values make it fail
"""

from __future__ import annotations

import re


class CelError(Exception):
    """`str(error)` is what a client is shown."""


class CelCompileError(CelError):
    """`compilation failed: ERROR: <input>:1:6: ...`, or `must evaluate to bool`."""


class CelRuntimeError(CelError):
    """`no such key: replicas`."""


_STATUS = re.compile(r"^(?:(?!ERROR)[A-Z_]+: )+")
_SUFFIX = re.compile(r" \[[A-Z_]+\]$")
_KEY = re.compile(r'^Key not found in map : "?(.*?)"?$', re.DOTALL)
_INDEX = re.compile(r"^Index error: index=(-?\d+)")
_CONVERSION = re.compile(r"^cannot convert (string|double|int|uint) to (\w+)$")
_TYPE_CONVERSION = re.compile(r"^Type conversion error from '(\w+)' to '(\w+)'$")
_UNDEFINED = re.compile(r"(undefined field '[^']*') not found in struct '[^']*'")
_NO_SELECTION = re.compile(r"expression of type ('.*?') cannot be the operand of a select operation")
_RECURSION = re.compile(r"Exceeded max recursion depth of (\d+) when parsing\.")
_UNDECLARED = re.compile(
    r"<input>:(\d+):(\d+): undeclared reference to '(\w+)((?:\.\w+)+)' (\(in container '[^']*'\)\n \| .*\n \| )\.*\^"
)
_FIXED = {
    "divide by zero": "division by zero",
    "String to Timestamp conversion failed": "type conversion error from 'string' to 'google.protobuf.Timestamp'",
    "String to Duration conversion failed": "type conversion error from 'string' to 'google.protobuf.Duration'",
    "Iteration budget exceeded": "operation cancelled: actual cost limit exceeded",
    "Applying SELECT to non-message type": "no such overload",
}


def compile_fault(text: str) -> CelCompileError:
    """The runtime's report of a failed check, in cel-go's words."""
    text = _SUFFIX.sub("", _STATUS.sub("", text).rstrip())
    text = _UNDEFINED.sub(r"\1", text)
    text = _NO_SELECTION.sub(r"type \1 does not support field selection", text)
    text = _UNDECLARED.sub(_first_name, text)
    text = _RECURSION.sub(r"expression recursion limit exceeded: \1", text)
    text = text.replace("Expression recursion limit exceeded. limit", "expression recursion limit exceeded")
    if not text.startswith("ERROR:"):
        text = f"ERROR: <input>:1:1: {text}"
    return CelCompileError(f"compilation failed: {text}")


def _first_name(match: re.Match[str]) -> str:
    """Of `params.x` it is `params` that is not known, and the place is where that begins."""
    line, column, name, rest, middle = match.groups()
    before = name + rest.rpartition(".")[0]
    start = max(1, int(column) - len(before))
    return f"<input>:{line}:{start}: undeclared reference to '{name}' {middle}{'.' * (start - 1)}^"


def runtime_fault(text: str) -> CelRuntimeError:
    """The runtime's error value, in cel-go's words."""
    text = _SUFFIX.sub("", _STATUS.sub("", text))
    if match := _KEY.match(text):
        return CelRuntimeError(f"no such key: {match[1]}")
    if match := _INDEX.match(text):
        return CelRuntimeError(f"index out of bounds: {match[1]}")
    if text.startswith("No matching overloads found"):
        return CelRuntimeError("no such overload")
    if match := _CONVERSION.match(text) or _TYPE_CONVERSION.match(text):
        return CelRuntimeError(f"type conversion error from '{match[1]}' to '{match[2]}'")
    return CelRuntimeError(_FIXED.get(text, text))
