"""Words for what is wrong with a value of a file that users write. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

_KINDS: Final[dict[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


def kind(value: object) -> str:
    """What a value of YAML is, as in "nodes is text"."""
    return _KINDS.get(type(value), type(value).__name__)


def instead_of(field: str, known: Collection[str]) -> str:
    """What may have been meant by a field that is not known."""
    near = difflib.get_close_matches(field, known, 1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
