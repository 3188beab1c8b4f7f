"""Rules of the iptables mode for one service port, as text of iptables-restore.

Called by `book`, which assembles documents of them. Pure: values in, text out; never runs anything.
Layout, order and comments are those of kube-proxy 1.33 to 1.35, so that what users know of it is true here as well.
Each rule is written as iptables-save prints it, which iptables-restore reads as well: so what stands in a kernel can
be compared with what is wanted without taking either apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from netkit.proxy.addresses import Address, Family
from netkit.proxy.choice import Choice, NodeView, Verdict
from netkit.proxy.detector import Detector, SourceDetector
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.flows import node_admitted
from netkit.proxy.iptables.canonical import NFACCT
from netkit.proxy.iptables.chains import (
    EXTERNAL_SERVICES,
    MARK_MASQ,
    NODE_PORTS,
    PROXY_FIREWALL,
    SERVICES,
    PortChains,
    endpoint_chain,
    port_chains,
)
from netkit.proxy.services import ServicePort

LARGE_CLUSTER_ENDPOINTS = 1000
"""With more of them in all, rules of single endpoints go without comments."""

INVALID_DROPPED = "ct_state_invalid_dropped_pkts"
LOCALHOST_ACCEPTED = "localhost_nps_accepted_pkts"
COUNTERS = (INVALID_DROPPED, LOCALHOST_ACCEPTED)
"""Objects of the kernel that count packets (nfacct), where it has them."""


@dataclass(frozen=True, slots=True)
class IPTablesSettings:
    """What decides over the rules besides Services, endpoints and the node.

    `localhost_node_ports`: NodePorts answer on 127.0.0.0/8 (always false in IPv6). `random_fully`,
    `tcp_be_liberal` and `counters` say what the iptables program can do, what the kernel is set to and which of
    `COUNTERS` it has.
    """

    detector: Detector | None = None
    masquerade_all: bool = False
    masquerade_bit: int = 14
    localhost_node_ports: bool = True
    random_fully: bool = True
    tcp_be_liberal: bool = False
    counters: frozenset[str] = frozenset()

    @property
    def mark(self) -> str:
        """The packet mark that asks for masquerading, as iptables writes it."""
        return hex(1 << self.masquerade_bit)


@dataclass(frozen=True, slots=True)
class PortRules:
    """Text of one service port, block by block; each line ends with a newline.

    The first six blocks go into chains that all services share, `own` are the port's own chains in the nat table
    with what is in them.
    """

    filter_services: str = ""
    filter_external: str = ""
    filter_firewall: str = ""
    filter_node_ports: str = ""
    nat_services: str = ""
    nat_node_ports: str = ""
    own: Mapping[str, str] = field(default_factory=dict)

    def count(self) -> tuple[int, int]:
        """How many rules there are in filter and in nat."""
        refusals = (self.filter_services, self.filter_external, self.filter_firewall, self.filter_node_ports)
        translations = (self.nat_services, self.nat_node_ports, *self.own.values())
        return "".join(refusals).count("\n"), "".join(translations).count("\n")


def render_port(
    port: ServicePort, choice: Choice, node: NodeView, settings: IPTablesSettings, *, comments: bool = True
) -> PortRules:
    """All rules of `port`. `comments=False` leaves out those of single endpoints (large clusters)."""
    return _PortRendering(port, choice, node, settings, comments).render()


class _PortRendering:
    """One rendering of one port; holds what every step needs."""

    def __init__(
        self, port: ServicePort, choice: Choice, node: NodeView, settings: IPTablesSettings, comments: bool
    ) -> None:
        self.port = port
        self.choice = choice
        self.node = node
        self.settings = settings
        self.chains: PortChains = port_chains(port.name)
        self.text = port.name.text
        self.comments = comments
        self.protocol = port.protocol.lower()
        self.internal = choice.verdict(port.internal_policy)
        self.external = choice.verdict(port.external_policy)
        self.internal_chain = self.chains.local if port.internal_local else self.chains.cluster
        self.external_chain = self.chains.local if port.external_local else self.chains.cluster
        self.firewalled = bool(choice.has_any and port.load_balancer_ips and port.source_ranges)

    def render(self) -> PortRules:
        port, choice = self.port, self.choice
        own: dict[str, str] = {}
        if choice.has_any and port.externally_reachable:
            own[self.chains.external] = _text(self._external_chain())
        if self.firewalled:
            own[self.chains.firewall] = _text(self._firewall_chain())
        targets = {
            endpoint.target: (endpoint, endpoint_chain(port.name, endpoint)) for endpoint in choice.reachable
        }
        for chain, endpoints in ((self.chains.cluster, choice.cluster), (self.chains.local, choice.local)):
            if endpoints:
                lines = self._balancing(chain, [targets[endpoint.target] for endpoint in endpoints])
                if chain == self.internal_chain:
                    lines = [*self._internal_masquerade(), *lines]
                own[chain] = _text(lines)
        for endpoint, chain in targets.values():
            own[chain] = self._endpoint_chain(chain, endpoint)
        return PortRules(
            filter_services=_text(self._refused_internal()),
            filter_external=_text(self._refused_external()),
            filter_firewall=_text(self._unlisted()),
            filter_node_ports=_text(self._health_check()),
            nat_services=_text(self._captured()),
            nat_node_ports=_text(self._captured_node_port()),
            own=own,
        )

    # rules in shared chains of the nat table

    def _captured(self) -> Iterator[str]:
        """KUBE-SERVICES: one rule per address that leads somewhere."""
        if self.internal is Verdict.FORWARD:
            yield self._to_address(SERVICES, "cluster IP", self.port.cluster_ip, self.internal_chain)
        if not self.choice.has_any:
            return
        for address in self.port.external_ips:
            yield self._to_address(SERVICES, "external IP", address, self.chains.external)
        target = self.chains.firewall if self.firewalled else self.chains.external
        for address in self.port.load_balancer_ips:
            yield self._to_address(SERVICES, "loadbalancer IP", address, target)

    def _captured_node_port(self) -> Iterator[str]:
        """KUBE-NODEPORTS in nat. Also with no endpoint here: pods and the node are short-circuited."""
        if not self.port.node_port or not self.choice.has_any:
            return
        comment = f'-m comment --comment "{self.text}"'
        match = f"-p {self.protocol} {comment} -m {self.protocol} --dport {self.port.node_port}"
        if self.settings.localhost_node_ports and LOCALHOST_ACCEPTED in self.settings.counters:
            counted = f"-m {NFACCT}{LOCALHOST_ACCEPTED}"
            yield f"-A {NODE_PORTS} -d 127.0.0.0/8 {match} {counted} -j {self.chains.external}"
        yield f"-A {NODE_PORTS} {match} -j {self.chains.external}"

    # rules in shared chains of the filter table

    def _refused_internal(self) -> Iterator[str]:
        if self.internal is not Verdict.FORWARD:
            yield self._to_address(
                SERVICES, _missing(self.internal), self.port.cluster_ip, self._refusal(self.internal)
            )

    def _refused_external(self) -> Iterator[str]:
        """KUBE-EXTERNAL-SERVICES: whoever was not translated on the way here gets the verdict."""
        if self.external is Verdict.FORWARD:
            return
        why, target = _missing(self.external), self._refusal(self.external)
        for address in (*self.port.external_ips, *self.port.load_balancer_ips):
            yield self._to_address(EXTERNAL_SERVICES, why, address, target)
        if self.port.node_port:
            yield (
                f'-A {EXTERNAL_SERVICES} -p {self.protocol} -m comment --comment "{self.text} {why}" '
                f"-m addrtype --dst-type LOCAL -m {self.protocol} --dport {self.port.node_port} -j {target}"
            )

    def _unlisted(self) -> Iterator[str]:
        """KUBE-PROXY-FIREWALL: what still carries the balancer's address was not let in by a source range."""
        if self.firewalled:
            for address in self.port.load_balancer_ips:
                yield self._to_address(
                    PROXY_FIREWALL, f"traffic not accepted by {self.chains.firewall}", address, "DROP"
                )

    def _health_check(self) -> Iterator[str]:
        if self.port.health_check_port:
            yield (
                f'-A {NODE_PORTS} -p tcp -m comment --comment "{self.text} health check node port" -m tcp '
                f"--dport {self.port.health_check_port} -j ACCEPT"
            )

    # the port's own chains

    def _internal_masquerade(self) -> Iterator[str]:
        """Calls of the cluster IP from outside the cluster are masqueraded: answers must come back here."""
        detector = self.settings.detector
        if self.settings.masquerade_all:
            yield self._to_address(self.internal_chain, "cluster IP", self.port.cluster_ip, MARK_MASQ)
        elif detector is not None and not _takes_all(detector):
            yield self._to_address(
                self.internal_chain, "cluster IP", self.port.cluster_ip, MARK_MASQ, foreign_to=detector
            )

    def _external_chain(self) -> Iterator[str]:
        """KUBE-EXT: policy Cluster masquerades all. Policy Local keeps the source, but treats pods and the
        node as if they had gone out to a balancer and come back: they reach every endpoint.
        """
        head, chains = f"-A {self.chains.external}", self.chains
        what = f'{self.text} external destinations"'
        if not self.port.external_local:
            yield f'{head} -m comment --comment "masquerade traffic for {what} -j {MARK_MASQ}'
        else:
            if self.settings.detector is not None:
                pods = _local_match(self.settings.detector)
                yield f'{head} {pods}-m comment --comment "pod traffic for {what} -j {chains.cluster}'
            local = "-m addrtype --src-type LOCAL"
            yield f'{head} -m comment --comment "masquerade LOCAL traffic for {what} {local} -j {MARK_MASQ}'
            yield f'{head} -m comment --comment "route LOCAL traffic for {what} {local} -j {chains.cluster}'
        if self.external is Verdict.FORWARD:
            yield f"{head} -j {self.external_chain}"

    def _firewall_chain(self) -> Iterator[str]:
        """KUBE-FW: the sources that may go on; falling out of the chain means being dropped in filter."""
        allowed = [str(network) for network in self.port.source_ranges]
        if node_admitted(self.port, self.node):
            allowed += [_host(address) for address in self.port.load_balancer_ips]
        for source in allowed:
            comment = f'-m comment --comment "{self.text} loadbalancer IP"'
            yield f"-A {self.chains.firewall} -s {source} {comment} -j {self.chains.external}"
        other = f"other traffic to {self.text} will be dropped by {PROXY_FIREWALL}"
        yield f'-A {self.chains.firewall} -m comment --comment "{other}"'

    def _balancing(self, chain: str, targets: Sequence[tuple[Endpoint, str]]) -> list[str]:
        """KUBE-SVC or KUBE-SVL: first clients that are remembered, then a fair choice."""
        heads = [f"-A {chain}{self._endpoint_comment(endpoint)}" for endpoint, _ in targets]
        lines: list[str] = []
        if self.port.affinity_seconds is not None:
            lines += [
                f"{head} -m recent --rcheck --seconds {self.port.affinity_seconds} --reap {self._memory(sep)} -j {sep}"
                for head, (_, sep) in zip(heads, targets, strict=True)
            ]
        count = len(targets)
        lines += [
            f"{head}{_chance(count - index)} -j {sep}"
            for index, (head, (_, sep)) in enumerate(zip(heads, targets, strict=True))
        ]
        return lines

    def _endpoint_chain(self, chain: str, endpoint: Endpoint) -> str:
        """KUBE-SEP: masquerade an endpoint that reaches itself (it would answer itself), then translate."""
        comment = f' -m comment --comment "{self.text}"' if self.comments else ""
        remember = "" if self.port.affinity_seconds is None else f" -m recent --set {self._memory(chain)}"
        bits = 128 if self.port.family is Family.IPV6 else 32
        return (
            f"-A {chain} -s {endpoint.host}/{bits}{comment} -j {MARK_MASQ}\n"
            f"-A {chain} -p {self.protocol}{comment}{remember} -m {self.protocol} "
            f"-j DNAT --to-destination {endpoint.target}\n"
        )

    # pieces

    def _to_address(
        self, chain: str, what: str, address: Address, target: str, *, foreign_to: Detector | None = None
    ) -> str:
        source = interface = ""
        if isinstance(foreign_to, SourceDetector):
            source = f"! {_local_match(foreign_to)}"
        elif foreign_to is not None:
            interface = f"! {_local_match(foreign_to)}"
        return (
            f"-A {chain} {source}-d {_host(address)} {interface}-p {self.protocol} "
            f'-m comment --comment "{self.text} {what}" -m {self.protocol} --dport {self.port.port} -j {target}'
        )

    def _refusal(self, verdict: Verdict) -> str:
        if verdict is Verdict.DROP:
            return "DROP"
        return (
            f"REJECT --reject-with {'icmp6' if self.port.family is Family.IPV6 else 'icmp'}-port-unreachable"
        )

    def _memory(self, sep: str) -> str:
        """Where the `recent` match keeps the clients of an endpoint: by their whole address."""
        mask = "ffff:" * 7 + "ffff" if self.port.family is Family.IPV6 else "255.255.255.255"
        return f"--name {sep} --mask {mask} --rsource"

    def _endpoint_comment(self, endpoint: Endpoint) -> str:
        return f' -m comment --comment "{self.text} -> {endpoint.target}"' if self.comments else ""


def _takes_all(detector: Detector) -> bool:
    """A range of everything: nobody is foreign, and `! -s 0.0.0.0/0` is refused by the nft variant."""
    return isinstance(detector, SourceDetector) and detector.network.prefixlen == 0


def _local_match(detector: Detector) -> str:
    """The match of traffic the detector calls local, with a space after it."""
    if isinstance(detector, SourceDetector):
        return "" if _takes_all(detector) else f"-s {detector.network} "
    return f"-i {detector.name}{'+' if detector.prefix else ''} "


def _host(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


@cache
def _chance(remaining: int) -> str:
    """The match that gives the next of `remaining` endpoints its share, so that all come out equal.

    kube-proxy writes ten digits; the kernel keeps it as a multiple of 2^-31, and that is what is printed.
    """
    if remaining == 1:
        return ""
    written = float(f"{1 / remaining:.10f}")
    return f" -m statistic --mode random --probability {round(written * 2**31) / 2**31:.11f}"


def _missing(verdict: Verdict) -> str:
    return "has no endpoints" if verdict is Verdict.REJECT else "has no local endpoints"


def _text(lines: Iterator[str] | list[str]) -> str:
    found = list(lines)
    return "\n".join([*found, ""]) if found else ""
