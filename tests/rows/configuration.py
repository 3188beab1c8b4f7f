"""Proxy settings of rows, read by what reads KubeProxyConfiguration for a proxy: once for each mode. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from netkit.proxy.addresses import Address
from netkit.proxy.configuration.apply import proxy_settings
from netkit.proxy.configuration.decode import ConfigurationError, decode
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.document import API_VERSION, KIND
from netkit.proxy.configuration.validation import validated
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings
from rows.errors import TableError

__all__ = ["KIND", "checked", "merged", "settings_for"]


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says instead, section by section."""
    found = dict(below)
    for word, value in above.items():
        old = found.get(word)
        found[word] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def checked(words: Mapping[str, Any], where: str) -> str:
    """The settings as text, after a look whether every mode can be configured so. Raises TableError."""
    if "mode" in words:
        raise TableError(f"{where}: settings.mode: rows run in every mode, see `modes`")
    text = json.dumps(words, sort_keys=True)
    for mode in ProxyMode:
        try:
            settings_for(text, mode, NftablesLayout.KUBE_PROXY, ())
        except ConfigurationError as error:
            raise TableError(f"{where}: settings: {error.message}") from None
    return text


@functools.cache
def settings_for(
    text: str, mode: ProxyMode, layout: NftablesLayout, node_addresses: tuple[Address, ...]
) -> ProxySettings:
    """What a proxy of the mode works with. Raises ConfigurationError, also for a word that nobody knows."""
    words = {"apiVersion": API_VERSION, "kind": KIND, "mode": str(mode), **json.loads(text)}
    if mode is ProxyMode.NFTABLES:
        words["nftables"] = {**words.get("nftables", {}), "layout": str(layout)}
    decoded = decode(json.dumps(words).encode())
    if decoded.warning:
        raise ConfigurationError(decoded.warning)
    return proxy_settings(validated(for_linux(with_defaults(decoded.configuration))), node_addresses)
