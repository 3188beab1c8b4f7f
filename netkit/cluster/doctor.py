"""Which features of a machine a cluster cannot do without. Judges what `kernel.probe` has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from netkit.kernel.probe import Feature

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


def missing(features: Sequence[Feature]) -> tuple[str, ...]:
    """Names of what a cluster needs and this machine lacks; empty when a cluster can run."""
    absent = {feature.name for feature in features if not feature.present}
    lacking = sorted(absent & REQUIRED)
    if absent >= ONE_OF:
        lacking.append(" or ".join(sorted(ONE_OF)))
    return tuple(lacking)
