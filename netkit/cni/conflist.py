"""Network configuration lists (`*.conflist`): read, checked, and what each plug-in of one gets on its standard input.

Pure, but for reading the file. A list may say `usePodCidr` where `ipam` wants a subnet: each node has its own range
there. host-local and netkit-cni keep files on the machine, which all nodes share here: they get a directory of the
node's unless the list names one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from netkit.cni.request import TYPE
from netkit.cni.versions import CHECK_SINCE, SUPPORTED, at_least
from netkit.podnet.pod import RuntimeConfig

POD_RANGE: Final = "usePodCidr"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_UNLIMITED_BURST: Final = 2**31 - 1
"""What kubelet's side asks for: the plug-in bandwidth wants a burst with every rate."""


class BadConflist(Exception):
    """A list that cannot be used: `message` says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Conflist:
    """A checked list. `plugins` are the plug-ins' own configurations, in order."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(str(plugin["type"]) for plugin in self.plugins)

    @property
    def can_check(self) -> bool:
        return not self.disable_check and at_least(self.version, CHECK_SINCE)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"cniVersion": self.version, "name": self.name}
        if self.disable_check:
            found["disableCheck"] = True
        return {**found, "plugins": [dict(plugin) for plugin in self.plugins]}


def read(path: Path) -> Conflist:
    """The list in a file. Raises BadConflist."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadConflist(getattr(error, "strerror", None) or "not a text file") from None


def parse(text: str) -> Conflist:
    """The list. Raises BadConflist."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise BadConflist(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise BadConflist("expected an object")
    name, plugins = raw.get("name"), raw.get("plugins")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConflist("name: the network's name is missing, or has characters that cannot be in one")
    if not isinstance(plugins, list):
        what = (
            "it is the configuration of one plug-in; a list has them in `plugins`"
            if "type" in raw
            else "missing"
        )
        raise BadConflist(f"plugins: {what}")
    if not plugins:
        raise BadConflist("plugins: at least one is needed")
    for number, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise BadConflist(f"plugins[{number}].type: the name of a plug-in's program is needed")
    return Conflist(name, _version(raw), tuple(plugins), raw.get("disableCheck") is True)


def for_node(conflist: Conflist, pod_range: IPv4Network, data_dir: Path) -> Conflist:
    """The list as a node uses it."""
    return replace(
        conflist, plugins=tuple(_for_node(plugin, pod_range, data_dir) for plugin in conflist.plugins)
    )


def uses_pod_range(conflist: Conflist) -> bool:
    """Whether addresses come from the node's range."""
    return any(POD_RANGE.lower() in json.dumps(plugin.get("ipam")).lower() for plugin in conflist.plugins)


def plugin_config(
    conflist: Conflist, plugin: Mapping[str, Any], previous: object, capabilities: Mapping[str, Any]
) -> dict[str, Any]:
    """What a plug-in reads: its part, the list's name and version, the result before it, and those of the capability
    arguments that it says it heeds.
    """
    heeded = plugin.get("capabilities") or {}
    given = {name: value for name, value in capabilities.items() if heeded.get(name)}
    found = {key: value for key, value in plugin.items() if key != "capabilities"}
    found |= {"name": conflist.name, "cniVersion": conflist.version}
    if given:
        found["runtimeConfig"] = given
    if previous is not None:
        found["prevResult"] = previous
    return found


def capability_args(wishes: RuntimeConfig) -> dict[str, Any]:
    """A pod's wishes under the names of CNI's conventions; what it does not wish is left out."""
    found: dict[str, Any] = {}
    if wishes.ports:
        found["portMappings"] = [
            {
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol,
                **({"hostIP": port.host_ip} if port.host_ip else {}),
            }
            for port in wishes.ports
        ]
    limits: dict[str, int] = {}
    if wishes.ingress_rate:
        limits |= {"ingressRate": wishes.ingress_rate, "ingressBurst": _UNLIMITED_BURST}
    if wishes.egress_rate:
        limits |= {"egressRate": wishes.egress_rate, "egressBurst": _UNLIMITED_BURST}
    return {**found, "bandwidth": limits} if limits else found


def unheeded(conflist: Conflist, capabilities: Mapping[str, Any]) -> list[str]:
    """Capability arguments that no plug-in of the list takes."""
    heeded = {
        name
        for plugin in conflist.plugins
        for name, wanted in (plugin.get("capabilities") or {}).items()
        if wanted
    }
    return [name for name in capabilities if name not in heeded]


def _version(raw: Mapping[str, Any]) -> str:
    """The highest of the versions the list allows that we know too."""
    listed = raw.get("cniVersions") or ()
    if not isinstance(listed, list | tuple):
        raise BadConflist("cniVersions: expected a list")
    offered = [str(version) for version in (raw.get("cniVersion"), *listed) if version]
    known = [version for version in SUPPORTED if version in offered]
    if not known:
        raise BadConflist(
            f"cniVersion: {', '.join(offered) or 'missing'}, and what is known here is {', '.join(SUPPORTED)}"
        )
    return known[-1]


def _for_node(plugin: Mapping[str, Any], pod_range: IPv4Network, data_dir: Path) -> Mapping[str, Any]:
    ipam = plugin.get("ipam")
    if not isinstance(ipam, Mapping):
        return plugin
    filled = _filled(ipam, str(pod_range))
    if ipam.get("type") == "host-local" and "dataDir" not in ipam:
        filled = {**filled, "dataDir": str(data_dir)}
    own = {"dataDir": str(data_dir)} if plugin["type"] == TYPE and "dataDir" not in plugin else {}
    return {**plugin, **own, "ipam": filled}


def _filled(value: Any, pod_range: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, pod_range) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, pod_range) for item in value]
    return pod_range if isinstance(value, str) and value.lower() == POD_RANGE.lower() else value
