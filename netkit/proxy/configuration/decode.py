"""Reads KubeProxyConfiguration from YAML or JSON as kube-proxy does: strictly, and if only that fails, leniently.

Pure: text in, values out. An unknown or repeated field is not fatal, as upstream still reads v1alpha1 leniently then;
what strict reading would have refused comes back as a warning. Faults are worded as Go's decoders word them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.meta import yaml_json
from controlplane.meta.quantity import Quantity
from controlplane.resources.fieldpath import quoted
from netkit.proxy.configuration.document import API_VERSION, KIND, KubeProxyConfiguration, members
from netkit.proxy.configuration.durations import Duration

SCHEME = "k8s.io/kubernetes/pkg/proxy/apis/config/scheme/scheme.go:30"
_INT32 = range(-(2**31), 2**31)
_PREFIX = "error converting YAML to JSON: "


class ConfigurationError(Exception):
    """The text is no KubeProxyConfiguration, or its values cannot be used. `message` is what kube-proxy would say."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Decoded:
    """`warning` is "" when strict reading found nothing to complain about. No defaults are set yet."""

    configuration: KubeProxyConfiguration
    warning: str = ""


def decode(text: bytes) -> Decoded:
    """What `text` says. Raises ConfigurationError."""
    try:
        found = yaml_json.parse(text)
        if not isinstance(found.value, dict):
            raise ValueError(_no_object(found.value))
        _check_kind(found.value, text)
        reader = _Reader()
        configuration = reader.section(KubeProxyConfiguration, _without_kind(found.value), ())
    except ValueError as error:
        raise ConfigurationError(f"failed to decode: {_plain(str(error))}") from None
    strict = [f"unknown field {quoted(path)}" for path in reader.unknown]
    if found.repeated:
        strict.insert(0, "\n  ".join(("yaml: unmarshal errors:", *found.repeated)))
    return Decoded(configuration, f"strict decoding error: {', '.join(strict)}" if strict else "")


def _plain(message: str) -> str:
    # libyaml and the parser kube-proxy uses differ in one word of a message everybody searches for.
    return message.removeprefix(_PREFIX).replace("are not allowed here", "are not allowed in this context")


def _no_object(value: object) -> str:
    fault = f"json: cannot unmarshal {_kind(value)} into Go value of type struct"
    return f"couldn't get version/kind; json parse error: {fault}"


def _check_kind(document: Mapping[str, Any], text: bytes) -> None:
    """ValueError unless this is the kind and version that is known here."""
    kind, version = document.get("kind") or "", document.get("apiVersion") or ""
    if not isinstance(kind, str) or not isinstance(version, str):
        raise ValueError("couldn't get version/kind; json parse error: kind and apiVersion must be texts")
    shown = text.decode(errors="replace")
    if not kind:
        raise ValueError(f"Object 'Kind' is missing in '{shown}'")
    if not version:
        raise ValueError(f"Object 'apiVersion' is missing in '{shown}'")
    if (kind, version) != (KIND, API_VERSION):
        raise ValueError(
            f"no kind {quoted(kind)} is registered for version {quoted(version)} in scheme {quoted(SCHEME)}"
        )


def _without_kind(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in document.items() if name not in ("kind", "apiVersion")}


class _Reader:
    """Makes values of a parsed document, by the types of the fields; collects fields that are unknown."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def section(self, made: type[Any], value: object, path: tuple[str, ...], owner: str = "") -> Any:
        if value is None:
            return made()
        if not isinstance(value, dict):
            raise ValueError(_mismatch(value, path, owner, _go_type(made)))
        known, hints = members(made), typing.get_type_hints(made)
        given: dict[str, Any] = {}
        for name, item in value.items():
            member = known.get(name)
            if member is None:
                self.unknown.append(".".join((*path, name)))
            elif item is not None:
                given[member.name] = self._value(hints[member.name], item, (*path, name), made.__name__)
        return made(**given)

    def _value(self, wanted: Any, value: Any, path: tuple[str, ...], owner: str) -> Any:
        wanted = _without_none(wanted)
        if dataclasses.is_dataclass(wanted) and wanted is not Duration:
            return self.section(wanted, value, path, owner)  # type: ignore[arg-type]
        origin = typing.get_origin(wanted)
        if origin is tuple:
            return self._items(typing.get_args(wanted)[0], value, path, owner)
        if origin is not None:
            return self._gates(value, path, owner)
        if wanted is Duration:
            return _duration(value, path)
        if path[-1] == "infoBufferSize":
            return _quantity(value)
        return _scalar(wanted, value, path, owner)

    def _items(self, wanted: Any, value: object, path: tuple[str, ...], owner: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(_mismatch(value, path, owner, f"[]{_go_type(wanted)}"))
        return tuple(
            self._value(wanted, item, (*path[:-1], f"{path[-1]}[{at}]"), owner)
            if item is not None
            else wanted()
            for at, item in enumerate(value)
        )

    def _gates(self, value: object, path: tuple[str, ...], owner: str) -> Mapping[str, bool]:
        if not isinstance(value, dict):
            raise ValueError(_mismatch(value, path, owner, "map[string]bool"))
        return {name: _scalar(bool, item, path, owner) for name, item in value.items()}


def _scalar(wanted: type, value: Any, path: tuple[str, ...], owner: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is float and number:
        return float(value)
    if wanted is int and number:
        if isinstance(value, int) and value in _INT32:
            return value
        raise ValueError(_mismatch(value, path, owner, "int32", f"number {value}"))
    if wanted in (bool, str) and isinstance(value, wanted):
        return value
    raise ValueError(_mismatch(value, path, owner, _go_type(wanted)))


def _duration(value: object, path: tuple[str, ...]) -> Duration:
    if path == ("logging", "flushFrequency") and isinstance(value, int) and not isinstance(value, bool):
        # Older files give this one as nanoseconds.
        return Duration(value)
    if not isinstance(value, str):
        raise ValueError(f"json: cannot unmarshal {_kind(value)} into Go value of type string")
    return Duration.parse(value)


def _quantity(value: object) -> str:
    return str(Quantity.parse(value if isinstance(value, str) else str(value)))


def _mismatch(value: object, path: tuple[str, ...], owner: str, go_type: str, shown: str = "") -> str:
    where = f"struct field {owner}.{'.'.join(path)}" if path else "value"
    return f"json: cannot unmarshal {shown or _kind(value)} into Go {where} of type {go_type}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _go_type(wanted: Any) -> str:
    names = {str: "string", bool: "bool", int: "int32", float: "float32"}
    return names.get(wanted) or f"v1alpha1.{wanted.__name__}"


def _without_none(wanted: Any) -> Any:
    """`X` of `X | None`."""
    if isinstance(wanted, types.UnionType):
        return next(part for part in typing.get_args(wanted) if part is not types.NoneType)
    return wanted
