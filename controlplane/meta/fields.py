"""Field selectors (`status.phase=Running,spec.nodeName!=n1`) as lists and watches take them.

Called by the API server, which knows the fields a kind can be selected by. Operators are `=`, `==` and `!=`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """`requirements` holds (field, operator, value); the operator is `=` or `!=`. All must hold."""

    requirements: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Reads the query parameter; raises ValueError in upstream's words. Empty text selects everything."""
        found = []
        for term in _terms(text):
            if not term:
                continue
            field, operator, value = _split(term)
            if not operator:
                raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
            found.append((field, "!=" if operator == "!=" else "=", _unescape(value)))
        return cls(tuple(found))

    @property
    def empty(self) -> bool:
        return not self.requirements

    def matches(self, getter: Callable[[str], str]) -> bool:
        """Whether all requirements hold; `getter(field)` gives the object's value as text, empty if unset."""
        return all(
            (getter(field) == value) is (operator == "=") for field, operator, value in self.requirements
        )

    def exact(self, field: str) -> str | None:
        """The value `field` must equal, e.g. to read one object instead of a list; None if left open."""
        for name, operator, value in self.requirements:
            if name == field and operator == "=":
                return value
        return None

    def __str__(self) -> str:
        return ",".join(f"{field}{operator}{_escape(value)}" for field, operator, value in self.requirements)


def _terms(text: str) -> Iterator[str]:
    """The parts between commas that no backslash escapes."""
    start, escaped = 0, False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _split(term: str) -> tuple[str, str, str]:
    """Field, operator and raw value at the first operator; an empty operator if there is none."""
    for at in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, at):
                return term[:at], operator, term[at + len(operator) :]
    return term, "", ""


def _unescape(value: str) -> str:
    out: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if not following or following not in "\\,=":
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{following}")
            out.append(following)
        elif character in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {character}")
        else:
            out.append(character)
    return "".join(out)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


EVERYTHING = FieldSelector()
