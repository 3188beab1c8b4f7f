"""What a plug-in is asked: environment and standard input, checked. Pure.

Refusals have the specification's codes: 4 for the environment, 6 for what is no JSON, 7 for a configuration that cannot
be, 2 for a field that this plug-in does not know (a misspelt one must not be passed over).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any, Final

from netkit.cni.errors import CniError, Code
from netkit.cni.result import Result, parse
from netkit.cni.versions import CHECK_SINCE, GC_SINCE, SUPPORTED, at_least
from netkit.podnet.attach import Attach

TYPE: Final = "netkit-cni"
OWN_IPAM: Final = "netkit"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_GENERAL: Final = frozenset(
    {"cniVersion", "cniVersions", "name", "type", "args", "ipam", "dns", "capabilities", "runtimeConfig",
     "prevResult", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"}
)  # fmt: skip
_OURS: Final = frozenset({"attach", "bridge", "mtu", "ipMasq", "dataDir"})
_OWN_IPAM: Final = frozenset({"type", "subnet", "routes"})
_DATA_DIR: Final = "/var/lib/cni/netkit"


class Command(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


_NEEDED: Final = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    Command.GC: ("CNI_PATH",),
    Command.STATUS: ("CNI_PATH",),
    Command.VERSION: (),
}
_SINCE: Final = {Command.CHECK: CHECK_SINCE, Command.GC: GC_SINCE, Command.STATUS: GC_SINCE}


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a plug-in may be asked for more than once: a container's interface in a network."""

    container: str
    interface: str


@dataclass(frozen=True, slots=True)
class Config:
    """The plug-in's part of a network. `bridge` is a link's name, `mtu` in bytes (0: as the machine's own way out),
    `ipam` as it comes; `subnet` is given when addresses are this plug-in's own affair; `raw` is all that was said.
    """

    version: str
    network: str
    attach: Attach
    bridge: str
    mtu: int
    masquerade: bool
    data_dir: str
    ipam: Mapping[str, Any]
    subnet: IPv4Network | None
    dns: Mapping[str, Any]
    previous: Result | None
    valid: frozenset[Attachment]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `netns` is a path, "" when it was not told; `arguments` is CNI_ARGS."""

    command: Command
    attachment: Attachment
    netns: str
    path: tuple[str, ...]
    config: Config
    arguments: str = ""


def command_of(environment: Mapping[str, str]) -> Command:
    """What is asked for. Raises CniError."""
    text = environment.get("CNI_COMMAND", "")
    try:
        return Command(text)
    except ValueError:
        why = f"unknown CNI_COMMAND: {text}" if text else "CNI_COMMAND env variable missing"
        raise CniError(Code.INVALID_ENVIRONMENT, why) from None


def request(environment: Mapping[str, str], stdin: str) -> Request:
    """The call (any but VERSION). Raises CniError."""
    command = command_of(environment)
    missing = [name for name in _NEEDED[command] if not environment.get(name)]
    if missing:
        raise CniError(Code.INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    container, interface = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if container and not _NAME.fullmatch(container):
        raise CniError(Code.INVALID_ENVIRONMENT, f"invalid characters in containerID: {container!r}")
    if interface:
        _check_interface(interface)
    config = _config(stdin, command)
    path = tuple(part for part in environment.get("CNI_PATH", "").split(":") if part)
    netns, arguments = environment.get("CNI_NETNS", ""), environment.get("CNI_ARGS", "")
    return Request(command, Attachment(container, interface), netns, path, config, arguments)


def version_of(stdin: str) -> str:
    """The version that answers shall have; the latest when the question cannot be understood."""
    try:
        version = json.loads(stdin or "{}").get("cniVersion")
    except (ValueError, AttributeError):
        return SUPPORTED[-1]
    return version if version in SUPPORTED else SUPPORTED[-1]


def _check_interface(name: str) -> None:
    bad = len(name) > 15 or name in (".", "..") or any(c in "/:" or c.isspace() for c in name)
    if bad:
        raise CniError(Code.INVALID_ENVIRONMENT, f"interface name is invalid: {name!r}")


def _config(stdin: str, command: Command) -> Config:
    try:
        raw = json.loads(stdin)
    except ValueError as error:
        raise CniError(Code.UNDECODABLE, "the network configuration is not JSON", str(error)) from None
    if not isinstance(raw, dict):
        raise CniError(Code.UNDECODABLE, "the network configuration is not a JSON object")
    version = raw.get("cniVersion") or "0.1.0"
    if version not in SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {version!r}, plugin supports {SUPPORTED}",
        )
    since = _SINCE.get(command)
    if since and not at_least(version, since):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"config version {version} has no {command}")
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad("name", "is missing" if not name else f"invalid characters in network name: {name!r}")
    for field in raw:
        if field not in _GENERAL | _OURS and not any(mark in field for mark in "./"):
            raise CniError(Code.UNSUPPORTED_FIELD, f"unknown field {field!r} in the network configuration")
    ipam = _mapping(raw, "ipam")
    previous = raw.get("prevResult")
    if previous and command is Command.ADD:
        raise _bad("prevResult", f"{TYPE} makes the interface and must be the first plug-in of its list")
    if not previous and command is Command.CHECK:
        raise _bad("prevResult", "is required by CHECK")
    return Config(
        version, name, _attach(raw), _text(raw, "bridge", "cni0"), _number(raw, "mtu"), _flag(raw, "ipMasq"),
        _text(raw, "dataDir", _DATA_DIR), ipam, _subnet(ipam), _mapping(raw, "dns"),
        parse(previous) if previous else None, _valid(raw), raw,
    )  # fmt: skip


def _attach(raw: Mapping[str, Any]) -> Attach:
    text = _text(raw, "attach", Attach.BRIDGE)
    if text not in tuple(Attach):
        raise _bad("attach", f"{text!r} is not one of {', '.join(Attach)}")
    return Attach(text)


def _subnet(ipam: Mapping[str, Any]) -> IPv4Network | None:
    kind = ipam.get("type")
    if not isinstance(kind, str) or not kind:
        raise _bad("ipam.type", "is missing: the name of a plug-in such as host-local, or netkit")
    if kind != OWN_IPAM:
        return None
    for field in ipam:
        if field not in _OWN_IPAM:
            raise CniError(Code.UNSUPPORTED_FIELD, f"unknown field {field!r} in ipam")
    try:
        subnet = IPv4Network(str(ipam.get("subnet", "")))
    except ValueError as error:
        raise _bad("ipam.subnet", str(error)) from None
    if subnet.prefixlen > 29:
        raise _bad("ipam.subnet", f"{subnet} is too small, at least a /29 is needed")
    return subnet


def _valid(raw: Mapping[str, Any]) -> frozenset[Attachment]:
    listed = raw.get("cni.dev/valid-attachments") or ()
    try:
        return frozenset(Attachment(str(item["containerID"]), str(item["ifname"])) for item in listed)
    except (KeyError, TypeError) as error:
        raise _bad("cni.dev/valid-attachments", f"cannot be understood: {error}") from None


def _text(raw: Mapping[str, Any], field: str, default: str) -> str:
    value = raw.get(field, default)
    if not isinstance(value, str) or not value:
        raise _bad(field, "expected text")
    return value


def _number(raw: Mapping[str, Any], field: str) -> int:
    value = raw.get(field, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise _bad(field, "expected a number up to 65535")
    return value


def _flag(raw: Mapping[str, Any], field: str) -> bool:
    value = raw.get(field, False)
    if not isinstance(value, bool):
        raise _bad(field, "expected true or false")
    return value


def _mapping(raw: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = raw.get(field) or {}
    if not isinstance(value, Mapping):
        raise _bad(field, "expected an object")
    return value


def _bad(field: str, why: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"{field}: {why}")
