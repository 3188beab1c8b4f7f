"""The JSONPath of client-go, as far as printer columns use it: fields, indexes, slices, wildcards, filters, `..`. Pure.

A path is parsed once and asked for each object. Values come in document order; what is missing gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_FIELD = re.compile(r"\.((?:\\.|[^.\[\]{}()'\"\s\\?@=<>!,:$])+)")
_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?\Z")
_NUMBER = re.compile(r"-?\d+(\.\d+)?\Z")
_OPERATOR = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")
_LIMIT = 100


@dataclass(frozen=True, slots=True)
class JsonPath:
    """`steps` lead from a value to the values behind it, one after another."""

    steps: Sequence[Step]

    def find(self, root: Any) -> list[Any]:
        found = [root]
        for step in self.steps:
            found = [value for each in found for value in step(each)]
        return found


def parse(text: str) -> JsonPath:
    """A relaxed path as columns have it (`.spec.replicas`, braces are optional). Raises ValueError."""
    plain = text.strip()
    if plain.startswith("{") and plain.endswith("}"):
        plain = plain[1:-1].strip()
    plain = plain.removeprefix("$").removeprefix("@")
    if plain and plain[0] not in ".[":
        plain = "." + plain
    steps: list[Step] = []
    at = 0
    while at < len(plain):
        step, at = _step(plain, at)
        if step is not None:
            steps.append(step)
        if len(steps) > _LIMIT:
            raise ValueError("the path is too long")
    return JsonPath(tuple(steps))


def _step(text: str, at: int) -> tuple[Step | None, int]:
    if text.startswith("..", at):
        return _descend, at + 1 if text[at + 2 : at + 3] != "[" else at + 2
    if text.startswith(".*", at):
        return _members, at + 2
    if text.startswith(".[", at):
        return None, at + 1
    if text[at] == "[":
        end = _closing(text, at)
        return _bracket(text[at + 1 : end].strip()), end + 1
    if text[at:] == ".":
        return None, at + 1
    match = _FIELD.match(text, at)
    if match is None:
        raise ValueError(f"unrecognized character in action: {text[at + 1 : at + 2] or text[at]!r}")
    return _field(re.sub(r"\\(.)", r"\1", match.group(1))), match.end()


def _closing(text: str, at: int) -> int:
    depth, quote = 0, ""
    for position in range(at, len(text)):
        letter = text[position]
        if quote:
            if letter == quote and text[position - 1] != "\\":
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
            if depth == 0:
                return position
    raise ValueError("unterminated array")


def _bracket(inside: str) -> Step:
    if inside == "*":
        return _members
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1].strip())
    if _QUOTED.match(inside) or "," in inside:
        return _union([_one(part.strip()) for part in inside.split(",")])
    return _one(inside)


def _one(text: str) -> Step:
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return _field(re.sub(r"\\(.)", r"\1", quoted.group(1) or quoted.group(2) or ""))
    if re.fullmatch(r"-?\d+", text):
        return _index(int(text))
    match = _SLICE.match(text)
    if match is None:
        raise ValueError(f"invalid array index {text}")
    start, stop, step = ((int(each) if each else None) for each in match.groups())
    if step is not None and step <= 0:
        raise ValueError("step must be > 0")
    return _slice(start, stop, step)


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(number: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            yield value[number]

    return step


def _slice(start: int | None, stop: int | None, width: int | None) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[start:stop:width]

    return step


def _union(steps: Sequence[Step]) -> Step:
    def step(value: Any) -> Iterator[Any]:
        for each in steps:
            yield from each(value)

    return step


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (value[name] for name in sorted(value))
    elif isinstance(value, list):
        yield from value


def _descend(value: Any) -> Iterator[Any]:
    yield value
    for member in _members(value):
        yield from _descend(member)


def _filter(text: str) -> Step:
    match = _split(text)
    if match is None:
        operand = _operand(text)

        def exists(value: Any) -> Iterator[Any]:
            yield from (item for item in _items(value) if operand(item))

        return exists
    left, operator, right = _operand(match[0]), match[1], _operand(match[2])

    def step(value: Any) -> Iterator[Any]:
        for item in _items(value):
            one, other = left(item), right(item)
            if one and other and _compare(one[0], operator, other[0]):
                yield item

    return step


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _split(text: str) -> tuple[str, str, str] | None:
    quote = ""
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            match = _OPERATOR.match(text, at)
            if match:
                return text[:at].strip(), match.group(1), text[match.end() :].strip()
    return None


def _operand(text: str) -> Callable[[Any], list[Any]]:
    quoted = _QUOTED.fullmatch(text)
    constant: Any
    if quoted:
        constant = re.sub(r"\\(.)", r"\1", quoted.group(1) or quoted.group(2) or "")
    elif _NUMBER.match(text):
        constant = float(text) if "." in text else int(text)
    elif text in ("true", "false"):
        constant = text == "true"
    elif text.startswith("@"):
        return parse(text).find if text != "@" else lambda item: [item]
    else:
        raise ValueError(f"unrecognized filter operand {text!r}")
    return lambda item: [constant]


def _compare(one: Any, operator: str, other: Any) -> bool:
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, str) is not isinstance(other, str) or isinstance(one, dict | list):
        return False
    match operator:
        case "==":
            return bool(one == other)
        case "!=":
            return bool(one != other)
        case "<":
            return bool(one < other)
        case "<=":
            return bool(one <= other)
        case ">":
            return bool(one > other)
        case _:
            return bool(one >= other)
