"""Checks of one CEL rule when its definition is written: it compiles, uses `oldSelf` where it may, and is not too dear.

The cost is a bound from above in the manner of cel-go's estimator, taken from the sizes the schema allows: each
iteration over a list or map multiplies. Called by `schema_rules.py`; loads the CEL runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.cel import CelCompileError, CelType, declared
from controlplane.errors import Cause, Object
from controlplane.resources.custom.rules import compile_rule, uses_old_self, without_texts
from controlplane.resources.fieldpath import Literal, invalid, quoted

_REQUEST_BYTES = 3 * 1024 * 1024
"""What a list, map or text without a bound of its own may have at most is what fits into a request."""
_MACRO = re.compile(
    r"([A-Za-z_][\w.]*(?:\[[^\]]*\])?)\.(all|exists|exists_one|map|filter|transformList|transformMap)\("
)
_MATCHING = re.compile(r"([A-Za-z_][\w.]*)\.(matches|contains|indexOf|find|findAll|split|replace)\(")


@dataclass(frozen=True, slots=True)
class Checked:
    """`cardinality`: how often the rule's place fits into a request when no bound is known."""

    causes: list[Cause]
    cost: int = 0
    message_cost: int = 0
    cardinality: int = 1


def check(rule: Object, schema: Object, path: str, *, is_root: bool, uncorrelated: str) -> Checked:
    """`uncorrelated`: the place above of which old and new items cannot be told apart, empty when there is none."""
    kind = declared(schema, root=is_root)
    if kind is None:
        return Checked([])
    causes = list(_compile_causes(rule, kind, path))
    if not causes:
        causes = list(_old_self_causes(rule, path, uncorrelated))
    text = str(rule.get("rule") or "")
    return Checked(
        causes,
        cost(text, schema),
        cost(str(rule.get("messageExpression") or ""), schema) if rule.get("messageExpression") else 0,
        max(1, _REQUEST_BYTES // _least_bytes(schema)),
    )


def _compile_causes(rule: Object, kind: CelType, path: str) -> Iterator[Cause]:
    shown = _shown(rule)
    try:
        compile_rule({**rule, "messageExpression": ""}, kind)
    except CelCompileError as fault:
        yield invalid(f"{path}.rule", shown, _words(fault))
        return
    if rule.get("messageExpression"):
        try:
            compile_rule(rule, kind)
        except CelCompileError as fault:
            yield invalid(f"{path}.messageExpression", shown, _message_words(fault))


def _shown(rule: Object) -> Literal:
    """The rule as Go prints its struct."""
    reason = "(*apiextensions.FieldValueErrorReason)(nil)"
    if rule.get("reason"):
        reason = f"(*apiextensions.FieldValueErrorReason)({quoted(rule['reason'])})"
    optional = rule.get("optionalOldSelf")
    old = "(*bool)(nil)" if optional is None else f"(*bool)({'true' if optional else 'false'})"
    texts = {
        name: quoted(str(rule.get(key) or ""))
        for name, key in (
            ("Rule", "rule"), ("Message", "message"), ("MessageExpression", "messageExpression"),
            ("FieldPath", "fieldPath"),
        )
    }  # fmt: skip
    return Literal(
        f"apiextensions.ValidationRule{{Rule:{texts['Rule']}, Message:{texts['Message']}, "
        f"MessageExpression:{texts['MessageExpression']}, Reason:{reason}, FieldPath:{texts['FieldPath']}, "
        f"OptionalOldSelf:{old}}}"
    )


def _words(fault: CelCompileError) -> str:
    text = str(fault)
    return "cel expression must evaluate to a bool" if text == "must evaluate to bool" else text


def _message_words(fault: CelCompileError) -> str:
    text = str(fault)
    if text == "must evaluate to string":
        return "messageExpression must evaluate to a string"
    return text.replace("compilation failed:", "messageExpression compilation failed:", 1)


def _old_self_causes(rule: Object, path: str, uncorrelated: str) -> Iterator[Cause]:
    text = str(rule.get("rule") or "")
    if uses_old_self(text):
        if uncorrelated:
            detail = (
                f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
            )
            yield invalid(f"{path}.rule", text, detail)
    elif rule.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        yield invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], detail)


def cost(text: str, schema: Object) -> int:
    """An estimate of what evaluating the text takes at most, in units of cel-go."""
    plain = without_texts(text)
    total = 1 + plain.count(".")
    scopes: dict[str, Object] = {"self": schema, "oldSelf": schema}
    factors: list[tuple[int, int, int]] = []
    for match in _MACRO.finditer(plain):
        target = _resolve(match.group(1), scopes)
        size = _size(target)
        end = _closing(plain, match.end() - 1)
        variable = plain[match.end() : end].partition(",")[0].strip()
        if variable and target is not None:
            scopes[variable] = _element(target)
        outer = 1
        for start, stop, factor in factors:
            if start < match.start() < stop:
                outer = factor
        factors.append((match.end(), end, outer * size))
        body = plain[match.end() : end]
        total += outer * size * (2 + body.count("."))
    for match in _MATCHING.finditer(plain):
        outer = max((factor for start, stop, factor in factors if start <= match.start() < stop), default=1)
        total += outer * max(1, _size(_resolve(match.group(1), scopes)) // 10)
    return total


def _closing(text: str, at: int) -> int:
    depth = 0
    for position in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def _resolve(path: str, scopes: dict[str, Object]) -> Object | None:
    first, *rest = re.sub(r"\[[^\]]*\]", ".[]", path).split(".")
    found = scopes.get(first)
    for name in rest:
        if found is None:
            return None
        found = _element(found) if name == "[]" else (found.get("properties") or {}).get(name)
    return found


def _element(schema: Object) -> Object:
    if isinstance(schema.get("items"), dict):
        items: Object = schema["items"]
        return items
    if isinstance(schema.get("additionalProperties"), dict):
        # Iterating a map gives its keys.
        return {"type": "string"}
    return {}


def _size(schema: Object | None) -> int:
    """How many items, entries or characters a value has at most."""
    if schema is None:
        return 1
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items") if isinstance(schema.get("items"), dict) else {}
        return int(schema.get("maxItems", _REQUEST_BYTES // (_least_bytes(items or {}) + 1)))
    if kind == "string":
        if schema.get("enum"):
            return max(len(str(each)) for each in schema["enum"])
        return int(schema.get("maxLength", _REQUEST_BYTES))
    if kind == "object" and schema.get("additionalProperties") is not None:
        values = schema["additionalProperties"]
        least = _least_bytes(values) if isinstance(values, dict) else 2
        return int(schema.get("maxProperties", _REQUEST_BYTES // (least + 6)))
    return 1


def _least_bytes(schema: Object) -> int:
    """The shortest JSON text of such a value."""
    kind = schema.get("type")
    if kind == "object":
        needed = schema.get("required") or ()
        properties = schema.get("properties") or {}
        return 2 + sum(len(name) + 4 + _least_bytes(properties.get(name) or {}) for name in needed)
    if kind in ("string", "array"):
        return 2
    return 4 if kind == "boolean" else 1
