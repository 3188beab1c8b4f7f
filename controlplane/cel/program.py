"""Compiling and evaluating expressions: the door of this package. Used by admission, webhooks and CRD validation.

What bounds an expression: its text (`MAX_TEXT`), its nesting (32 levels), all iterations of one evaluation together
(10,000), texts made by functions, and the growth that concatenation inside of loops can bring (`verification.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from controlplane.cel.authorization import Authorize, asking
from controlplane.cel.errors import CelCompileError, CelRuntimeError, runtime_fault
from controlplane.cel.types import BOOL, CelType

MAX_TEXT = 100_000
"""Characters of one expression."""

_runtime: Any = None


def _environment() -> Any:
    """`environment.py`, which loads the CEL runtime; not before the first expression comes."""
    global _runtime
    if _runtime is None:
        _runtime = import_module("controlplane.cel.environment")
    return _runtime


class Bindings:
    """Values of variables, converted once and shared by all programs that are evaluated with them."""

    __slots__ = ("activation",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.activation = _environment().evaluator().Activation(dict(values))


class Program:
    """A compiled expression. `result` is its checked type."""

    __slots__ = ("_expression", "result", "text")

    def __init__(self, text: str, result: CelType, expression: Any) -> None:
        self.text = text
        self.result = result
        self._expression = expression

    def evaluate(self, values: Mapping[str, Any] | Bindings, authorize: Authorize | None = None) -> Any:
        """The result as Python value (dict, list, str, int, float, bool, bytes, datetime, timedelta, None).

        `values` are plain JSON values by variable; one that is missing fails only where it is used. `authorize`
        answers the checks of an `authorizer`. Raises CelRuntimeError.
        """
        bindings = values if isinstance(values, Bindings) else Bindings(values)
        with asking(authorize):
            try:
                value = self._expression.eval(bindings.activation)
                result = value.plain_value()
            except RuntimeError as fault:
                raise runtime_fault(str(fault)) from fault
            except TypeError as fault:
                raise CelRuntimeError("the result is no plain value") from fault
        if value.type().name() == "ERROR":
            raise runtime_fault(str(result))
        return bytes(result) if isinstance(result, bytearray) else result


def compile_expression(
    text: str, variables: Mapping[str, CelType], results: Iterable[CelType] | None = (BOOL,)
) -> Program:
    """Check `text` against the variables' types and, unless None, the allowed types of its result.

    As upstream a dynamic result is not a bool: `must evaluate to bool`. Raises CelCompileError.
    """
    if len(text) > MAX_TEXT:
        raise CelCompileError(
            "compilation failed: ERROR: <input>:1:1: expression code point size exceeds limit: "
            f"size: {len(text)}, limit {MAX_TEXT}"
        )
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise CelCompileError("compilation failed: ERROR: <input>:1:1: the text is not UTF-8") from fault
    environment = _environment()
    checked = environment.check(text, tuple(sorted(variables.items(), key=lambda item: item[0])))
    environment.verify(checked, text)
    result: CelType = checked.type_of(checked.root)
    wanted = None if results is None else tuple(results)
    if wanted is not None and result not in wanted:
        if len(wanted) == 1:
            raise CelCompileError(f"must evaluate to {wanted[0]}")
        raise CelCompileError(f"must evaluate to one of [{' '.join(map(str, wanted))}]")
    environment.adapt(checked)
    return Program(text, result, environment.evaluator().deserialize(checked.serialize()))
