"""Reads typed values out of a parsed YAML document and names the path of whatever is wrong.

Called by `config`. Unknown fields are errors: a misspelt option must never be silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from netkit.cluster.errors import ConfigError
from netkit.cluster.value_kinds import instead_of, kind

_DURATION = re.compile(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$")


class Fields:
    """One mapping of the document. Every reader takes the key and a default; `finish()` refuses what is left."""

    def __init__(self, value: object, path: str = "") -> None:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path or 'the file'}: expected a mapping, got {kind(value)}")
        self._values: dict[str, Any] = {str(key): item for key, item in value.items()}
        self._given = frozenset(self._values)
        self._path = path
        self._known: list[str] = []

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _take(self, key: str) -> object:
        self._known.append(key)
        return self._values.pop(key, None)

    @property
    def given(self) -> frozenset[str]:
        """The fields that the document has, asked for or not."""
        return self._given

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def anything(self, key: str) -> object:
        """The value as it is."""
        return self._take(key)

    def section(self, key: str) -> Fields:
        return Fields(self._take(key), self._at(key))

    def text(self, key: str, default: str, choices: tuple[str, ...] = ()) -> str:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ConfigError(f"{self._at(key)}: expected text, got {kind(value)}")
        if choices and value not in choices:
            raise ConfigError(f"{self._at(key)}: {value!r} is not one of {', '.join(choices)}")
        return value

    def texts(self, key: str, default: tuple[str, ...], choices: tuple[str, ...]) -> tuple[str, ...]:
        """A list of choices; one text stands for a list of one, and commas part them as on a command line."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            raise ConfigError(f"{self._at(key)}: expected a list, got {kind(value)}")
        for item in value:
            if item not in choices:
                raise ConfigError(f"{self._at(key)}: {item!r} is not one of {', '.join(choices)}")
        return tuple(value)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty when absent; one text stands for a list of one."""
        value = self._take(key)
        if value is None:
            return ()
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise ConfigError(f"{self._at(key)}: expected a list, got {kind(value)}")
        for item in value:
            if not isinstance(item, str) or not item:
                raise ConfigError(f"{self._at(key)}: expected a list of texts, got {kind(item)} in it")
        return tuple(value)

    def pairs(self, key: str) -> dict[str, str]:
        """A mapping of texts, empty when absent."""
        value = self._take(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self._at(key)}: expected a mapping, got {kind(value)}")
        for name, item in value.items():
            if not isinstance(item, str):
                raise ConfigError(f"{self._at(key)}.{name}: expected text, got {kind(item)}")
        return {str(name): item for name, item in value.items()}

    def paths(self, key: str) -> tuple[Path, ...]:
        """Files, as absolute paths."""
        return tuple(Path(text).expanduser().absolute() for text in self.strings(key))

    def path(self, key: str) -> Path | None:
        """A file, as an absolute path: relative ones count from where the command runs."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{self._at(key)}: expected a file's name, got {kind(value)}")
        return Path(value).expanduser().absolute()

    def number(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self._at(key)}: expected a whole number, got {kind(value)}")
        if not low <= value <= high:
            raise ConfigError(f"{self._at(key)}: {value} is not between {low} and {high}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigError(f"{self._at(key)}: expected true or false, got {kind(value)}")
        return value

    def network(self, key: str, default: IPv4Network | None) -> IPv4Network | None:
        value = self._take(key)
        if value is None:
            return default
        try:
            return IPv4Network(str(value))
        except ValueError as error:
            raise ConfigError(f"{self._at(key)}: {error}", "write a range such as 10.244.0.0/16") from None

    def seconds(self, key: str, default: float) -> float:
        """A duration in Kubernetes' spelling (`1m30s`, `500ms`), in seconds."""
        value = self._take(key)
        if value is None:
            return default
        text = str(value)
        if text.endswith("ms") and text[:-2].isdigit():
            return int(text[:-2]) / 1000
        match = _DURATION.match(text) if text else None
        if match is None or not any(match.groups()):
            raise ConfigError(
                f"{self._at(key)}: {text!r} is not a duration", "write one such as 40s or 1m30s"
            )
        hours, minutes, secs = match.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(secs or 0)

    def ports(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        value = self._take(key)
        if value is None:
            return default
        low, dash, high = str(value).partition("-")
        if not (dash and low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high) <= 65535):
            raise ConfigError(
                f"{self._at(key)}: {value!r} is not a port range", "write one such as 30000-32767"
            )
        return int(low), int(high)

    def finish(self) -> None:
        """Refuse every field nobody asked for."""
        for key in self._values:
            raise ConfigError(f"{self._at(key)}: unknown field", instead_of(key, self._known))
