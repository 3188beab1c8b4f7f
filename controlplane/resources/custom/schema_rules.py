"""What a CustomResourceDefinition's schema must be: structural, complete, with good defaults and rules that compile.

Called by the validation of definitions with the schema as written and its place in the definition. Paths and texts are
those of apiextensions v0.32. Pure, but for the CEL runtime that is loaded by the first rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.meta.objects import clone
from controlplane.resources import fieldpath
from controlplane.resources.custom import golang
from controlplane.resources.custom.lists import embedded_causes
from controlplane.resources.custom.regexp import compile_pattern
from controlplane.resources.custom.shaping import prune
from controlplane.resources.custom.structural import META_FIELDS, compile_schema
from controlplane.resources.custom.values import Validator
from controlplane.resources.fieldpath import forbidden, invalid, not_supported, required

TYPES = ("array", "boolean", "integer", "number", "object", "string")
_JUNCTIONS = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_NOT_SUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_ROOT_FIELDS = (
    "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations"
)
_ONLY_OBJECT = (
    'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
)
_ONLY_FIELDS = (
    f"only [{_ROOT_FIELDS}] fields are allowed at the root of the schema if the status subresource is enabled"
)
_AT_ROOT = frozenset(
    (
        "description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
        "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items",
        "properties", "externalDocs", "example", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
    )
)  # fmt: skip
_FORBIDDEN_INSIDE: Sequence[tuple[str, str]] = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)


def schema_causes(schema: Object, path: str, *, status: bool) -> list[Cause]:
    """All that is wrong with one version's schema. `status`: the version has the status subresource."""
    causes = list(_root_causes(schema, path)) if status else []
    if schema.get("nullable"):
        causes.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    structural = [*_invariants(schema, "root", path), *_completeness(schema, schema, path, path)]
    structural.sort(key=lambda cause: f"{cause.field}: {cause.message}")
    may_compile = False
    if structural:
        causes += structural
    else:
        wrong_defaults = list(_defaults(schema, path, root=True))
        causes += wrong_defaults
        may_compile = not wrong_defaults
    context = _Context(schema, path, costs=_Costs() if may_compile else None, is_root=True, cardinality=1)
    faults = list(_openapi(context))
    causes += [each for each in faults if not isinstance(each, _RuleCause)]
    causes += [each for each in faults if isinstance(each, _RuleCause)]
    if context.costs is not None:
        causes += context.costs.causes(path)
    return causes


def _root_causes(schema: Object, path: str) -> Iterator[Cause]:
    for name, value in schema.items():
        if name == "type":
            if value != "object":
                yield invalid(f"{path}.type", value, _ONLY_OBJECT)
                return
        elif name not in _AT_ROOT and value not in (None, False, [], {}, ""):
            yield invalid(path, golang.literal(schema), _ONLY_FIELDS)
            return


# structure


def _members(schema: Object, name: str) -> Mapping[str, Object]:
    found = schema.get(name)
    return found if isinstance(found, dict) else {}


def _key(path: str, name: str, member: str) -> str:
    return f"{path}.{name}[{member}]"


def _invariants(schema: Object, level: str, path: str) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    items = schema.get("items")
    if kind == "array" and not isinstance(items, dict):
        yield required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        yield from _invariants(items, "item", f"{path}.items")
    for name, member in _members(schema, "properties").items():
        yield from _invariants(member, "field", _key(path, "properties", name))
    additional = schema.get("additionalProperties")
    if additional is not None:
        if level == "root":
            yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(additional, dict):
            yield from _invariants(additional, "field", f"{path}.additionalProperties")
    yield from _extensions(schema, path)
    any_of = schema.get("anyOf")
    first = (schema.get("allOf") or [{}])[0]
    yield from _value_rules(schema, path, any_of == _INT_OR_STRING, first.get("anyOf") == _INT_OR_STRING)
    yield from _typed(schema, level, path)
    yield from _resource_fields(schema, level, path)


def _extensions(schema: Object, path: str) -> Iterator[Cause]:
    if schema.get("x-kubernetes-int-or-string"):
        for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(name):
                yield invalid(f"{path}.{name}", True, "must be false if x-kubernetes-int-or-string is true")


def _typed(schema: Object, level: str, path: str) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    if embedded and kind != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)
    elif not kind and not (
        schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        text = {
            "root": "must not be empty at the root",
            "item": "must not be empty for specified array items",
            "field": "must not be empty for specified object fields",
        }[level]
        yield required(f"{path}.type", text)
    if embedded and schema.get("additionalProperties") is not None:
        text = "must not be used if x-kubernetes-embedded-resource is set"
        yield forbidden(f"{path}.additionalProperties", text)
    if level == "root" and kind and kind != "object":
        yield invalid(f"{path}.type", kind, "must be object at the root")


def _resource_fields(schema: Object, level: str, path: str) -> Iterator[Cause]:
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    properties = _members(schema, "properties")
    if level == "root" or embedded:
        for name in ("kind", "apiVersion"):
            if name in properties and properties[name].get("type") != "string":
                where = _key(path, "properties", name)
                yield invalid(f"{where}.type", properties[name].get("type") or "", "must be string")
        metadata = properties.get("metadata")
        if metadata is not None:
            where = _key(path, "properties", "metadata")
            if metadata.get("type") != "object":
                yield invalid(f"{where}.type", metadata.get("type") or "", "must be object")
            if level == "root" and not _is_plain_metadata(metadata):
                text = (
                    "must not specify anything other than name and generateName, but metadata is implicitly "
                    "specified"
                )
                yield forbidden(where, text)
    if embedded and not schema.get("x-kubernetes-preserve-unknown-fields") and not properties:
        text = (
            "must not be empty if x-kubernetes-embedded-resource is true without "
            "x-kubernetes-preserve-unknown-fields"
        )
        yield required(f"{path}.properties", text)


def _is_plain_metadata(metadata: Object) -> bool:
    rest = {
        name for name, value in metadata.items() if name not in ("type", "properties", "default") and value
    }
    return not rest and set(_members(metadata, "properties")) <= {"name", "generateName"}


def _value_rules(
    schema: Object, path: str, skip_any_of: bool = False, skip_first: bool = False
) -> Iterator[Cause]:
    for name in _JUNCTIONS:
        for at, each in enumerate(schema.get(name) or ()):
            if name == "anyOf" and skip_any_of:
                continue
            is_pattern = name == "allOf" and at == 0 and skip_first
            yield from _nested(each, f"{path}.{name}[{at}]", skip_any_of=is_pattern)
    if isinstance(schema.get("not"), dict):
        yield from _nested(schema["not"], f"{path}.not")
    pattern = schema.get("pattern")
    if pattern:
        try:
            compile_pattern(pattern)
        except ValueError as fault:
            yield invalid(
                f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {fault}"
            )


def _nested(schema: Object, path: str, *, skip_any_of: bool = False) -> Iterator[Cause]:
    yield from _value_rules(schema, path, skip_any_of)
    if isinstance(schema.get("items"), dict):
        yield from _nested(schema["items"], f"{path}.items")
    for name, member in _members(schema, "properties").items():
        yield from _nested(member, _key(path, "properties", name))
    for name, text in _FORBIDDEN_INSIDE:
        value = schema.get(name)
        if value not in (None, "", False, [], {}) or (name == "default" and value is not None):
            yield forbidden(f"{path}.{name}", text)
    if "metadata" in _members(schema, "properties"):
        yield forbidden(_key(path, "properties", "metadata"), "must not be specified in a nested context")


def _completeness(rules: Object, schema: Object | None, place: str, path: str) -> Iterator[Cause]:
    """What value rules speak of must be part of the structure. `place` is that of `schema`, `path` of `rules`."""
    for name in _JUNCTIONS:
        for at, each in enumerate(rules.get(name) or ()):
            yield from _nested_completeness(each, schema, place, f"{path}.{name}[{at}]")
    if isinstance(rules.get("not"), dict):
        yield from _nested_completeness(rules["not"], schema, place, f"{path}.not")


def _nested_completeness(rules: Object, schema: Object | None, place: str, path: str) -> Iterator[Cause]:
    if schema is None:
        yield required(place, f"because it is defined in {path}")
        return
    yield from _completeness(rules, schema, place, path)
    if isinstance(rules.get("items"), dict):
        items = schema.get("items")
        inner = items if isinstance(items, dict) else None
        yield from _nested_completeness(rules["items"], inner, f"{place}.items", f"{path}.items")
    known = _members(schema, "properties")
    for name, member in _members(rules, "properties").items():
        where, source = _key(place, "properties", name), _key(path, "properties", name)
        if name in known:
            yield from _nested_completeness(member, known[name], where, source)
        else:
            yield required(where, f"because it is defined in {source}")


# defaults


def _defaults(schema: Object, path: str, *, root: bool = False, inside_meta: bool = False) -> Iterator[Cause]:
    embedded = bool(schema.get("x-kubernetes-embedded-resource")) or root
    if schema.get("default") is not None:
        yield from _default_causes(schema, f"{path}.default", inside_meta and not embedded)
    if isinstance(schema.get("items"), dict):
        yield from _defaults(schema["items"], f"{path}.items", inside_meta=inside_meta)
    for name, member in _members(schema, "properties").items():
        inside = (inside_meta and not embedded) or (embedded and name in META_FIELDS)
        yield from _defaults(member, _key(path, "properties", name), inside_meta=inside)


def _default_causes(schema: Object, path: str, inside_meta: bool) -> Iterator[Cause]:
    value = schema["default"]
    compiled = compile_schema(schema)
    if not inside_meta and prune({"": value}, compile_schema({"properties": {"": schema}}), root=False) != {
        "": value
    }:
        yield invalid(path, golang.literal(value), "must not have unknown fields")
    wrong = embedded_causes(value, compiled, path)
    if wrong:
        yield from wrong
        return
    yield from Validator(clone(schema)).causes(value, path)


# OpenAPI and CEL


class _RuleCause(Cause):
    """A fault of a CEL rule; these are told behind all others."""


@dataclass(slots=True)
class _Costs:
    """Estimated costs of the rules of one schema, with the most expensive ones."""

    total: int = 0
    expensive: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: str, cost: int) -> None:
        self.total += cost
        if cost >= TOTAL_LIMIT // 100:
            self.expensive = sorted([*self.expensive, (cost, path)], reverse=True)[:4]

    def causes(self, path: str) -> Iterator[Cause]:
        if self.total <= TOTAL_LIMIT:
            return
        for _, where in self.expensive:
            text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            yield forbidden(where, text)
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden(path, cost_text(name, self.total, TOTAL_LIMIT))


RULE_LIMIT = 10_000_000
TOTAL_LIMIT = 100_000_000


def cost_text(name: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    if factor > 100:
        shown = "more than 100x"
    return (
        f"{name} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """Where in a schema we are. `cardinality` is how often a value can be there (None: no bound is known)."""

    schema: Object
    path: str
    costs: _Costs | None
    is_root: bool = False
    cardinality: int | None = None
    no_defaults: str = ""
    in_meta: bool = False
    uncorrelated: str = ""

    def child(self, schema: Object, path: str, **changes: Any) -> _Context:
        most = _most_elements(self.schema)
        bound = None if self.cardinality is None or most is None else self.cardinality * most
        return replace(self, schema=schema, path=path, is_root=False, cardinality=bound, **changes)

    def nested(self, schema: Object, path: str) -> _Context:
        return replace(self, schema=schema, path=path, is_root=False, costs=None)


def _most_elements(schema: Object) -> int | None:
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not None:
        most = schema.get("maxProperties")
    elif kind == "array":
        most = schema.get("maxItems")
    else:
        return 1
    return None if most is None else max(most, 0)


def _openapi(context: _Context) -> Iterator[Cause]:
    schema, path = context.schema, context.path
    yield from _keywords(context)
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", text)
    additional = schema.get("additionalProperties")
    if additional is not None:
        if _members(schema, "properties") and additional is not True:
            text = "additionalProperties and properties are mutual exclusive"
            yield forbidden(f"{path}.additionalProperties", text)
        if isinstance(additional, dict):
            reason = "inside additionalProperties applying to object metadata" if context.in_meta else ""
            reason = reason or context.no_defaults
            yield from _openapi(context.child(additional, f"{path}.additionalProperties", no_defaults=reason))
    yield from _properties(context)
    for name in _JUNCTIONS:
        for at, each in enumerate(schema.get(name) or ()):
            yield from _openapi(context.nested(each, f"{path}.{name}[{at}]"))
    if isinstance(schema.get("not"), dict):
        yield from _openapi(context.nested(schema["not"], f"{path}.not"))
    if isinstance(schema.get("items"), dict):
        uncorrelated = context.uncorrelated
        if schema.get("x-kubernetes-list-type") != "map":
            uncorrelated = uncorrelated or path
        yield from _openapi(context.child(schema["items"], f"{path}.items", uncorrelated=uncorrelated))
    yield from _list_and_map_types(schema, path)
    written = schema.get("x-kubernetes-validations") or ()
    if written:
        yield from _rules(context, written)


def _properties(context: _Context) -> Iterator[Cause]:
    schema, path = context.schema, context.path
    is_resource = context.is_root or bool(schema.get("x-kubernetes-embedded-resource"))
    for name, member in _members(schema, "properties").items():
        changes: dict[str, Any] = {}
        if schema.get("x-kubernetes-map-type") == "atomic":
            changes["uncorrelated"] = context.uncorrelated or path
        if is_resource and name in META_FIELDS:
            changes["in_meta"] = True
            if context.is_root:
                changes["no_defaults"] = f"in top-level {name}"
        yield from _openapi(context.child(member, _key(path, "properties", name), **changes))


def _keywords(context: _Context) -> Iterator[Cause]:
    schema, path = context.schema, context.path
    kind = schema.get("type") or ""
    if kind and kind not in TYPES:
        yield not_supported(f"{path}.type", kind, TYPES)
    if schema.get("default") is not None and context.no_defaults:
        yield forbidden(f"{path}.default", f"must not be set {context.no_defaults}")
    for name in _NOT_SUPPORTED:
        if schema.get(name) not in (None, "", {}, []):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    if kind == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if context.in_meta and schema.get("x-kubernetes-embedded-resource"):
        yield forbidden(f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")


def _list_and_map_types(schema: Object, path: str) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    for name, wanted, choices in (
        ("x-kubernetes-map-type", "object", ("atomic", "granular")),
        ("x-kubernetes-list-type", "array", ("atomic", "set", "map")),
    ):
        value = schema.get(name)
        if value is None:
            continue
        if kind != wanted:
            text = f"must be {wanted} if {name} is specified"
            yield invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)
        elif value == "set" and isinstance(schema.get("items"), dict):
            yield from _set_items(schema["items"], f"{path}.items")
        if value not in choices:
            yield not_supported(f"{path}.{name}", value, choices)
    yield from _map_keys(schema, path)


def _set_items(items: Object, path: str) -> Iterator[Cause]:
    text = "must be atomic as item of a list with x-kubernetes-list-type=set"
    kind = items.get("type")
    if kind == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
        yield invalid(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], text)
    if kind == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield invalid(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), text)
    if items.get("nullable"):
        yield forbidden(f"{path}.nullable", "cannot be nullable when x-kubernetes-list-type is set")


def _map_keys(schema: Object, path: str) -> Iterator[Cause]:
    keys, list_type = schema.get("x-kubernetes-list-map-keys") or (), schema.get("x-kubernetes-list-type")
    if keys and list_type != "map":
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        yield required(where, text) if list_type is None else invalid(where, list_type, text)
    if list_type != "map":
        return
    where = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        yield required(where, "must not be empty if x-kubernetes-list-type is map")
    items = schema.get("items")
    if not isinstance(items, dict):
        yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        return
    if items.get("type") != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid(f"{path}.items.type", items.get("type") or "", text)
    else:
        yield from _key_properties(items, keys, where, path)
    yield from _key_values(items, keys, f"{path}.items")


def _key_properties(items: Object, keys: Sequence[str], where: str, path: str) -> Iterator[Cause]:
    known = _members(items, "properties")
    shown = fieldpath.string_list(keys)
    seen = set()
    for key in keys:
        if key not in known:
            yield invalid(where, shown, "entries must all be names of item properties")
        elif known[key].get("type") in ("array", "object"):
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid(f"{_key(f'{path}.items', 'properties', key)}.type", items["type"], text)
        if key in seen:
            yield invalid(where, shown, "must not contain duplicate entries")
        seen.add(key)


def _key_values(items: Object, keys: Sequence[str], path: str) -> Iterator[Cause]:
    if items.get("nullable"):
        yield forbidden(f"{path}.nullable", "cannot be nullable when x-kubernetes-list-type is map")
    known = _members(items, "properties")
    for key in keys:
        if key not in known:
            continue
        where = _key(path, "properties", key)
        if key not in (items.get("required") or ()) and known[key].get("default") is None:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield required(f"{where}.default", text)
        if known[key].get("nullable"):
            text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            yield forbidden(f"{where}.nullable", text)


def _rules(context: _Context, written: Sequence[Object]) -> Iterator[Cause]:
    faults = [
        cause
        for at, rule in enumerate(written)
        for cause in _rule_form(rule, context.schema, f"{context.path}.x-kubernetes-validations[{at}]")
    ]
    yield from faults
    if faults or context.costs is None:
        return
    from controlplane.resources.custom import rule_checks  # the CEL runtime, only where there are rules

    for at, rule in enumerate(written):
        where = f"{context.path}.x-kubernetes-validations[{at}]"
        checked = rule_checks.check(
            rule, context.schema, where, is_root=context.is_root, uncorrelated=context.uncorrelated
        )
        yield from (_RuleCause(each.reason, each.message, each.field) for each in checked.causes)
        times = checked.cardinality if context.cardinality is None else context.cardinality
        for cost, name, place in (
            (checked.cost, "estimated rule cost", "rule"),
            (checked.message_cost, "estimated messageExpression cost", "messageExpression"),
        ):
            cost *= times if place == "rule" else 1
            context.costs.add(f"{where}.{place}", cost)
            if cost > RULE_LIMIT:
                fault = forbidden(f"{where}.{place}", cost_text(name, cost, RULE_LIMIT))
                yield _RuleCause(fault.reason, fault.message, fault.field)


_LINES = re.compile(r"[\n\r]")


def _rule_form(rule: Object, schema: Object, path: str) -> Iterator[Cause]:
    text, message = str(rule.get("rule") or ""), str(rule.get("message") or "")
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid(f"{path}.message", message, "message must be non-empty if specified")
    elif _LINES.search(message.strip()):
        yield invalid(f"{path}.message", message, "message must not contain line breaks")
    elif _LINES.search(text.strip()) and not message.strip():
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    expression = str(rule.get("messageExpression") or "")
    if expression and not expression.strip():
        yield required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    reason = rule.get("reason")
    choices = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
    if reason is not None and reason not in choices:
        yield not_supported(f"{path}.reason", reason, choices)
    field_path = str(rule.get("fieldPath") or "")
    if field_path and not field_path.strip():
        yield invalid(f"{path}.fieldPath", field_path, "fieldPath must be non-empty if specified")
    if _LINES.search(field_path):
        yield invalid(f"{path}.fieldPath", field_path, "fieldPath must not contain line breaks")
    if field_path and schema_at(schema, field_path) is None:
        yield invalid(f"{path}.fieldPath", field_path, "fieldPath must be a valid path")


_STEP = re.compile(r"\.((?:\\.|[^.\[\]'])+)|\['((?:[^'\\]|\\.)+)'\]|\[(\d+)\]")


def schema_at(schema: Object, path: str, *, arrays: bool = True) -> Object | None:
    """The schema that a field path such as `.spec.list[0].name` leads to, None when it leads nowhere."""
    at, found = 0, schema
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return None
        at = match.end()
        if match.group(3) is not None:
            items = found.get("items")
            if not arrays or not isinstance(items, dict):
                return None
            found = items
            continue
        name = re.sub(r"\\(.)", r"\1", match.group(1) or match.group(2))
        known, additional = _members(found, "properties"), found.get("additionalProperties")
        if name in known:
            found = known[name]
        elif isinstance(additional, dict):
            found = additional
        else:
            return None
    return found if path else None
