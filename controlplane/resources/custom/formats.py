"""The string formats a custom resource's schema may ask for, as go-openapi's strfmt knows them. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from urllib.parse import urlsplit

_UUID = r"[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{version}[0-9a-f]{{3}}-?{variant}[0-9a-f]{{3}}-?[0-9a-f]{{12}}"
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?").fullmatch
_DURATION = re.compile(
    r"([-+]?(\d+(\.\d*)?|\.\d+)\s*(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d|w|"
    r"nano(second)?s?|micro(second|s)?s?|milli(second)?s?|sec(ond)?s?|min(ute)?s?|hr?s?|hours?|days?|weeks?|wk)\s*)+|0"
).fullmatch
_HOST = re.compile(
    r"(?=.{1,253}\Z)([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9])(\."
    r"([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]))*\.?"
).fullmatch
_EMAIL = re.compile(r"[^@\s<>()\[\]\\,;:\"]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?").fullmatch
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?").fullmatch


def _matches(pattern: str, flags: int = 0) -> Callable[[str], bool]:
    fits = re.compile(pattern, flags).fullmatch
    return lambda text: fits(text) is not None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _uuid(version: str = "[0-9a-f]", variant: str = "[0-9a-f]") -> Callable[[str], bool]:
    return _matches(_UUID.format(version=version, variant=variant), re.IGNORECASE)


def _date_time(text: str) -> bool:
    if _DATE_TIME(text) is None:
        return False
    return _parses(datetime.fromisoformat)(text[:19])


def _date(text: str) -> bool:
    return len(text) == 10 and _parses(date.fromisoformat)(text)


def _byte(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return _BASE64(text) is not None


def _uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _cidr(text: str) -> bool:
    return "/" in text and _parses(lambda value: ipaddress.ip_network(value, strict=False))(text)


def _luhn(text: str) -> bool:
    digits = [int(each) for each in text if each.isdigit()]
    if not 12 <= len(digits) <= 19 or re.fullmatch(r"[\d -]+", text) is None:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) if at % 2 else digit for at, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _isbn10(text: str) -> bool:
    plain = re.sub(r"[\s-]", "", text)
    if re.fullmatch(r"\d{9}[\dX]", plain) is None:
        return False
    digits = [10 if each == "X" else int(each) for each in plain]
    return sum((at + 1) * digit for at, digit in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    plain = re.sub(r"[\s-]", "", text)
    if re.fullmatch(r"\d{13}", plain) is None:
        return False
    return sum(int(each) * (3 if at % 2 else 1) for at, each in enumerate(plain)) % 10 == 0


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches("[0-9a-f]{24}", re.IGNORECASE),
    "uri": _uri,
    "email": lambda text: _EMAIL(text) is not None,
    "hostname": lambda text: _HOST(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _cidr,
    "mac": _matches(
        r"([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-]){0,2}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2,3}[0-9a-fA-F]{4}"
    ),
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _luhn,
    "ssn": _matches(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _matches("#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matches(
        r"rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)"
    ),
    "byte": _byte,
    "password": lambda text: True,
    "date": _date,
    "datetime": _date_time,
    "duration": lambda text: _DURATION(text) is not None,
}
"""By normalized name (without dashes). Other formats are allowed in a schema and check nothing."""


def check_for(name: str) -> Callable[[str], bool] | None:
    """The check of a format, None when it is not one that is checked."""
    return FORMATS.get(name.replace("-", ""))
