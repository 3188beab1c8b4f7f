"""What cel-go's validators and cost limits refuse at compile time and the runtime's checker lets pass.

Literals that mix types, constants that are no regular expression, duration or timestamp, and expressions that make
a huge value of a small one by concatenation inside of loops. Loaded with the CEL runtime.
"""

from __future__ import annotations

from typing import Any

import re2

from controlplane.cel.ast import Checked, Node, children
from controlplane.cel.errors import CelCompileError
from controlplane.cel.types import DYN, CelType

MAX_GROWTH = 2**20
"""How many times larger than its inputs a value may become."""
_OPTIONALS = ("optional_type",)


def verify(checked: Checked, text: str) -> None:
    """Raises CelCompileError."""
    for node in checked.nodes():
        if node.HasField("list_expr"):
            _same_types(checked, text, list(node.list_expr.elements))
        elif node.HasField("struct_expr"):
            entries = [entry for entry in node.struct_expr.entries if entry.HasField("map_key")]
            _same_types(checked, text, [entry.map_key for entry in entries])
            _same_types(checked, text, [entry.value for entry in entries])
        elif node.HasField("call_expr"):
            _check_pattern(checked, text, node)
    if _growth(checked.root, {}) > MAX_GROWTH:
        raise CelCompileError(
            "estimated cost exceeds budget: concatenation inside of loops makes values too large"
        )


def _fail(checked: Checked, text: str, node: Node, why: str) -> CelCompileError:
    at = min(checked.position(node), len(text))
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1)
    source = text.splitlines()[line - 1] if text else ""
    return CelCompileError(
        f"compilation failed: ERROR: <input>:{line}:{column + 1}: {why}\n | {source}\n | {'.' * column}^"
    )


def _same_types(checked: Checked, text: str, nodes: list[Node]) -> None:
    expected: CelType | None = None
    for node in nodes:
        found = _plain(checked.type_of(node))
        if found == DYN:
            continue
        if expected is None:
            expected = found
        elif found != expected and "dyn" not in f"{found} {expected}":
            raise _fail(checked, text, node, f"expected type '{expected}' but found '{found}'")


def _plain(kind: CelType) -> CelType:
    return kind.params[0] if kind.name in _OPTIONALS and kind.params else kind


def _check_pattern(checked: Checked, text: str, node: Node) -> None:
    call = node.call_expr
    if call.function != "matches" or not call.args:
        return
    pattern = call.args[-1]
    if not pattern.HasField("const_expr") or not pattern.const_expr.HasField("string_value"):
        return
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern.const_expr.string_value, options)
    except re2.error as fault:
        raise _fail(checked, text, pattern, "invalid matches argument") from fault


def _growth(node: Node, sizes: dict[str, float]) -> float:
    """How much larger than the inputs the node's value may be; `sizes` are those of the variables of loops.

    An operand of `+` adds its size; a loop's list is as large as what it makes of each item, times the items; an
    item is as large as the whole list at the worst. Repeated use of a grown variable is what multiplies.
    """
    if node.HasField("const_expr"):
        value = node.const_expr
        return max(1.0, len(value.string_value) / 64) if value.HasField("string_value") else 1.0
    if node.HasField("ident_expr"):
        return sizes.get(node.ident_expr.name, 1.0)
    if node.HasField("select_expr"):
        return _growth(node.select_expr.operand, sizes)
    if node.HasField("comprehension_expr"):
        return _loop_growth(node, sizes)
    inner = [_growth(child, sizes) for child in children(node)]
    if node.HasField("call_expr") and node.call_expr.function not in ("_+_", "replace", "join", "format"):
        return max(inner, default=1.0)
    return sum(inner) or 1.0


def _loop_growth(node: Node, sizes: dict[str, Any]) -> float:
    loop = node.comprehension_expr
    source = _growth(loop.iter_range, sizes)
    inside = {**sizes, loop.iter_var: source}
    if loop.iter_var2:
        inside[loop.iter_var2] = source
    # The accumulator is counted as nothing: adding an item to a list is no growth of the item.
    inside[loop.accu_var] = 0.0
    step = _growth(loop.loop_step, inside)
    inside[loop.accu_var] = max(step, _growth(loop.accu_init, sizes), 1.0)
    return max(_growth(loop.result, inside), step, 1.0)
