"""Reads typed values out of a topology document and collects what is wrong with them, each with its path. Pure.

Unlike a configuration's fields, all faults are told at once: a person draws a network as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from netkit.cluster.errors import ConfigError
from netkit.cluster.value_kinds import instead_of, kind

_RATE = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)bit")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a place of the document, such as `nodes[2].interfaces[0].segment`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class TopologyError(ConfigError):
    """A topology that cannot be; `faults` has all there is to say, the message the first."""

    def __init__(self, faults: Sequence[Fault], name: str = "") -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        where = f"topology {name}: " if name else "topology: "
        super().__init__(f"{where}{faults[0]}{more}", "netkit topology validate FILE names everything")
        self.faults = tuple(faults)


class Part:
    """One mapping of the document. `finish` tells of fields nobody asked for."""

    def __init__(self, value: object, path: str, faults: list[Fault]) -> None:
        self.path = path
        self.faults = faults
        self._known: list[str] = []
        if value is not None and not isinstance(value, Mapping):
            self.wrong("", f"expected a mapping, got {kind(value)}")
            value = {}
        self._values: dict[str, Any] = {str(key): item for key, item in (value or {}).items()}

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def wrong(self, key: str, message: str) -> None:
        self.faults.append(Fault(self.at(key), message))

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def take(self, key: str) -> Any:
        self._known.append(key)
        return self._values.pop(key, None)

    def part(self, key: str) -> Part:
        return Part(self.take(key), self.at(key), self.faults)

    def parts(self, key: str, short: str = "") -> Iterator[Part]:
        """The mappings of a list; with `short`, a text stands for a mapping of that one field."""
        value = self.take(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.wrong(key, f"expected a list, got {kind(value)}")
            return
        for number, item in enumerate(value):
            whole = {short: item} if short and isinstance(item, str) else item
            yield Part({} if whole is None else whole, f"{self.at(key)}[{number}]", self.faults)

    def text(self, key: str, default: str = "", *, needed: bool = False) -> str:
        value = self.take(key)
        if value is None:
            if needed:
                self.wrong(key, "is needed")
            return default
        if not isinstance(value, str):
            self.wrong(key, f"expected text, got {kind(value)}")
            return default
        return value

    def number(self, key: str, default: int, low: int, high: int) -> int:
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(key, f"expected a whole number, got {kind(value)}")
        elif not low <= value <= high:
            self.wrong(key, f"{value} is not between {low} and {high}")
        else:
            return value
        return default

    def address(self, key: str) -> IPv4Address | None:
        value = self.take(key)
        if value is None:
            return None
        try:
            return IPv4Address(str(value))
        except ValueError:
            self.wrong(key, f"{value!r} is not an IPv4 address, such as 172.18.1.11")
            return None

    def network(self, key: str) -> IPv4Network | None:
        value = self.take(key)
        if value is None:
            return None
        try:
            return IPv4Network(str(value))
        except ValueError as error:
            known = str(error) if "host bits" in str(error) else f"{value!r} is not an IPv4 range"
            self.wrong(key, f"{known}, write one such as 172.18.1.0/24")
            return None

    def labels(self, key: str) -> tuple[tuple[str, str], ...]:
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            self.wrong(key, f"expected a mapping, got {kind(value)}")
            return ()
        for name, item in value.items():
            if not isinstance(item, str):
                self.wrong(f"{key}.{name}", f"expected text, got {kind(item)}")
        return tuple((str(name), item) for name, item in value.items() if isinstance(item, str))

    def rate(self, key: str) -> int:
        """Bits per second, 0 when absent."""
        found = self._measured(key, _RATE, "a rate such as 100mbit, 64kbit or 1gbit")
        return round(float(found[1]) * _SCALE[found[2]]) if found else 0

    def seconds(self, key: str) -> float:
        """Seconds, 0 when absent."""
        found = self._measured(key, _TIME, "a time such as 10ms, 250us or 1s")
        return float(found[1]) * _SCALE[found[2]] if found else 0.0

    def share(self, key: str) -> float:
        """A share between 0 and 1, 0 when absent."""
        found = self._measured(key, _PERCENT, "a share such as 1% or 0.5%")
        if found and float(found[1]) > 100:
            self.wrong(key, f"{found[0]} is more than 100%")
            return 0.0
        return float(found[1]) / 100 if found else 0.0

    def _measured(self, key: str, pattern: re.Pattern[str], example: str) -> re.Match[str] | None:
        value = self.take(key)
        if value is None:
            return None
        found = pattern.fullmatch(str(value))
        if found is None:
            self.wrong(key, f"{value!r} is not {example}")
        return found

    def finish(self) -> None:
        """Tell of every field nobody asked for."""
        for key in self._values:
            self.wrong(key, f"unknown field; {instead_of(key, self._known)}")
