"""Proxy settings of rows: KubeProxyConfiguration's words to `ProxySettings`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ProxySettings
from rows.errors import TableError

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"

Reader = Callable[[Any], Mapping[str, Any]]


def _text(word: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not text")
        return {word: value}

    return read


def _flag(word: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return {word: value}

    return read


def _number(word: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a number")
        return {word: value}

    return read


def _texts(word: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{value!r} is not a list of texts")
        return {word: tuple(value)}

    return read


def _detect_local_mode(value: Any) -> Mapping[str, Any]:
    if value not in tuple(DetectLocalMode):
        raise ValueError(f"{value!r} is not one of {', '.join(DetectLocalMode)}")
    return {"detect_local_mode": DetectLocalMode(value)}


_WORDS: Mapping[str, Reader] = {
    "clusterCIDR": _text("cluster_cidr"),
    "detectLocalMode": _detect_local_mode,
    "detectLocal.bridgeInterface": _text("bridge_interface"),
    "detectLocal.interfaceNamePrefix": _text("interface_name_prefix"),
    "nodePortAddresses": _texts("node_port_addresses"),
    "iptables.masqueradeAll": _flag("masquerade_all"),
    "iptables.masqueradeBit": _number("masquerade_bit"),
    "iptables.localhostNodePorts": _flag("localhost_node_ports"),
    "nftables.masqueradeAll": _flag("masquerade_all"),
    "nftables.masqueradeBit": _number("masquerade_bit"),
    "ipvs.scheduler": _text("ipvs.scheduler"),
    "ipvs.excludeCIDRs": _texts("ipvs.exclude_cidrs"),
    "ipvs.strictARP": _flag("ipvs.strict_arp"),
}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says instead, section by section."""
    found = dict(below)
    for word, value in above.items():
        old = found.get(word)
        found[word] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def settings_of(words: Mapping[str, Any], where: str) -> ProxySettings:
    """The settings; what is not said is as kube-proxy has it. TableError for a word that rows do not know.

    The mode is not among them: rows run in every mode.
    """
    values: dict[str, Any] = {}
    for word, value in _flat(words):
        if word in ("apiVersion", "kind"):
            continue
        reader = _WORDS.get(word)
        if reader is None:
            raise TableError(f"{where}: settings.{word}: not one of {', '.join(_WORDS)}")
        try:
            values.update(reader(value))
        except ValueError as error:
            raise TableError(f"{where}: settings.{word}: {error}") from None
    ipvs = {word.partition(".")[2]: values.pop(word) for word in list(values) if word.startswith("ipvs.")}
    settings = ProxySettings()
    try:
        return replace(settings, ipvs=replace(settings.ipvs, **ipvs), **values)
    except ValueError as error:
        raise TableError(f"{where}: settings: {error}") from None


def _flat(words: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for word, value in words.items():
        if isinstance(value, dict):
            found += [(f"{word}.{inner}", item) for inner, item in value.items()]
        else:
            found.append((word, value))
    return found
