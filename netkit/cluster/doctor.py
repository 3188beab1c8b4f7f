"""Which features of a machine a cluster, and each proxy mode, cannot do without.

Judges what `kernel.probe` has found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from netkit.cluster.errors import ClusterError
from netkit.kernel.probe import Feature, features
from netkit.kernel.wireguard import HOW_TO_GET
from netkit.podnet.modes import NetworkMode
from netkit.proxy.settings import ProxyMode

REQUIRED: Final = frozenset(
    {
        "root or CAP_NET_ADMIN",
        "link veth",
        "link bridge",
        "link vxlan",
        "br_netfilter",
        "iptables match comment",
        "iptables match conntrack",
        "iptables match statistic",
        "iptables match addrtype",
        "iptables match mark",
        "iptables target MASQUERADE",
        "conntrack",
        "pid namespaces",
    }
)
ONE_OF: Final = frozenset({"iptables-legacy", "iptables-nft"})

_IPTABLES: Final = frozenset(name for name in REQUIRED if name.startswith("iptables "))
NEEDED_BY_MODE: Final[Mapping[ProxyMode, frozenset[str]]] = {
    ProxyMode.IPTABLES: _IPTABLES,
    ProxyMode.NFTABLES: frozenset({"nf_tables"}),
    ProxyMode.IPVS: _IPTABLES | {"ip_vs", "ip_vs_rr", "ipset", "iptables match set", "link dummy"},
    ProxyMode.USERSPACE: _IPTABLES,
}
"""Features by the names of the probe."""


ENCRYPTING: Final = ("link wireguard", "wireguard-go")
"""One of these carries the network mode wireguard; the first is preferred."""


def missing(features: Sequence[Feature]) -> tuple[str, ...]:
    """Names of what a cluster needs and this machine lacks; empty when a cluster can run."""
    absent = {feature.name for feature in features if not feature.present}
    lacking = sorted(absent & REQUIRED)
    if absent >= ONE_OF:
        lacking.append(" or ".join(sorted(ONE_OF)))
    return tuple(lacking)


def modes(found: Sequence[Feature]) -> tuple[ProxyMode, ...]:
    """The proxy modes that can work here."""
    absent = {feature.name for feature in found if not feature.present}
    return tuple(mode for mode in ProxyMode if not absent & NEEDED_BY_MODE[mode])


def network_modes(found: Sequence[Feature]) -> tuple[NetworkMode, ...]:
    """The modes of the pod network that can work here."""
    present = {feature.name for feature in found if feature.present}
    return tuple(
        mode
        for mode in NetworkMode
        if mode is not NetworkMode.WIREGUARD or not present.isdisjoint(ENCRYPTING)
    )


def require_network(mode: NetworkMode) -> None:
    """ClusterError that names what this machine lacks for the mode of the pod network, and how to get it."""
    if mode is not NetworkMode.WIREGUARD:
        return
    found = features(ENCRYPTING)
    if not any(feature.present for feature in found):
        lacking = ", nor ".join(f"{feature.name} ({feature.detail})" for feature in found)
        raise ClusterError(
            f"network mode {mode} needs WireGuard, and this machine has neither {lacking}",
            f"{HOW_TO_GET}; netkit doctor shows which modes can work here",
        )


def require_mode(mode: ProxyMode) -> None:
    """ClusterError that names what this machine lacks for the proxy mode, and how to get it. Tries only that."""
    for feature in features(NEEDED_BY_MODE[mode]):
        if not feature.present:
            raise ClusterError(
                f"proxy mode {mode} needs {feature.name}, which this machine lacks: {feature.detail}",
                f"{feature.how_to_get}; netkit doctor shows which modes can work here",
            )
