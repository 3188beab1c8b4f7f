"""Label selectors: the query text of lists, `metav1.LabelSelector` objects and plain maps.

Called by the API server, controllers and the data plane. Grammar, order and messages are apimachinery's
(`pkg/labels`, v0.32). A selector is a value; matching never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.meta import names

_BINARY = ("in", "notin", "=", "==", "!=", "gt", "lt")
_OPERATORS = {"=": "=", "==": "==", "!=": "!=", ">": "gt", "<": "lt", "in": "in", "notin": "notin"}
_INTEGER = re.compile(r"[+-]?\d+").fullmatch
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+|$)")
_SPECIAL = "=!(),<>"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. Operators: `=` `==` `!=` `in` `notin` `exists` `!` `gt` `lt`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator in ("=", "==", "in"):
            return value is not None and value in self.values
        if self.operator in ("!=", "notin"):
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        if value is None or not _int64(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "gt" else int(value) < bound

    def __str__(self) -> str:
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return f"!{self.key}"
        values = ",".join(sorted(self.values))
        if self.operator in ("in", "notin"):
            return f"{self.key} {self.operator} ({values})"
        return f"{self.key}{ {'gt': '>', 'lt': '<'}.get(self.operator, self.operator) }{values}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold, sorted by key. `nothing` marks the selector that never matches."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Reads query text such as `app=web,tier in (a,b),!old`; raises ValueError in upstream's words."""
        return cls(_sorted(_Parser(text).requirements()))

    @classmethod
    def from_map(cls, labels: Mapping[str, str] | None) -> LabelSelector:
        """Each pair must match. An empty or missing map matches everything (for Services it means none)."""
        return cls(_sorted(Requirement(key, "=", (value,)) for key, value in (labels or {}).items()))

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """A `metav1.LabelSelector`: None matches nothing, an empty one everything.

        Raises ValueError for an unknown operator or impossible values.
        """
        if selector is None:
            return NOTHING
        found = [
            _requirement(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()
        ]
        for expression in selector.get("matchExpressions") or ():
            word = expression.get("operator", "")
            operator = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}.get(word)
            if operator is None:
                raise ValueError(f'"{word}" is not a valid label selector operator')
            found.append(_requirement(expression.get("key", ""), operator, expression.get("values") or ()))
        return cls(_sorted(found))

    @property
    def empty(self) -> bool:
        """Whether it lets everything through."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        return all(requirement.matches(labels) for requirement in self.requirements)

    def exact(self, key: str) -> str | None:
        """The one value `key` must have, or None if the selector leaves it open."""
        for requirement in self.requirements:
            if requirement.key == key:
                single = requirement.operator in ("=", "==", "in") and len(requirement.values) == 1
                return requirement.values[0] if single else None
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def _sorted(requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
    return tuple(sorted(requirements, key=lambda requirement: requirement.key))


def _int64(text: str) -> bool:
    return bool(_INTEGER(text)) and -(2**63) <= int(text) < 2**63


def _quoted(values: Sequence[str]) -> str:
    return "[" + ",".join(f'"{value}"' for value in values) + "]"


def _requirement(key: str, operator: str, values: Sequence[str]) -> Requirement:
    """A checked requirement; raises ValueError with every fault, as upstream's aggregate does."""
    faults = []
    if messages := names.qualified_name(key):
        faults.append(f'key: Invalid value: "{key}": {"; ".join(messages)}')
    fault = ""
    if operator in ("in", "notin") and not values:
        fault = "for 'in', 'notin' operators, values set can't be empty"
    elif operator in ("exists", "!") and values:
        fault = "values set must be empty for exists and does not exist"
    if fault:
        faults.append(f"values: Invalid value: {_quoted(values)}: {fault}")
    if operator in ("gt", "lt"):
        why = "for 'Gt', 'Lt' operators, the value must be an integer"
        faults += [
            f'values[{at}]: Invalid value: "{value}": {why}'
            for at, value in enumerate(values)
            if not _int64(value)
        ]
    for at, value in enumerate(values):
        if messages := names.label_value(value):
            faults.append(f'values[{at}][{key}]: Invalid value: "{value}": {"; ".join(messages)}')
    if faults:
        raise ValueError(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
    return Requirement(key, operator, tuple(values))


class _Parser:
    """Recursive descent over the tokens. `in` and `notin` are operators only where an operator may stand."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while match := _TOKEN.match(text, at):
            self._tokens.append(match[1])
            at = match.end()
            if not match[1]:
                break
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        if not self._peek():
            return found
        while True:
            token = self._peek()
            if token != "!" and not _is_identifier(token):
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._one())
            except ValueError as fault:
                raise ValueError(f"unable to parse requirement: {fault}") from fault
            token = self._next()
            if not token:
                return found
            if token != ",":
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            token = self._peek()
            if token != "!" and not _is_identifier(token):
                raise ValueError(f"found '{token}', expected: identifier after ','")

    def _one(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._identifier()
        if messages := names.qualified_name(key):
            raise ValueError(f'key: Invalid value: "{key}": {"; ".join(messages)}')
        if absent or self._peek() in ("", ","):
            return _requirement(key, "!" if absent else "exists", ())
        token = self._next()
        operator = _OPERATORS.get(token)
        if operator is None:
            raise ValueError(f"found '{token}', expected: {', '.join(_BINARY)}")
        if operator in ("in", "notin"):
            return _requirement(key, operator, self._values())
        if self._peek() in ("", ","):
            return _requirement(key, operator, ("",))
        return _requirement(key, operator, (self._identifier(),))

    def _identifier(self) -> str:
        token = self._next()
        if not _is_identifier(token):
            raise ValueError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> list[str]:
        """The set in parentheses, sorted; an empty place between commas is the empty value."""
        token = self._next()
        if token != "(":
            raise ValueError(f"found '{token}' expected: '('")
        if self._peek() == ")":
            self._next()
            return []
        found: set[str] = set()
        wanted = True
        while True:
            token = self._next()
            if token == ")":
                if wanted:
                    found.add("")
                return sorted(found)
            if token == ",":
                if wanted:
                    found.add("")
                wanted = True
            elif _is_identifier(token) and wanted:
                found.add(token)
                wanted = False
            else:
                expected = "',', or identifier" if wanted else "',' or ')'"
                raise ValueError(f"found '{token}', expected: {expected}")


def _is_identifier(token: str) -> bool:
    return bool(token) and token[0] not in _SPECIAL
