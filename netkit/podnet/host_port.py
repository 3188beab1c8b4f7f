"""Rules that lead ports of the node to pods (`hostPort`), in the layout of CNI's plug-in portmap. Pure.

`host_port_rules` applies them. All are in the table nat. PREROUTING and OUTPUT jump to CNI-HOSTPORT-DNAT for whatever
is addressed to the node; the jumps are appended, so that KUBE-SERVICES, which is prepended, comes first: a node port
wins over the same host port. From there a rule per pod leads to its chain CNI-DN-<hash>, which translates. Two sorts of
packets could not be answered otherwise and get the node's address as their source: those from the pod itself and its
neighbours, and those from 127.0.0.1. They are marked (bit 13) by CNI-HOSTPORT-SETMARK and masqueraded by
CNI-HOSTPORT-MASQ, which is prepended to POSTROUTING: the pod network's own rules would let them pass.

Rules are written as iptables-save prints them, because they are compared with that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from itertools import groupby
from typing import Final

from netkit.podnet.attach import Attach, pod_interface
from netkit.podnet.device import BRIDGE
from netkit.podnet.ipam import Lease
from netkit.podnet.pod import PodRef, PortMapping

NETWORK: Final = "cbr0"
"""What flannel's conflist calls the network: part of chains' names."""

DNAT_CHAIN: Final = "CNI-HOSTPORT-DNAT"
MARK_CHAIN, MASQUERADE_CHAIN = "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
POD_CHAIN_PREFIX: Final = "CNI-DN-"
_TOP_CHAINS: Final = (DNAT_CHAIN, MARK_CHAIN, MASQUERADE_CHAIN)
_MARK: Final = "0x2000/0x2000"
_CHAIN_LENGTH: Final = 28
_PORTS_PER_RULE: Final = 15
"""What the match multiport takes."""

JUMPS: Final = (
    ("PREROUTING", ("-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT_CHAIN), False),
    ("OUTPUT", ("-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT_CHAIN), False),
    (
        "POSTROUTING",
        ("-m", "comment", "--comment", "CNI portfwd requiring masquerade", "-j", MASQUERADE_CHAIN),
        True,
    ),
)
"""(chain, rule, whether it is prepended) of the jumps into our chains."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A pod with ports of its node. `neighbourhood` is its address with its link's prefix length, `device` the node's
    link to it.
    """

    pod: PodRef
    neighbourhood: IPv4Interface
    ports: tuple[PortMapping, ...]
    device: str

    @property
    def chain(self) -> str:
        """Name of the pod's own chain, as portmap forms it."""
        digest = hashlib.sha512(f"{NETWORK}{self.pod.uid}".encode()).hexdigest()
        return f"{POD_CHAIN_PREFIX}{digest}"[:_CHAIN_LENGTH]

    @property
    def udp_ports(self) -> frozenset[int]:
        return frozenset(port.host_port for port in self.ports if port.protocol == "udp")


def is_ours(chain: str) -> bool:
    """Whether the chain is one of host ports."""
    return chain in _TOP_CHAINS or chain.startswith(POD_CHAIN_PREFIX)


def document(pods: Sequence[Forwarded], standing: Iterable[str]) -> str:
    """Input of `iptables-restore --noflush`: all chains as they shall be; of `standing` chains, those of pods that are
    not among `pods` are removed, and all when there are none. The jumps come apart, see JUMPS.
    """
    wanted = [*_TOP_CHAINS, *(pod.chain for pod in pods)] if pods else []
    stale = sorted(chain for chain in standing if is_ours(chain) and chain not in wanted)
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in [*wanted, *stale])]
    lines += rules(pods)
    lines += [f"-X {chain}" for chain in stale]
    return "\n".join([*lines, "COMMIT"]) + "\n"


def rules(pods: Sequence[Forwarded]) -> list[str]:
    """The rules of all chains, without the jumps into them."""
    if not pods:
        return []
    found = [
        f'-A {MARK_CHAIN} -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark {_MARK}',
        f"-A {MASQUERADE_CHAIN} -m mark --mark {_MARK} -j MASQUERADE",
    ]
    for pod in pods:
        found += _entries(pod)
    for pod in pods:
        for port in pod.ports:
            found += _translation(pod, port)
    return found


def _entries(pod: Forwarded) -> list[str]:
    """The ways into the pod's chain, a rule per protocol and fifteen ports."""
    comment = rf'"dnat name: \"{NETWORK}\" id: \"{pod.pod.uid}\""'
    found = []
    ports = sorted({(port.protocol, port.host_port) for port in pod.ports})
    for protocol, group in groupby(ports, key=lambda port: port[0]):
        numbers = [str(number) for _, number in group]
        for start in range(0, len(numbers), _PORTS_PER_RULE):
            listed = ",".join(numbers[start : start + _PORTS_PER_RULE])
            found.append(
                f"-A {DNAT_CHAIN} -p {protocol} -m comment --comment {comment}"
                f" -m multiport --dports {listed} -j {pod.chain}"
            )
    return found


def _translation(pod: Forwarded, port: PortMapping) -> list[str]:
    given = port.host_ip not in ("", "0.0.0.0")
    target = f"-d {port.host_ip}/32 " if given else ""
    match = f"{target}-p {port.protocol} -m {port.protocol} --dport {port.host_port}"
    sources = (str(pod.neighbourhood.network), "127.0.0.1/32")
    marks = [f"-A {pod.chain} -s {source} {match} -j {MARK_CHAIN}" for source in sources]
    destination = f"{pod.neighbourhood.ip}:{port.container_port}"
    # portmap leaves this one without a comment; ours says whose port it is.
    named = f'-m comment --comment "{pod.pod}" '
    return [*marks, f"-A {pod.chain} {match} {named}-j DNAT --to-destination {destination}"]


def forwarded(attach: Attach, node_range: IPv4Network | None, leases: Iterable[Lease]) -> list[Forwarded]:
    """The pods among these that have ports of the node; none before the node has a range."""
    if node_range is None:
        return []
    return [
        Forwarded(
            lease.pod,
            pod_interface(attach, node_range, lease.address),
            lease.ports,
            BRIDGE if attach is Attach.BRIDGE else lease.link,
        )
        for lease in leases
        if lease.ports
    ]
