"""Rules of the iptables mode that depend on no Service: masquerading, forwarding, loopback, the way to NodePorts.

Pure. In the form of iptables-save, like all rules here.
"""

from __future__ import annotations

from collections.abc import Sequence

from netkit.proxy.addresses import Address, Family
from netkit.proxy.iptables.canonical import NFACCT
from netkit.proxy.iptables.chains import (
    FIREWALL,
    FORWARD,
    MARK_MASQ,
    NODE_PORTS,
    POSTROUTING,
    SERVICES,
)
from netkit.proxy.iptables.rules import INVALID_DROPPED, IPTablesSettings
from netkit.proxy.iptables.standing import Where

_LAST_RULE = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"


def fixed_rules(settings: IPTablesSettings) -> dict[Where, str]:
    """The chains and what is in them. KUBE-FIREWALL is among them only where NodePorts answer on loopback."""
    mark = settings.mark
    fully = " --random-fully" if settings.random_fully else ""
    fixed = {
        ("filter", FORWARD): (
            f"{_invalid(settings)}"
            f'-A {FORWARD} -m comment --comment "kubernetes forwarding rules" '
            f"-m mark --mark {mark}/{mark} -j ACCEPT\n"
            f'-A {FORWARD} -m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        ),
        ("nat", POSTROUTING): (
            f"-A {POSTROUTING} -m mark ! --mark {mark}/{mark} -j RETURN\n"
            f"-A {POSTROUTING} -j MARK --set-xmark {mark}/0x0\n"
            f'-A {POSTROUTING} -m comment --comment "kubernetes service traffic requiring SNAT" '
            f"-j MASQUERADE{fully}\n"
        ),
        ("nat", MARK_MASQ): f"-A {MARK_MASQ} -j MARK --set-xmark {mark}/{mark}\n",
    }
    if settings.localhost_node_ports:
        fixed["filter", FIREWALL] = (
            f"-A {FIREWALL} ! -s 127.0.0.0/8 -d 127.0.0.0/8 "
            '-m comment --comment "block incoming localnet connections" '
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"
        )
    return fixed


def node_port_dispatch(
    family: Family, settings: IPTablesSettings, node_port_ips: Sequence[Address] | None
) -> str:
    """The end of KUBE-SERVICES. Earlier it would swallow external IPs that are addresses of the node.

    `node_port_ips` are the local addresses NodePorts answer on; None means all of them.
    """
    comment = f'-m comment --comment "{_LAST_RULE}"'
    if node_port_ips is None:
        spared = ""
        if family is Family.IPV6:
            spared = "! -d ::1/128 "
        elif not settings.localhost_node_ports:
            spared = "! -d 127.0.0.0/8 "
        return f"-A {SERVICES} {spared}{comment} -m addrtype --dst-type LOCAL -j {NODE_PORTS}\n"
    return "".join(
        f"-A {SERVICES} -d {address}/{address.max_prefixlen} {comment} -j {NODE_PORTS}\n"
        for address in node_port_ips
        if not address.is_loopback or settings.localhost_node_ports
    )


def _invalid(settings: IPTablesSettings) -> str:
    """Packets that conntrack calls INVALID would get past the translation back, and reset connections."""
    if settings.tcp_be_liberal:
        return ""
    counted = f"-m {NFACCT}{INVALID_DROPPED} " if INVALID_DROPPED in settings.counters else ""
    return f"-A {FORWARD} -m conntrack --ctstate INVALID {counted}-j DROP\n"
