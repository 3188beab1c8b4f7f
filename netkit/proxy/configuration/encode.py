"""Writes KubeProxyConfiguration as kube-proxy's --write-config-to does. Pure: values in, YAML out.

As there, the periods and masqueradeAll of modes other than the chosen one come out as zero: they mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import yaml

from netkit.proxy.configuration.document import API_VERSION, KIND, KubeProxyConfiguration, members
from netkit.proxy.configuration.durations import ZERO, Duration


def encode(config: KubeProxyConfiguration) -> str:
    """The YAML document, its keys in order."""
    return yaml.dump(as_json(config), Dumper=_Dumper, sort_keys=True, default_flow_style=False, width=1 << 16)


def as_json(config: KubeProxyConfiguration) -> Mapping[str, Any]:
    """The document as JSON values."""
    return {"apiVersion": API_VERSION, "kind": KIND, **_section(_what_counts(config))}


def _what_counts(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    synced, masqueraded = config.sync_section, config.masquerade_section
    iptables, ipvs, nftables = config.iptables, config.ipvs, config.nftables
    if synced is not iptables:
        iptables = replace(iptables, sync_period=ZERO, min_sync_period=ZERO)
    if synced is not ipvs:
        ipvs = replace(ipvs, sync_period=ZERO, min_sync_period=ZERO)
    if synced is not nftables:
        nftables = replace(nftables, sync_period=ZERO, min_sync_period=ZERO)
    if masqueraded is config.nftables:
        iptables = replace(iptables, masquerade_all=False)
    else:
        nftables = replace(nftables, masquerade_all=False)
    return replace(config, iptables=iptables, ipvs=ipvs, nftables=nftables)


def _section(section: Any) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, member in members(section).items():
        value = getattr(section, member.name)
        if value or not member.metadata.get("omitempty"):
            written[name] = _value(value)
    return written


def _value(value: Any) -> Any:
    if isinstance(value, Duration):
        return str(value)
    if is_dataclass(value):
        return _section(value)
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return dict(value) if isinstance(value, Mapping) else value


class _Dumper(yaml.SafeDumper):
    """YAML with Go's quotes: double ones where a text would otherwise be read as something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    resolved = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    plain = text and resolved == "tag:yaml.org,2002:str"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)
