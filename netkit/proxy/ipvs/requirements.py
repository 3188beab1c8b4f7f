"""Whether this kernel can run the IPVS mode at all; asked before a back end is made. Blocks.

Everything is tried and taken back at once, as kube-proxy does with its trial virtual server. What is missing is
Unsupported, naming the kernel module and how to get it.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address
from typing import Final

from netkit.kernel import ipvs
from netkit.kernel.errors import Unsupported
from netkit.kernel.ipset import SetType, set_create, set_destroy
from netkit.kernel.ipvs_values import ServerKey, Transport, VirtualServer
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.sets import DEVICE, SETS

TRIAL: Final = ServerKey(IPv4Address("198.51.100.0"), 20000, Transport.TCP)
"""The virtual server kube-proxy tries: an address of documentation that nobody has."""

_TRIAL_SET: Final = "KUBE-TRIAL"
_MATCHES: Final = {
    "xt_set": f"-m set --match-set {_TRIAL_SET} dst,dst",
    "xt_ipvs": "-m ipvs --vproto 6 --vport 20000",
    "xt_addrtype": "-m addrtype --dst-type LOCAL",
}


def check(drivers: Drivers, scheduler: str) -> None:
    """Return if everything is there; raises Unsupported for the first thing that is not."""
    namespace = drivers.iptables.ns.name
    if all(server.scheduler != scheduler for server in drivers.servers.servers()):
        drivers.servers.apply(ipvs.server_add(VirtualServer(TRIAL, scheduler)).allowing(errno.EEXIST))
        drivers.servers.apply(ipvs.server_delete(TRIAL))
    drivers.sets.headers()
    for kind in dict.fromkeys(one.type for one in SETS):
        if not drivers.sets.has_type(kind):
            raise _missing(kind.module, namespace)
    if DEVICE not in drivers.node.addresses():
        drivers.node.make_device()
        drivers.node.remove_device()
    drivers.sets.apply(set_create(_TRIAL_SET, SetType.HASH_IP_PORT, drivers.iptables.version))
    try:
        for module, match in _MATCHES.items():
            said = drivers.iptables.refusal(f"*filter\n-A INPUT {match} -j DROP\nCOMMIT\n")
            if said:
                raise _missing(module, namespace, said)
    finally:
        drivers.sets.apply(set_destroy(_TRIAL_SET))


def _missing(module: str, namespace: str, said: str = "") -> Unsupported:
    why = f"the kernel has no module {module}" + (f" ({' '.join(said.split())})" if said else "")
    hint = f"modprobe {module} (Ubuntu: install linux-modules-extra first), or use another kernel"
    return Unsupported(module, namespace, errno.ENOENT, why, hint)
