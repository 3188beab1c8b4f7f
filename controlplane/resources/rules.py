"""The vocabulary validations are written in: a `Field` is a value, its path and the list its faults go to.

    spec = Field.root(service)["spec"]
    for port in spec["ports"]:
        port["port"].between(1, 65535)
        port["protocol"].required().one_of("SCTP", "TCP", "UDP")
        port["name"].dns_label()
    spec["ports"].unique("name")

Every rule but `required` lets an absent value pass, so rules chain without conditions. Null and the empty
string count as absent, as in Go. Called by the validation of every kind; knows no kind. Wrong JSON types
are refused before validation, so a value of another type than a rule speaks of is left alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.meta.names import (
    dns1123_label,
    dns1123_subdomain,
    label_value,
    path_segment,
    port_name,
    qualified_name,
)
from controlplane.meta.quantity import Quantity
from controlplane.resources import fieldpath

FormatCheck = Callable[[str], Sequence[str]]
"""Gives upstream's messages about a text; none for a good one."""

MAX_INT32 = 2**31 - 1
INVALID_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
INVALID_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
IMMUTABLE = "field is immutable"


def range_error(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


class Field:
    """One place in an object. Make the first with `Field.root`; `causes` is shared by all that descend from
    it.
    """

    __slots__ = ("causes", "path", "value")

    def __init__(self, value: Any, path: str, causes: list[Cause]) -> None:
        self.value = value
        self.path = path
        self.causes = causes

    @classmethod
    def root(cls, obj: Object, path: str = "") -> Field:
        return cls(obj, path, [])

    # Going to other places.

    def __getitem__(self, name: str) -> Field:
        # Exact types: this is the hottest line of validation, and what JSON is parsed to has no others.
        value = self.value.get(name) if type(self.value) is dict else None
        return Field(value, f"{self.path}.{name}" if self.path else name, self.causes)

    def __iter__(self) -> Iterator[Field]:
        """The items of a list."""
        if type(self.value) is not list:
            return
        for position, item in enumerate(self.value):
            yield Field(item, f"{self.path}[{position}]", self.causes)

    def entries(self) -> Iterator[tuple[str, Field]]:
        """The pairs of a map in key order, with paths such as `data[key]`."""
        pairs = self.value if type(self.value) is dict else {}
        for name in sorted(pairs):
            yield name, Field(pairs[name], f"{self.path}[{name}]", self.causes)

    def of(self, value: Any) -> Field:
        """The same place with another value, e.g. the part of a name a rule is about."""
        return Field(value, self.path, self.causes)

    def __len__(self) -> int:
        return len(self.value) if isinstance(self.value, list | Mapping | str) else 0

    def __bool__(self) -> bool:
        return self.present

    @property
    def present(self) -> bool:
        return self.value is not None and self.value != ""

    @property
    def text(self) -> str:
        """The value as text, empty when it is absent."""
        return self.value if isinstance(self.value, str) else ""

    # Saying what is wrong.

    def fail(self, cause: Cause) -> Field:
        self.causes.append(cause)
        return self

    def invalid(self, detail: str) -> Field:
        return self.fail(fieldpath.invalid(self.path, "" if self.value is None else self.value, detail))

    def forbidden(self, detail: str) -> Field:
        return self.fail(fieldpath.forbidden(self.path, detail))

    def duplicate(self) -> Field:
        return self.fail(fieldpath.duplicate(self.path, self.value))

    # Rules.

    def required(self, detail: str = "") -> Field:
        """Must be there; an empty list or map is not."""
        if not self.present or self.value == [] or self.value == {}:
            self.fail(fieldpath.required(self.path, detail))
        return self

    def absent(self, detail: str) -> Field:
        """Must not be there, because of `detail`; false, 0 and empty collections count as not there."""
        if self.value:
            self.forbidden(detail)
        return self

    def one_of(self, *choices: str) -> Field:
        if self.present and self.value not in choices:
            self.fail(fieldpath.not_supported(self.path, self.value, choices))
        return self

    def between(self, low: int, high: int) -> Field:
        if isinstance(self.value, int) and not low <= self.value <= high:
            self.invalid(range_error(low, high))
        return self

    def port_number(self) -> Field:
        """A port; a missing one counts as 0, as Go's zero value does."""
        value = 0 if self.value is None else self.value
        self.of(value).between(1, 65535)
        return self

    def port_number_or_name(self) -> Field:
        """A port's number, or the name of one, as in `targetPort` and probes."""
        if isinstance(self.value, str):
            return self.check(port_name)
        return self.port_number()

    def not_negative(self) -> Field:
        if isinstance(self.value, int) and self.value < 0:
            self.invalid("must be greater than or equal to 0")
        return self

    def positive(self) -> Field:
        if isinstance(self.value, int) and self.value <= 0:
            self.invalid("must be greater than 0")
        return self

    def check(self, format_check: FormatCheck) -> Field:
        """The text must have a format; each message becomes one cause."""
        if self.value and isinstance(self.value, str):
            for message in format_check(self.value):
                self.invalid(message)
        return self

    def dns_label(self) -> Field:
        return self.check(dns1123_label)

    def dns_subdomain(self) -> Field:
        return self.check(dns1123_subdomain)

    def qualified_name(self) -> Field:
        return self.check(qualified_name)

    def ip(self) -> Field:
        if self.present and not _is_ip(self.text):
            self.invalid(INVALID_IP)
        return self

    def cidr(self) -> Field:
        if self.present and not is_cidr(self.text):
            self.invalid(INVALID_CIDR)
        return self

    def path_segment(self) -> Field:
        """Text that can stand in a URL path by itself."""
        return self.check(path_segment)

    def max_bytes(self, maximum: int) -> Field:
        if isinstance(self.value, str) and len(self.value.encode()) > maximum:
            self.fail(fieldpath.too_long(self.path, maximum))
        return self

    def max_items(self, maximum: int) -> Field:
        if len(self) > maximum:
            self.fail(fieldpath.too_many(self.path, len(self), maximum))
        return self

    def unique(self, name: str) -> Field:
        """No two items of the list may have the same `name`; items without it are left alone."""
        seen: set[object] = set()
        for item in self:
            field = item[name]
            if not field.present:
                continue
            if field.value in seen:
                field.duplicate()
            seen.add(field.value)
        return self

    def labels(self) -> Field:
        """A map of labels: upstream blames the whole map and shows the bad key or value."""
        for name, entry in self.entries():
            # Unlike an absent value, an empty key is a fault.
            for message in qualified_name(name):
                self.of(name).invalid(message)
            self.of(entry.text).check(label_value)
        return self

    def quantity(self) -> Quantity | None:
        """The value as a quantity that is not negative, or None when it is none (which is a fault if it is
        there).
        """
        if not self.present:
            return None
        try:
            parsed = Quantity.parse(str(self.value))
        except ValueError as error:
            self.invalid(str(error))
            return None
        if parsed.nanos < 0:
            self.of(str(parsed)).invalid("must be greater than or equal to 0")
        return parsed

    def unchanged(self, old: Field, detail: str = IMMUTABLE) -> Field:
        """The value must be what it was; null, missing and empty are the same."""
        if not same(self.value, old.value):
            self.invalid(detail)
        return self


def same(one: Any, other: Any) -> bool:
    """Equality as Go's semantic equality sees it: nothing, null and empty collections are all the same."""
    if one == other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = one.keys() | other.keys()
        return all(same(one.get(name), other.get(name)) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return _is_nothing(one) and _is_nothing(other)


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # A zone is fine for Python and not for Kubernetes.
    return "%" not in text


def is_cidr(text: str) -> bool:
    """Whether the text is an address with a prefix length; host bits may be set."""
    address, slash, length = text.partition("/")
    return bool(slash) and length.isdigit() and _is_ip(address) and _fits(text)


def _fits(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
