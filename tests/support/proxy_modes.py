"""What the rigs of one mode on a fake kernel and on the real one share: settings of its own, and what is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from netkit.kernel.nft.objects import Contents
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.settings import IPVSSettings, NftablesLayout, ProxySettings

Rules = Mapping[tuple[str, str], Sequence[str]]
"""By table and chain."""

_NAMED = re.compile(r'-p (\S+) -m comment --comment "?([^/ ]+)/([^": ]+):?([^" ]*)')
_PROXY_PORT = re.compile(r"(?<=--to-ports )\d+|(?<=--to-destination )\S+|(?<=--dport )\d+(?= -m state)")


def nftables_settings(settings: ProxySettings, layout: NftablesLayout) -> ProxySettings:
    """Some settings go with the other layout, which finds the table of this one, or the other way round."""
    if settings.masquerade_all:
        (layout,) = set(NftablesLayout) - {layout}
    return replace(settings, nftables_layout=layout)


def ipvs_settings(settings: ProxySettings) -> ProxySettings:
    """Some settings go with another scheduler."""
    return replace(settings, ipvs=IPVSSettings("sh")) if settings.masquerade_all else settings


def userspace_settings(settings: ProxySettings) -> ProxySettings:
    """Some settings go with an address that proxies listen on."""
    return replace(settings, node_address="10.0.0.1,fd00::1") if settings.masquerade_all else settings


def table_content(contents: Contents | None) -> Any:
    """All of an nftables table, the elements of a set in any order."""
    if contents is None:
        return None
    elements = {name: set(found) for name, found in contents.elements.items()}
    return contents.comment, contents.chains, contents.rules, contents.sets, elements


def proxy_ports(rules: Rules) -> dict[tuple[Protocol, int], ServicePortName]:
    """The ports that rules of the userspace mode lead to, and whose proxies are expected there: of one each."""
    found: dict[tuple[Protocol, int], set[ServicePortName]] = {}
    for rule in (rule for chain in rules.values() for rule in chain):
        named, port = _NAMED.search(rule), _PROXY_PORT.search(rule)
        if named and port:
            protocol = Protocol(named[1].upper())
            number = int(port[0].rpartition(":")[2])
            name = ServicePortName(named[2], named[3], named[4], protocol)
            found.setdefault((protocol, number), set()).add(name)
    assert all(len(names) == 1 for names in found.values()), f"proxies share a port: {found}"
    return {place: names.pop() for place, names in found.items()}


def without_proxy_ports(rules: Rules) -> Rules:
    """The same rules, whichever ports the proxies have got."""

    def without(rule: str) -> str:
        return _PROXY_PORT.sub(lambda found: re.sub(r"\d+$", "PORT", found[0]), rule)

    return {where: [without(rule) for rule in found] for where, found in rules.items()}
