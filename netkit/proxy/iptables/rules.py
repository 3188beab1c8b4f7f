"""Rules of the iptables mode for one service port, as text of iptables-restore.

Called by `book`, which assembles documents of them. Pure: values in, text out; never runs anything.
Layout, order and comments are those of kube-proxy 1.33, so that what users know of it is true here as well.
Each rule is written as iptables-save prints it, which iptables-restore reads as well: so what stands in a kernel can
be compared with what is wanted without taking either apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from netkit.proxy.addresses import Address, Family, Network
from netkit.proxy.choice import Choice, NodeView, Verdict
from netkit.proxy.detector import Detector, SourceDetector
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.flows import node_admitted
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


@dataclass(frozen=True, slots=True)
class IPTablesSettings:
    """What decides over the rules besides Services, endpoints and the node.

    `node_port_addresses` empty or containing 0.0.0.0/0 means every local address. `random_fully` and
    `tcp_be_liberal` say what the iptables program can do and what the kernel is set to.
    """

    detector: Detector | None = None
    masquerade_all: bool = False
    masquerade_bit: int = 14
    localhost_node_ports: bool = True
    node_port_addresses: tuple[Network, ...] = ()
    random_fully: bool = True
    tcp_be_liberal: bool = False

    @property
    def mark(self) -> str:
        """The packet mark that asks for masquerading, as iptables writes it."""
        return hex(1 << self.masquerade_bit)


@dataclass(frozen=True, slots=True)
class PortRules:
    """Text of one service port, block by block; each line ends with a newline.

    The first six blocks go into chains that all services share, `chains` are the port's own chains in the nat
    table and `rules` what is in them.
    """

    filter_services: str = ""
    filter_external: str = ""
    filter_firewall: str = ""
    filter_node_ports: str = ""
    nat_services: str = ""
    nat_node_ports: str = ""
    chains: tuple[str, ...] = ()
    rules: str = ""


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
        self.comments = comments
        self.chains: PortChains = port_chains(port.name)
        self.protocol = port.protocol.lower()
        self.text = port.name.text
        self.internal = choice.verdict(port.internal_policy)
        self.external = choice.verdict(port.external_policy)
        self.internal_chain = self.chains.local if port.internal_local else self.chains.cluster
        self.external_chain = self.chains.local if port.external_local else self.chains.cluster
        self.firewalled = bool(choice.has_any and port.load_balancer_ips and port.source_ranges)

    def render(self) -> PortRules:
        chains: list[str] = []
        rules: list[str] = []
        if self.internal is Verdict.FORWARD:
            rules += self._internal_masquerade()
        if self.choice.has_any and self.port.externally_reachable:
            chains.append(self.chains.external)
            rules += self._external_chain()
        if self.firewalled:
            chains.append(self.chains.firewall)
            rules += self._firewall_chain()
        reachable = self.choice.reachable
        seps = {endpoint.target: endpoint_chain(self.port.name, endpoint) for endpoint in reachable}
        for chain, endpoints in (
            (self.chains.cluster, self.choice.cluster),
            (self.chains.local, self.choice.local),
        ):
            if endpoints:
                chains.append(chain)
                rules += self._balancing(chain, [(endpoint, seps[endpoint.target]) for endpoint in endpoints])
        for endpoint in reachable:
            chains.append(seps[endpoint.target])
            rules += self._endpoint_chain(chains[-1], endpoint)
        return PortRules(
            filter_services=_text(self._refused_internal()),
            filter_external=_text(self._refused_external()),
            filter_firewall=_text(self._unlisted()),
            filter_node_ports=_text(self._health_check()),
            nat_services=_text(self._captured()),
            nat_node_ports=_text(self._captured_node_port()),
            chains=tuple(chains),
            rules=_text(rules),
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
        if self.port.node_port and self.choice.has_any:
            yield (
                f'-A {NODE_PORTS} -p {self.protocol} -m comment --comment "{self.text}" -m {self.protocol} '
                f"--dport {self.port.node_port} -j {self.chains.external}"
            )

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
        detector, address = self.settings.detector, self.port.cluster_ip
        if self.settings.masquerade_all:
            yield self._to_address(self.internal_chain, "cluster IP", address, MARK_MASQ)
        elif detector is not None:
            yield self._to_address(self.internal_chain, "cluster IP", address, MARK_MASQ, foreign_to=detector)

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

    def _balancing(self, chain: str, targets: Sequence[tuple[Endpoint, str]]) -> Iterator[str]:
        """KUBE-SVC or KUBE-SVL: first clients that are remembered, then a fair choice."""
        if self.port.affinity_seconds is not None:
            for endpoint, sep in targets:
                yield (
                    f"-A {chain}{self._endpoint_comment(endpoint)} -m recent --rcheck "
                    f"--seconds {self.port.affinity_seconds} --reap {self._memory(sep)} -j {sep}"
                )
        remaining = len(targets)
        for endpoint, sep in targets:
            chance = f" -m statistic --mode random --probability {_share(remaining)}" if remaining > 1 else ""
            yield f"-A {chain}{self._endpoint_comment(endpoint)}{chance} -j {sep}"
            remaining -= 1

    def _endpoint_chain(self, chain: str, endpoint: Endpoint) -> Iterator[str]:
        """KUBE-SEP: masquerade an endpoint that reaches itself (it would answer itself), then translate."""
        comment = f' -m comment --comment "{self.text}"' if self.comments else ""
        yield f"-A {chain} -s {_host(endpoint.address)}{comment} -j {MARK_MASQ}"
        remember = "" if self.port.affinity_seconds is None else f" -m recent --set {self._memory(chain)}"
        yield (
            f"-A {chain} -p {self.protocol}{comment}{remember} -m {self.protocol} "
            f"-j DNAT --to-destination {endpoint.target}"
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


def _local_match(detector: Detector) -> str:
    """The match of traffic the detector calls local, with a space after it."""
    if isinstance(detector, SourceDetector):
        return f"-s {detector.network} "
    return f"-i {detector.name}{'+' if detector.prefix else ''} "


def _host(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


@cache
def _share(remaining: int) -> str:
    """The chance of the next of `remaining` endpoints, so that all come out equal.

    kube-proxy writes ten digits; the kernel keeps it as a multiple of 2^-31, and that is what is printed.
    """
    written = float(f"{1 / remaining:.10f}")
    return f"{round(written * 2**31) / 2**31:.11f}"


def _missing(verdict: Verdict) -> str:
    return "has no endpoints" if verdict is Verdict.REJECT else "has no local endpoints"


def _text(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
