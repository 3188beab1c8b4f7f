"""Field selectors: which fields of a kind may be selected by, and how each is read.

Every kind can be selected by name and namespace; `selectable_fields` adds its own. Called where kinds are
declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controlplane.errors import Object
from controlplane.meta.objects import dig

Getter = Callable[[Object], str]


def at(*path: str) -> Getter:
    """Reads the field behind a path of keys as text; a missing one is empty."""

    def read(obj: Object) -> str:
        return _text(dig(obj, *path, default=""))

    return read


def flag(*path: str) -> Getter:
    """Reads a boolean; a missing one is false."""

    def read(obj: Object) -> str:
        return _text(dig(obj, *path, default=False))

    return read


def number(*path: str) -> Getter:
    """Reads a count; a missing one is 0."""

    def read(obj: Object) -> str:
        return _text(dig(obj, *path, default=0))

    return read


def selectable_fields(*paths: str, named: Mapping[str, Getter] | None = None) -> Mapping[str, Getter]:
    """Name, namespace, each dotted path read as text, and `named` fields with their own getters."""
    fields = {path: at(*path.split(".")) for path in ("metadata.name", "metadata.namespace", *paths)}
    fields.update(named or {})
    return fields


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
