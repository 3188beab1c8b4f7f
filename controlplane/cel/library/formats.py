"""format.named and the named formats, whose `validate` gives the faults of a text, or none."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.cel.functions import Function, member, plain, unwrap, wrap
from controlplane.cel.types import NAMED_FORMAT, STRING, list_of, optional_of
from controlplane.meta import names
from controlplane.meta.timestamps import parse

_UUID = re.compile(r"^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$", re.IGNORECASE)
_DATE = re.compile(r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")
_URI = re.compile(r"^(/|[A-Za-z][A-Za-z0-9+.\-]*:)\S*$")


def _prefix(check: Callable[[str], Sequence[str]]) -> Callable[[str], Sequence[str]]:
    """A name may end with a dash where something is to follow it."""
    return lambda text: check(f"{text[:-1]}a" if text.endswith("-") and len(text) > 1 else text)


def _uri(text: str) -> Sequence[str]:
    return () if _URI.match(text) else (f'parse "{text}": invalid URI for request',)


def _uuid(text: str) -> Sequence[str]:
    return () if _UUID.match(text) else ("does not match the UUID format",)


def _byte(text: str) -> Sequence[str]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ("invalid base64",)
    return ()


def _date(text: str) -> Sequence[str]:
    return () if _DATE.match(text) else ("invalid date",)


def _datetime(text: str) -> Sequence[str]:
    try:
        parse(text)
    except ValueError:
        return ("invalid datetime",)
    return ()


_FORMATS: Mapping[str, Callable[[str], Sequence[str]]] = {
    "dns1123Label": names.dns1123_label,
    "dns1123Subdomain": names.dns1123_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns1123_label),
    "dns1123SubdomainPrefix": _prefix(names.dns1123_subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035_label),
    "labelValue": names.label_value,
    "uri": _uri,
    "uuid": _uuid,
    "byte": _byte,
    "date": _date,
    "datetime": _datetime,
}


def _constant(name: str) -> Function:
    return plain(f"format.{name}", lambda: wrap(NAMED_FORMAT, name), (f"format_{name}", (), NAMED_FORMAT))


def _named(name: str) -> dict[str, Any]:
    return wrap(NAMED_FORMAT, name) if name in _FORMATS else {}


def _validate(value: Any, text: str) -> list[str]:
    return list(_FORMATS[unwrap(NAMED_FORMAT, value)](text))


FUNCTIONS: tuple[Function, ...] = (
    plain("format.named", _named, ("format_named", (STRING,), optional_of(NAMED_FORMAT))),
    *(_constant(name) for name in _FORMATS),
    member("validate", _validate, ("format_validate", (NAMED_FORMAT, STRING), optional_of(list_of(STRING)))),
)
