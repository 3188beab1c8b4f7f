"""CEL rules of custom resources (`x-kubernetes-validations`): compiled once, asked for every write.

A rule is bound to one place of the schema and sees the value there as `self`; a transition rule also sees what an
update replaces as `oldSelf` and is asked only when there is such a value. Texts are those of apiextensions v0.32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from controlplane.cel import (
    BOOL,
    STRING,
    CelCompileError,
    CelRuntimeError,
    CelType,
    Program,
    compile_expression,
    declared,
    to_cel,
)
from controlplane.errors import Cause, Object
from controlplane.resources import fieldpath
from controlplane.resources.custom import golang
from controlplane.resources.custom.structural import Schema
from controlplane.resources.custom.values import map_key

REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
MESSAGE_MAX = 5 * 1024
"""Bytes a messageExpression may give."""
BLOCKED = fieldpath.invalid(
    "<nil>",
    golang.literal(None),
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation",
)
_BLOCKING = frozenset(
    (
        "FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany",
        "FieldValueTypeInvalid",
    )
)  # fmt: skip
_OLD = re.compile(r"\boldSelf\b")
_STEP = re.compile(r"\.((?:\\.|[^.\[])+)|\[(?:'((?:[^'\\]|\\.)*)'|(\d+))\]")
_TEXT = re.compile(
    r"""[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3})|[bB]?[rR][bB]?(?:"[^"]*"|'[^']*')"""
    r"""|[bB]?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""",
    re.DOTALL,
)
_HAS_OLD, _OLD_VALUE = "hasOldSelf_", "oldSelfValue_"


def is_blocking(cause: Cause) -> bool:
    """Whether rules are not asked because of this fault: values of other shapes than they were written for."""
    return cause.reason in _BLOCKING


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. `message` is what is told unless `message_program` says something better."""

    text: str
    program: Program
    uses_old: bool
    optional_old: bool
    message: str
    message_program: Program | None
    reason: str
    field_path: str


def uses_old_self(rule: str) -> bool:
    """Whether `oldSelf` occurs outside of a text."""
    return _OLD.search(without_texts(rule)) is not None


def without_texts(rule: str) -> str:
    """The expression with all its string literals emptied."""
    return _TEXT.sub("''", rule)


def compile_rule(written: Object, kind: CelType) -> Rule:
    """Raises CelCompileError."""
    text = str(written.get("rule") or "").strip()
    optional = bool(written.get("optionalOldSelf"))
    program, uses_old = _compile(text, kind, BOOL, optional)
    message = str(written.get("message") or "").strip()
    expression = str(written.get("messageExpression") or "").strip()
    message_program = (
        _compile(expression, kind, STRING, optional, may_use_old=uses_old)[0] if expression else None
    )
    return Rule(
        text,
        program,
        uses_old,
        optional,
        message or f"failed rule: {text}",
        message_program,
        written.get("reason") or "FieldValueInvalid",
        written.get("fieldPath") or "",
    )


def _compile(
    text: str, kind: CelType, result: CelType, optional: bool, *, may_use_old: bool = True
) -> tuple[Program, bool]:
    variables = {"self": kind}
    uses_old = may_use_old and uses_old_self(text)
    if uses_old and optional:
        variables |= {_HAS_OLD: BOOL, _OLD_VALUE: kind}
        old = f"[{_HAS_OLD} ? optional.of({_OLD_VALUE}) : optional.none()]"
        text = f"{old}.all(oldSelf, {text})" if result == BOOL else f"{old}.map(oldSelf, {text})[0]"
    elif uses_old:
        variables["oldSelf"] = kind
    return compile_expression(text, variables, (result,)), uses_old


@lru_cache(maxsize=2048)
def _compiled(
    text: str, message: str, expression: str, reason: str, path: str, optional: bool, kind: CelType
) -> Rule:
    written = {
        "rule": text, "message": message, "messageExpression": expression, "reason": reason, "fieldPath": path,
        "optionalOldSelf": optional,
    }  # fmt: skip
    return compile_rule(written, kind)


@dataclass(slots=True)
class _Node:
    """Rules at one place, and the places below that have some."""

    schema: Schema
    kind: CelType | None
    written: Sequence[Object]
    resource: bool
    children: dict[str, _Node]
    inner: _Node | None
    compiled: list[Rule | CelCompileError] | None = None


class RuleSet:
    """All rules of a schema; false when there are none. Compiled when first asked for."""

    def __init__(self, schema: Schema) -> None:
        self._root = _node(schema, resource=True) if schema.has_rules else None

    def __bool__(self) -> bool:
        return self._root is not None

    def causes(self, new: Object, old: Object | None) -> list[Cause]:
        """What rules refuse; `old` None for a create."""
        if self._root is None:
            return []
        return list(_visit(self._root, new, old, old is not None, ""))


def _node(schema: Schema, *, resource: bool = False) -> _Node:
    resource = resource or schema.embedded
    children = {name: _node(child) for name, child in schema.properties.items() if child.has_rules}
    inner = schema.items or schema.additional
    kind = declared(schema.raw, root=resource) if schema.rules else None
    return _Node(
        schema, kind, schema.rules, resource, children, _node(inner) if inner and inner.has_rules else None
    )


def _rules(node: _Node) -> list[Rule | CelCompileError]:
    if node.compiled is None:
        found: list[Rule | CelCompileError] = []
        for each in node.written:
            if node.kind is None:
                continue
            try:
                found.append(
                    _compiled(
                        each.get("rule") or "", each.get("message") or "", each.get("messageExpression") or "",
                        each.get("reason") or "", each.get("fieldPath") or "", bool(each.get("optionalOldSelf")),
                        node.kind,
                    )
                )  # fmt: skip
            except CelCompileError as fault:
                found.append(fault)
        node.compiled = found
    return node.compiled


def _visit(node: _Node, new: Any, old: Any, correlated: bool, path: str) -> Iterator[Cause]:
    """`correlated`: there is an old value, and it is `old`."""
    if new is None:
        return
    if node.written:
        yield from _judge(node, new, old, correlated, path)
    schema = node.schema
    if isinstance(new, dict):
        before = old if isinstance(old, dict) and correlated and schema.map_type != "atomic" else {}
        for name, value in new.items():
            child = node.children.get(name) or (node.inner if name not in schema.properties else None)
            if child is not None:
                where = f"{path}.{name}" if path else name
                if name not in schema.properties:
                    where = f"{path}[{name}]"
                yield from _visit(child, value, before.get(name), name in before, where)
    elif isinstance(new, list) and node.inner is not None:
        known = _known_items(schema, old) if correlated else {}
        for at, item in enumerate(new):
            key = map_key(item, schema.list_map_keys) if isinstance(item, dict) else ""
            yield from _visit(node.inner, item, known.get(key), key in known, f"{path}[{at}]")


def _known_items(schema: Schema, old: Any) -> dict[str, Any]:
    if schema.list_type != "map" or not isinstance(old, list):
        return {}
    return {map_key(item, schema.list_map_keys): item for item in old if isinstance(item, dict)}


def _judge(node: _Node, new: Any, old: Any, correlated: bool, path: str) -> Iterator[Cause]:
    kind = node.kind
    if kind is None:
        return
    correlated = correlated and old is not None
    unchanged = correlated and new == old
    values: dict[str, Any] = {"self": to_cel(_visible(node, new), kind)}
    if correlated:
        values["oldSelf"] = values[_OLD_VALUE] = to_cel(_visible(node, old), kind)
    for rule in _rules(node):
        if isinstance(rule, CelCompileError):
            yield _invalid(node, path, f"rule compile error: {rule}")
            continue
        if unchanged and not rule.uses_old:
            continue
        if rule.uses_old and not correlated and not rule.optional_old:
            continue
        bound = values
        if rule.optional_old:
            bound = {**values, _HAS_OLD: correlated}
            bound.setdefault(_OLD_VALUE, values["self"])
        yield from _ask(node, rule, bound, path)


def _visible(node: _Node, value: Any) -> Any:
    """Of the metadata of a whole resource rules see the name alone."""
    if not node.resource or not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return value
    metadata = {name: each for name, each in value["metadata"].items() if name in ("name", "generateName")}
    return {**value, "metadata": metadata}


def _ask(node: _Node, rule: Rule, values: Object, path: str) -> Iterator[Cause]:
    try:
        if rule.program.evaluate(values) is True:
            return
    except CelRuntimeError as fault:
        if "cost limit" in str(fault):
            yield _invalid(
                node,
                path,
                f"no further validation rules will be run due to call cost exceeding limit for rule: {rule.text}",
            )
            return
        yield _invalid(node, path, f"{fault} evaluating rule: {rule.message}")
        return
    where = path + _translated(rule.field_path, path)
    yield _cause(node, rule.reason, where, _message(rule, values))


def _message(rule: Rule, values: Object) -> str:
    """The expression's text when it gives a good one, else the message."""
    if rule.message_program is None:
        return rule.message
    try:
        found = rule.message_program.evaluate(values)
    except CelRuntimeError:
        return rule.message
    text = str(found).strip() if isinstance(found, str) else ""
    if not text or "\n" in text or "\r" in text or len(text.encode()) > MESSAGE_MAX:
        return rule.message
    return text


def _translated(field_path: str, path: str) -> str:
    if not field_path:
        return ""
    steps = []
    for plain, quoted, index in _STEP.findall(field_path):
        if index:
            steps.append(f"[{index}]")
        else:
            name = quoted or plain
            steps.append(f".{name}" if not quoted else f"[{name}]")
    text = "".join(steps)
    return text if path else text.removeprefix(".")


def _cause(node: _Node, reason: str, path: str, message: str) -> Cause:
    shown = path or "<nil>"
    makers: dict[str, Callable[[], Cause]] = {
        "FieldValueForbidden": lambda: fieldpath.forbidden(shown, message),
        "FieldValueRequired": lambda: fieldpath.required(shown, message),
        "FieldValueDuplicate": lambda: fieldpath.duplicate(shown, node.schema.type, ""),
    }
    made = makers.get(reason)
    return made() if made else fieldpath.invalid(shown, node.schema.type, message)


def _invalid(node: _Node, path: str, message: str) -> Cause:
    return fieldpath.invalid(path or "<nil>", node.schema.type, message)
