"""Validation of values against an OpenAPI v3 schema, with the texts of kube-openapi's validator (v0.32).

A `Validator` is compiled once for a schema and asked for every write. With an old object it ratchets: what an update
leaves as it was is not judged again. Structure is judged elsewhere (`shaping.py`, `lists.py`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.resources import fieldpath
from controlplane.resources.custom import formats, golang
from controlplane.resources.custom.regexp import compile_pattern

NOWHERE = "<nil>"
"""The path upstream gives faults of a whole composition (allOf and its like)."""
_MISSING = object()


@dataclass(slots=True)
class _Result:
    """`matched` counts the checks that were made, which chooses the alternative that is told of."""

    causes: list[Cause] = field(default_factory=list)
    matched: int = 0

    def merge(self, other: _Result) -> None:
        self.causes += other.causes
        self.matched += other.matched


class Validator:
    """One schema node, compiled."""

    def __init__(self, schema: Object) -> None:
        kind = schema.get("type") or ""
        self._types: Sequence[str] = (kind,) if kind else ()
        if schema.get("x-kubernetes-int-or-string"):
            self._types = ("integer", "string")
        self._nullable = bool(schema.get("nullable"))
        self._format = schema.get("format") or ""
        self._format_check = formats.check_for(self._format) if self._format else None
        if self._format_check is None:
            self._format = ""
        self._enum: Sequence[Any] | None = schema.get("enum") or None
        self._schema = schema
        pattern = schema.get("pattern") or ""
        self._pattern = compile_pattern(pattern) if pattern else None
        self._properties = {name: Validator(each) for name, each in (schema.get("properties") or {}).items()}
        additional = schema.get("additionalProperties")
        self._additional = Validator(additional) if isinstance(additional, dict) else None
        self._items = Validator(schema["items"]) if isinstance(schema.get("items"), dict) else None
        self._required: Sequence[str] = schema.get("required") or ()
        self._map_keys: Sequence[str] = ()
        if schema.get("x-kubernetes-list-type") == "map":
            self._map_keys = schema.get("x-kubernetes-list-map-keys") or ()
        self._any_of = [Validator(each) for each in schema.get("anyOf") or ()]
        self._one_of = [Validator(each) for each in schema.get("oneOf") or ()]
        self._all_of = [Validator(each) for each in schema.get("allOf") or ()]
        self._not = Validator(schema["not"]) if schema.get("not") is not None else None

    def causes(self, value: Any, path: str = "") -> list[Cause]:
        """What is wrong with a new value."""
        return self._validate(value, path, _MISSING).causes

    def update_causes(self, new: Any, old: Any, path: str = "") -> list[Cause]:
        """What is wrong with what an update changes."""
        return self._validate(new, path, old).causes

    def _validate(self, value: Any, path: str, old: Any) -> _Result:
        if old is not _MISSING and _equal(value, old):
            return _Result(matched=1)
        result = _Result()
        kind = _type_of(value)
        if self._types or self._format:
            self._check_type(value, kind, path, result)
        if value is None:
            self._check_enum(value, path, result)
            return result
        self._check_compositions(value, path, old, result)
        if kind == "string":
            self._check_string(value, path, result)
        elif kind in ("integer", "number"):
            self._check_number(value, path, result)
        elif kind == "array":
            self._check_items(value, path, old, result)
        self._check_enum(value, path, result)
        if kind == "object":
            self._check_object(value, path, old, result)
        result.matched += 1
        return result

    def _check_type(self, value: Any, kind: str, path: str, result: _Result) -> None:
        result.matched += 1
        if value is None:
            if self._types and not self._nullable:
                result.causes.append(_wrong_type(path, ",".join(self._types), "null"))
            return
        types = self._types
        fits = (
            kind in types
            or (kind == "number" and "integer" in types and float(value).is_integer())
            or (kind == "integer" and "number" in types)
        )
        if self._format and kind in ("string", "array") and not {"number", "integer"} & set(types):
            return
        if not fits:
            result.causes.append(_wrong_type(path, ",".join(types), kind))

    def _check_string(self, value: str, path: str, result: _Result) -> None:
        result.matched += 1
        shortest, longest = self._schema.get("minLength"), self._schema.get("maxLength")
        if longest is not None and len(value) > longest:
            result.causes.append(fieldpath.too_long(_shown(path), longest))
        elif shortest is not None and len(value) < shortest:
            result.causes.append(_invalid(path, value, f"should be at least {shortest} chars long"))
        elif self._pattern is not None and self._pattern.search(value) is None:
            result.causes.append(_invalid(path, value, f"should match '{self._schema['pattern']}'"))
        if self._format_check is not None:
            result.matched += 1
            if not self._format_check(value):
                text = f"{path} in body must be of type {self._schema['format']}: {fieldpath.quoted(value)}"
                result.causes.append(_type_invalid(path, value, text))

    def _check_number(self, value: float, path: str, result: _Result) -> None:
        result.matched += 1
        schema = self._schema
        factor = schema.get("multipleOf")
        if factor is not None and not _is_multiple(value, factor):
            result.causes.append(_invalid(path, value, f"should be a multiple of {golang.number(factor)}"))
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None:
            exclusive = bool(schema.get("exclusiveMinimum"))
            if value < low or (exclusive and value == low):
                words = "greater than" if exclusive else "greater than or equal to"
                result.causes.append(_invalid(path, value, f"should be {words} {golang.number(float(low))}"))
        if high is not None:
            exclusive = bool(schema.get("exclusiveMaximum"))
            if value > high or (exclusive and value == high):
                words = "less than" if exclusive else "less than or equal to"
                result.causes.append(_invalid(path, value, f"should be {words} {golang.number(float(high))}"))

    def _check_items(self, value: list[Any], path: str, old: Any, result: _Result) -> None:
        result.matched += 1
        if self._items is not None:
            before = self._correlated(old)
            for at, item in enumerate(value):
                result.merge(self._items._validate(item, f"{path}[{at}]", before(item)))
        fewest, most = self._schema.get("minItems"), self._schema.get("maxItems")
        if fewest is not None and len(value) < fewest:
            result.causes.append(_invalid(path, len(value), f"should have at least {fewest} items"))
        if most is not None and len(value) > most:
            result.causes.append(fieldpath.too_many(_shown(path), len(value), most))

    def _correlated(self, old: Any) -> Callable[[Any], Any]:
        """From an item to what it was before; only lists of type map say which that is."""
        if not self._map_keys or not isinstance(old, list):
            return lambda item: _MISSING
        keys = self._map_keys
        known = {map_key(item, keys): item for item in old if isinstance(item, dict)}
        return lambda item: known.get(map_key(item, keys), _MISSING) if isinstance(item, dict) else _MISSING

    def _check_object(self, value: Object, path: str, old: Any, result: _Result) -> None:
        result.matched += 1
        fewest, most = self._schema.get("minProperties"), self._schema.get("maxProperties")
        if fewest is not None and len(value) < fewest:
            result.causes.append(_invalid(path, len(value), f"should have at least {fewest} properties"))
            return
        if most is not None and len(value) > most:
            result.causes.append(fieldpath.too_many(_shown(path), len(value), most))
            return
        before: Mapping[str, Any] = old if isinstance(old, dict) else {}
        for name, member in value.items():
            validator = self._properties.get(name) or self._additional
            if validator is not None:
                where = f"{path}.{name}" if path else name
                result.merge(validator._validate(member, where, before.get(name, _MISSING)))
        for name in self._required:
            if name not in value:
                result.causes.append(fieldpath.required(f"{path}.{name}" if path else name))

    def _check_enum(self, value: Any, path: str, result: _Result) -> None:
        result.matched += 1
        if self._enum is None or any(_equal(value, choice) for choice in self._enum):
            return
        choices = [choice if isinstance(choice, str) else _json(choice) for choice in self._enum]
        result.causes.append(fieldpath.not_supported(_shown(path), golang.literal(value), choices))

    def _check_compositions(self, value: Any, path: str, old: Any, result: _Result) -> None:
        result.matched += 1
        if self._any_of:
            self._check_any_of(value, path, old, result)
        if self._one_of:
            self._check_one_of(value, path, old, result)
        if self._all_of:
            self._check_all_of(value, path, old, result)
        if self._not is not None and not self._not._validate(value, path, _MISSING).causes:
            result.causes.append(_composition(f"{fieldpath.quoted(path)} must not validate the schema (not)"))

    def _check_any_of(self, value: Any, path: str, old: Any, result: _Result) -> None:
        best: _Result | None = None
        for each in self._any_of:
            found = each._validate(value, path, old)
            if not found.causes:
                return
            if best is None or found.matched > best.matched:
                best = found
        text = f"{fieldpath.quoted(path)} must validate at least one schema (anyOf)"
        result.causes.append(_composition(text))
        if best is not None:
            result.merge(best)

    def _check_one_of(self, value: Any, path: str, old: Any, result: _Result) -> None:
        valid, best = 0, None
        for each in self._one_of:
            found = each._validate(value, path, old)
            if not found.causes:
                valid, best = valid + 1, None
            elif not valid and (best is None or found.matched > best.matched):
                best = found
        if valid == 1:
            return
        how = f"Found {valid} valid alternatives" if valid else "Found none valid"
        text = f"{fieldpath.quoted(path)} must validate one and only one schema (oneOf). {how}"
        result.causes.append(_composition(text))
        if best is not None:
            result.merge(best)

    def _check_all_of(self, value: Any, path: str, old: Any, result: _Result) -> None:
        valid = 0
        for each in self._all_of:
            found = each._validate(value, path, old)
            valid += not found.causes
            result.merge(found)
        if valid != len(self._all_of):
            more = "" if valid else ". None validated"
            text = f"{fieldpath.quoted(path)} must validate all the schemas (allOf){more}"
            result.causes.append(_composition(text))


def map_key(item: Object, keys: Sequence[str]) -> str:
    """What tells the items of a list of type map apart."""
    return repr([_plain(item.get(key)) for key in keys])


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values: numbers by value, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _is_multiple(value: float, factor: float) -> bool:
    if isinstance(value, int) and float(factor).is_integer() and factor:
        return value % int(factor) == 0
    return bool(factor) and float(value / factor).is_integer()


def _json(value: Any) -> str:
    return fieldpath.shown(value)


def _shown(path: str) -> str:
    return path or NOWHERE


def _invalid(path: str, value: Any, rule: str) -> Cause:
    return fieldpath.invalid(_shown(path), golang.literal(value), f"{path} in body {rule}")


def _wrong_type(path: str, wanted: str, found: str) -> Cause:
    text = f"{path} in body must be of type {wanted}: {fieldpath.quoted(found)}"
    return _type_invalid(path, found, text)


def _type_invalid(path: str, value: str, text: str) -> Cause:
    return Cause("FieldValueTypeInvalid", f"Invalid value: {fieldpath.quoted(value)}: {text}", _shown(path))


def _composition(text: str) -> Cause:
    return fieldpath.invalid(NOWHERE, "", text)
