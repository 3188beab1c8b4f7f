"""Rules that give pods their node's address when they talk to the world outside. Pure; `agent` applies them.

Chains and order are flannel's (FLANNEL-POSTRTG in nat, FLANNEL-FWD in filter, comments `flanneld masq` and
`flanneld forward`), with one RETURN more for each node: pods reach pods *and nodes* without NAT. Flannel
itself masquerades from pods to other nodes; here each node has a route to every pod, so that the rule of
Kubernetes' network model is kept. The nodes' segment as a whole is not exempt, since outside clients live on
it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Final

NAT_CHAIN: Final = "FLANNEL-POSTRTG"
FORWARD_CHAIN: Final = "FLANNEL-FWD"
_MASQ, _FORWARD = "flanneld masq", "flanneld forward"

JUMPS: Final = (
    ("nat", "POSTROUTING", ("-m", "comment", "--comment", _MASQ, "-j", NAT_CHAIN)),
    ("filter", "FORWARD", ("-m", "comment", "--comment", _FORWARD, "-j", FORWARD_CHAIN)),
)
"""(table, chain, rule) of the jumps into our chains; appended, behind kube-proxy's, which are prepended."""


def rules(
    own_range: IPv4Network,
    cluster_cidr: IPv4Network,
    nodes: Iterable[tuple[str, IPv4Address]],
    *,
    random_fully: bool = True,
) -> str:
    """Input of `iptables-restore --noflush`: both chains, filled. The jumps come apart, see JUMPS.

    `nodes` are (name, address) of all nodes that have routes to all pods; `random_fully` if iptables knows
    it.
    """
    own, pods = str(own_range), str(cluster_cidr)
    masquerade = "MASQUERADE" + (" --random-fully" if random_fully else "")
    nat = [
        # kube-proxy has marked it for its own masquerading.
        _nat("-m mark --mark 0x4000/0x4000", "RETURN"),
        _nat(f"-s {own} -d {pods}", "RETURN"),
        _nat(f"-s {pods} -d {own}", "RETURN"),
        # From outside to a pod of this node: the pod sees who calls.
        _nat(f"! -s {pods} -d {own}", "RETURN"),
        *(
            _nat(f"-s {pods} -d {address}/32", "RETURN", f"{_MASQ}: node {name}")
            for name, address in sorted(nodes)
        ),
        _nat(f"-s {pods} ! -d 224.0.0.0/4", masquerade),
        # From outside to a pod of another node: its answer must come back through this node.
        _nat(f"! -s {pods} -d {pods}", masquerade),
    ]
    forward = [
        f'-A {FORWARD_CHAIN} {match} {pods} -m comment --comment "{_FORWARD}" -j ACCEPT'
        for match in ("-s", "-d")
    ]
    lines = ["*nat", f":{NAT_CHAIN} - [0:0]", *nat, "COMMIT"]
    lines += ["*filter", f":{FORWARD_CHAIN} - [0:0]", *forward, "COMMIT"]
    return "\n".join(lines) + "\n"


def _nat(match: str, target: str, comment: str = _MASQ) -> str:
    return f'-A {NAT_CHAIN} {match} -m comment --comment "{comment}" -j {target}'
