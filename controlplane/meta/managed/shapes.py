"""What a type tells about the ownership of its values: the vocabulary between schemas and this package.

Shapes of built-in kinds and of custom resources are made by `controlplane.schema.shapes`; here is only what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any


class Form(Enum):
    """ANY tells nothing: mappings are then granular, lists atomic."""

    SCALAR = "scalar"
    MAP = "map"
    LIST = "list"
    ANY = "any"


class Scalar(Enum):
    """What a plain value may be; ANY for quantities, times and numbers that may be strings."""

    STRING = "string"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    ANY = "any"


class Shape:
    """One type. Values of an `atomic` one are owned as a whole.

    MAP: `fields()` are the declared ones, `element` is the shape of all others (None: there may be none). LIST: items
    have the shape `element`; they are told apart by `keys`, or by their value when `is_set`; without either the list
    is atomic. `defaults` holds the values of fields (of a list's items) that count as set when they are left out.
    `always` are fields of a MAP that its Go type cannot leave out, with their zero values: they are never new.
    `may_change` marks types of custom resources, which owners may remember in an older form.
    """

    __slots__ = (
        "_fields", "_make", "always", "atomic", "defaults", "element", "form", "is_set", "keys", "may_change",
        "scalar",
    )  # fmt: skip

    def __init__(
        self,
        form: Form,
        *,
        scalar: Scalar = Scalar.ANY,
        atomic: bool = False,
        fields: Callable[[], Mapping[str, Shape]] | None = None,
        element: Shape | None = None,
        keys: tuple[str, ...] = (),
        is_set: bool = False,
        defaults: Mapping[str, Any] | None = None,
        always: Mapping[str, Any] | None = None,
        may_change: bool = False,
    ) -> None:
        self.form = form
        self.scalar = scalar
        self.atomic = atomic or (form is Form.LIST and not keys and not is_set)
        self.element = element
        self.keys = keys
        self.is_set = is_set
        self.defaults: Mapping[str, Any] = defaults or {}
        self.always: Mapping[str, Any] = always or {}
        self.may_change = may_change
        self._make = fields
        self._fields: Mapping[str, Shape] | None = None

    @property
    def fields(self) -> Mapping[str, Shape]:
        """The declared fields; made at the first access, because types refer to themselves."""
        if self._fields is None:
            self._fields = self._make() if self._make is not None else {}
        return self._fields

    def child(self, name: str) -> Shape:
        """The shape of a field or of a map's value; of unknown ones, `ANYTHING`."""
        return self.fields.get(name) or self.element or ANYTHING

    def as_atomic(self) -> Shape:
        """The same type where its holder says that it is owned as a whole."""
        return self._as(atomic=True)

    def as_granular(self) -> Shape:
        return self._as(atomic=False)

    def _as(self, *, atomic: bool) -> Shape:
        if self.atomic == atomic:
            return self
        return Shape(
            self.form, scalar=self.scalar, atomic=atomic, fields=lambda: self.fields, element=self.element,
            keys=self.keys, is_set=self.is_set, defaults=self.defaults, always=self.always,
        )  # fmt: skip


ANYTHING = Shape(Form.ANY)


def is_atomic(shape: Shape, value: Any) -> bool:
    """Whether this value is owned as a whole."""
    if shape.form is Form.ANY:
        return not isinstance(value, dict)
    return shape.atomic or shape.form is Form.SCALAR
