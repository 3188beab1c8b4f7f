"""JSON values as Go's `%v` prints them, for messages that are compared with upstream's. Pure."""

from __future__ import annotations

from typing import Any


def go_pointer(value: Any) -> str:
    """As Go's `%v` prints a pointer to the wrapped JSON value."""
    return f"&{{{go_value(value)}}}"


def go_value(value: Any) -> str:
    """As Go's `%v` prints a JSON value."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_value(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)
