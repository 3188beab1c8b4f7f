"""kube-proxy's command line: how the values of its flags are read, and how they become a configuration.

Pure. Values come as the texts a user typed, so that they are read as kube-proxy's flag library reads them. `--config`
names a file that is then the whole configuration, but for the flags that are not part of one, the name of the Node and
the logging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controlplane.resources.fieldpath import quoted
from netkit.proxy.configuration.addresses import parse_ip, split_host_port
from netkit.proxy.configuration.decode import ConfigurationError, decode
from netkit.proxy.configuration.defaults import (
    HEALTHZ_PORT,
    METRICS_PORT,
    for_linux,
    with_defaults,
    with_port,
)
from netkit.proxy.configuration.document import KubeProxyConfiguration, VModuleItem
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.flag_table import FLAGS, Kind
from netkit.proxy.settings import ProxyMode

_BY_NAME = {flag.name: flag for flag in FLAGS}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for: a configuration, and what is no part of one. `warning`: what strict reading refused."""

    configuration: KubeProxyConfiguration
    config_file: str = ""
    write_config_to: str = ""
    cleanup: bool = False
    init_only: bool = False
    master: str = ""
    netns: str = ""
    version: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """The flags that were given, their values read."""

    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        return str(self.values.get(name, ""))

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name, False))


def read(texts: Mapping[str, Sequence[str]]) -> Given:
    """The flags by name, each with the texts it was given in order. Raises ConfigurationError."""
    values: dict[str, Any] = {}
    for name, given in texts.items():
        flag = _BY_NAME[name]
        for text in given:
            try:
                value = _read(flag.kind, text)
            except ValueError as error:
                shown = f"-{flag.short}, --{name}" if flag.short else f"--{name}"
                raise ConfigurationError(
                    f"invalid argument {quoted(text)} for {quoted(shown)} flag: {error}"
                ) from None
            if flag.kind in (Kind.TEXTS, Kind.PATTERNS):
                value = values.get(name, ()) + value
            elif flag.kind is Kind.GATES:
                value = {**values.get(name, {}), **value}
            values[name] = value
    return Given(values)


def complete(given: Given, file: bytes | None = None) -> Options:
    """Flags and, with --config, the text of the file as what is to be done. Not validated yet.

    Raises ConfigurationError.
    """
    warning = ""
    if file is None:
        config = _from_flags(given)
    else:
        decoded = decode(file)
        warning = decoded.warning
        config = _with_logging(with_defaults(decoded.configuration), given)
    config = for_linux(config)
    if given.text("hostname-override"):
        name = given.text("hostname-override").strip()
        if not name:
            raise ConfigurationError("failed complete: empty hostname-override is invalid")
        config = replace(config, hostname_override=name.lower())
    return Options(
        config,
        given.text("config"),
        given.text("write-config-to"),
        given.flag("cleanup"),
        given.flag("init-only"),
        given.text("master"),
        given.text("netns"),
        given.flag("version"),
        warning,
    )


def _from_flags(given: Given) -> KubeProxyConfiguration:
    config = with_defaults(KubeProxyConfiguration())
    for name, value in given.values.items():
        if _BY_NAME[name].field:
            config = _set(config, _BY_NAME[name].field, value)
    config = _set_for_mode(config, given)
    if not given.text("write-config-to"):
        healthz = _served_at(config.healthz_bind_address, given.values.get("healthz-port", HEALTHZ_PORT))
        metrics = _served_at(config.metrics_bind_address, given.values.get("metrics-port", METRICS_PORT))
        config = replace(config, healthz_bind_address=healthz, metrics_bind_address=metrics)
    return config


def _set_for_mode(config: KubeProxyConfiguration, given: Given) -> KubeProxyConfiguration:
    """Flags whose place depends on the mode: the file has them once for each, the command line only once."""
    section = config.mode if config.mode in (ProxyMode.IPVS, ProxyMode.NFTABLES) else ProxyMode.IPTABLES
    prefix = "ipvs" if section == ProxyMode.IPVS else "iptables"
    for flag, field in (("sync-period", "sync_period"), ("min-sync-period", "min_sync_period")):
        if f"{prefix}-{flag}" in given.values:
            config = _set(config, f"{section}.{field}", given.values[f"{prefix}-{flag}"])
    if "masquerade-all" in given.values:
        masquerading = ProxyMode.NFTABLES if section == ProxyMode.NFTABLES else ProxyMode.IPTABLES
        config = _set(config, f"{masquerading}.masquerade_all", given.values["masquerade-all"])
    return config


def _served_at(address: str, port: int) -> str:
    return with_port(address, port) if port else ""


def _with_logging(config: KubeProxyConfiguration, given: Given) -> KubeProxyConfiguration:
    """The file's configuration with the command line's logging over it."""
    for name, value in given.values.items():
        place = _BY_NAME[name].field
        if place == "logging.vmodule":
            config = _set(config, place, value + config.logging.vmodule)
        elif place.startswith("logging."):
            config = _set(config, place, value)
    return config


def _set(section: Any, place: str, value: Any) -> Any:
    name, _, rest = place.partition(".")
    return replace(section, **{name: _set(getattr(section, name), rest, value) if rest else value})


def _read(kind: Kind, text: str) -> Any:
    """The value `text` stands for; ValueError in the words of Go's flag library."""
    match kind:
        case Kind.BOOL:
            return _bool(text)
        case Kind.NUMBER:
            return _number(text)
        case Kind.FLOAT:
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: invalid syntax") from None
        case Kind.DURATION:
            return Duration.parse(text)
        case Kind.TEXTS:
            return tuple(text.split(",")) if text else ()
        case Kind.ADDRESS:
            if text and parse_ip(text) is None:
                raise ValueError(f"{quoted(text)} is not a valid IP address")
        case Kind.ADDRESS_PORT:
            _check_address_port(text)
        case Kind.GATES:
            return dict(_gate(pair) for pair in text.split(",") if pair.strip())
        case Kind.PATTERNS:
            return tuple(_pattern(pair) for pair in text.split(",") if pair)
    return text


def _bool(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax") from None
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return number


def _check_address_port(text: str) -> None:
    if not text or parse_ip(text) is not None:
        return
    parts = split_host_port(text)
    if parts is None:
        raise ValueError(f"{quoted(text)} is not in a valid format (ip or ip:port)")
    host, port = parts
    if parse_ip(host) is None:
        raise ValueError(f"{quoted(host)} is not a valid IP address")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{quoted(port)} is not a valid number")


def _gate(pair: str) -> tuple[str, bool]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise ValueError("malformed pair, expect string=bool")
    try:
        return name.strip(), _bool(value.strip())
    except ValueError as error:
        raise ValueError(f"invalid value of {name.strip()}: {value.strip()}, err: {error}") from None


def _pattern(pair: str) -> VModuleItem:
    pattern, equals, level = pair.partition("=")
    if not (equals and pattern and level.isascii() and level.isdigit()):
        raise ValueError(f"{quoted(pair)} does not have the pattern=N format")
    return VModuleItem(pattern, int(level))
