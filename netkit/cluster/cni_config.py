"""The part of a cluster's configuration that is about plug-ins of others: `network` with mode `external`.

The list is read here, once: what `up` has checked is what all nodes use, whatever becomes of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from netkit.cluster.errors import ConfigError
from netkit.cluster.fields import Fields
from netkit.cni.conflist import POD_RANGE, BadConflist, Conflist, read, uses_pod_range
from netkit.cni.delegate import find
from netkit.cni.errors import CniError
from netkit.cni.request import OWN_IPAM, TYPE
from netkit.podnet.attach import Attach
from netkit.podnet.modes import NetworkMode

_USUAL: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))


@dataclass(frozen=True, slots=True)
class CniConfig:
    """`path` are the directories of plug-ins; `node_routes`: each node has routes to the others' pod ranges."""

    conflist: Conflist
    path: tuple[str, ...]
    node_routes: bool = False


def attach(net: Fields, mode: NetworkMode) -> Attach:
    """`attach`. Raises ConfigError."""
    text = net.text("attach", "", tuple(Attach))
    if text and mode is NetworkMode.EXTERNAL:
        raise ConfigError(
            "network.attach: does not go with mode external", "its plug-ins decide how pods are attached"
        )
    return Attach(text or Attach.BRIDGE)


def cni(net: Fields, mode: NetworkMode) -> CniConfig | None:
    """`cniConf`, `cniBin` and `nodeRoutes`; None in other modes. Raises ConfigError."""
    conf, path = net.path("cniConf"), net.paths("cniBin")
    node_routes = net.flag("nodeRoutes", False)
    if mode is not NetworkMode.EXTERNAL:
        given = [
            name
            for name, value in (("cniConf", conf), ("cniBin", path), ("nodeRoutes", node_routes))
            if value
        ]
        if given:
            raise ConfigError(f"network.{given[0]}: goes with mode external, and the mode is {mode}")
        return None
    if conf is None:
        raise ConfigError(
            "network.cniConf: is needed with mode external",
            "name a file as in /etc/cni/net.d, such as labs/cni/bridge.conflist",
        )
    try:
        conflist = read(conf)
    except BadConflist as error:
        raise ConfigError(f"network.cniConf: {conf}: {error.message}") from None
    found = CniConfig(conflist, _directories(path), node_routes)
    _check_programs(found)
    if node_routes and not uses_pod_range(conflist):
        raise ConfigError(
            f"network.nodeRoutes: no plug-in of {conf} takes its addresses from the node's range",
            f'write "subnet": "{POD_RANGE}" where ipam wants one',
        )
    return found


def _directories(given: tuple[Path, ...]) -> tuple[str, ...]:
    for directory in given:
        if not directory.is_dir():
            raise ConfigError(f"network.cniBin: {directory} is not a directory")
    return tuple(str(directory) for directory in given or [usual for usual in _USUAL if usual.is_dir()])


def _check_programs(config: CniConfig) -> None:
    ipam = [
        plugin["ipam"].get("type")
        for plugin in config.conflist.plugins
        if isinstance(plugin.get("ipam"), dict)
    ]
    for kind in (*config.conflist.types, *ipam):
        if not kind or kind == OWN_IPAM:
            continue
        try:
            find(str(kind), config.path)
        except CniError as error:
            hint = f"netkit cni install DIR writes {TYPE}" if kind == TYPE else (
                "install the package containernetworking-plugins, or name the plug-ins' directory with network.cniBin"
            )  # fmt: skip
            raise ConfigError(f"network.cniConf: {error.message}", hint) from None
