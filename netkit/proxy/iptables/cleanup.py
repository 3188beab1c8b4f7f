"""What a kube-proxy in iptables mode leaves in the kernel: the document that removes it, and what others must spare.

Called when the proxy is taken away or another mode takes over. Pure: reads iptables-save, writes restore input.
"""

from __future__ import annotations

from netkit.proxy import leftover_rules
from netkit.proxy.iptables.chains import (
    CANARY,
    CANARY_TABLES,
    FILTER_CHAINS,
    FIREWALL,
    JUMPS,
    LOCALNET_JUMPS,
    NAT_CHAINS,
    is_ours,
)
from netkit.proxy.leftover_rules import NOTHING, Kept

OURS = Kept.of(
    [
        *(("nat", chain) for chain in NAT_CHAINS),
        *(("filter", chain) for chain in (*FILTER_CHAINS, FIREWALL)),
        *((table, CANARY) for table in CANARY_TABLES),
    ],
    [((jump.table, jump.source), jump.rule) for jump in (*JUMPS, *LOCALNET_JUMPS)],
)
"""What this mode shares with others by name: their clean-up spares it while this mode is at work."""


def cleanup_document(saved: str, keep: Kept = NOTHING) -> str:
    """Restore input (for --noflush) that removes what `saved`, of all tables, shows of ours; may be empty."""
    return leftover_rules.cleanup_document(saved, lambda place: is_ours(place[1]), keep)
