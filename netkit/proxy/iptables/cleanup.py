"""What a kube-proxy in iptables mode leaves in the kernel: the document that removes it, and what others must spare.

Called when the proxy is taken away or another mode takes over. Pure: reads iptables-save, writes restore input.
"""

from __future__ import annotations

import re

from netkit.proxy import leftover_rules
from netkit.proxy.iptables.chains import (
    CANARY,
    CANARY_TABLES,
    FILTER_CHAINS,
    FIREWALL,
    JUMPS,
    NAT_CHAINS,
    is_ours,
)
from netkit.proxy.iptables.standing import KUBELET_CHAINS
from netkit.proxy.leftover_rules import NOTHING, Kept

OURS = Kept.of(
    [
        *(("nat", chain) for chain in NAT_CHAINS),
        *(("filter", chain) for chain in (*FILTER_CHAINS, FIREWALL)),
        *((table, CANARY) for table in CANARY_TABLES),
    ],
    [((jump.table, jump.source), jump.rule) for jump in JUMPS],
)
"""What this mode shares with others by name: their clean-up spares it while this mode is at work."""

_KUBELETS = Kept.of(
    [("filter", FIREWALL)],
    [((jump.table, jump.source), jump.rule) for jump in JUMPS if jump.target == FIREWALL],
)
_KUBELET_CHAIN = re.compile(rf"^:(?:{'|'.join(sorted(KUBELET_CHAINS))}) ", re.MULTILINE)


def cleanup_document(saved: str, keep: Kept = NOTHING) -> str:
    """Restore input (for --noflush) that removes what `saved`, of all tables, shows of ours; may be empty.

    A kubelet makes KUBE-FIREWALL as well, with the same rule; where one is, that stays.
    """
    if _KUBELET_CHAIN.search(saved):
        keep = Kept(keep.chains | _KUBELETS.chains, keep.jumps | _KUBELETS.jumps)
    return leftover_rules.cleanup_document(saved, lambda place: is_ours(place[1]), keep)
