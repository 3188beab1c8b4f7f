"""How a library declares its functions: names, overloads with types, and the Python function behind all of them.

Values of opaque types travel through the runtime as dicts with one key: the type's name behind a control character,
which no sensible JSON object has. `wrap` and `unwrap` know that form; the type checker keeps such values from being
used as dicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.cel.types import CelType

Implementation = Callable[..., Any]

_MARK = "\x01"


@dataclass(frozen=True, slots=True)
class Overload:
    id: str
    parameters: tuple[CelType, ...]
    returns: CelType


@dataclass(frozen=True, slots=True)
class Function:
    """One name. `member`: called on its first parameter. The implementation raises ValueError for bad values.

    With an optional result the implementation returns a zero value ([], {}, "") for none.
    """

    name: str
    implementation: Implementation
    overloads: tuple[Overload, ...]
    member: bool = True


def wrap(kind: CelType, payload: Any) -> dict[str, Any]:
    return {f"{_MARK}{kind.name}": payload}


def unwrap(kind: CelType, value: Any) -> Any:
    """The payload. Raises ValueError for anything else: an argument that was dynamic at compile time."""
    try:
        return value[f"{_MARK}{kind.name}"]
    except (KeyError, TypeError) as fault:
        raise ValueError("no such overload") from fault


def is_wrapped(kind: CelType, value: Any) -> bool:
    return isinstance(value, dict) and f"{_MARK}{kind.name}" in value


def member(
    name: str, implementation: Implementation, *overloads: tuple[str, tuple[CelType, ...], CelType]
) -> Function:
    """A function called as `x.name(...)`; each overload is (id, parameters with the receiver first, result)."""
    return Function(name, implementation, tuple(Overload(*overload) for overload in overloads))


def plain(
    name: str, implementation: Implementation, *overloads: tuple[str, tuple[CelType, ...], CelType]
) -> Function:
    """A function called as `name(...)`; the name may have a namespace (`sets.contains`)."""
    return Function(name, implementation, tuple(Overload(*overload) for overload in overloads), member=False)
