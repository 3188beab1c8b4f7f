"""What a node's kernel should hold of the pod network, entry by entry, what for, and where it differs. Pure.

`standing` reads the same entries from the kernel. Entries are texts in the manner of ip(8), because people read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.kernel import rtnl
from netkit.kernel.wireguard_values import State, peer_text
from netkit.podnet import masquerade, modes, overlay, wireguard
from netkit.podnet.address import gateway
from netkit.podnet.attach import Attach, gateway_interface, pod_interface
from netkit.podnet.device import BRIDGE, Uplink, settings_of
from netkit.podnet.host_port import JUMPS as HOST_PORT_JUMPS
from netkit.podnet.host_port import forwarded, is_ours
from netkit.podnet.host_port import rules as host_port_rules
from netkit.podnet.host_port_rules import setting
from netkit.podnet.ipam import Lease
from netkit.podnet.modes import NetworkMode, Setting, backend
from netkit.podnet.paths import Hop, NoWay, Paths
from netkit.podnet.peer import Peer
from netkit.podnet.underlay import ONE_LINK, Underlay

UNREACHABLE: Final = "unreachable"
"""The value of a route by which packets go nowhere."""

_SETTING_PURPOSE: Final = {
    Attach.BRIDGE: "packets of pods are routed, and seen by iptables on the bridge",
    Attach.PTP: "packets of pods are routed",
}


class Kind(StrEnum):
    """What sort of thing in the kernel an entry is; in the order in which they are shown."""

    DEVICE = "device"
    ADDRESS = "address"
    ROUTE = "route"
    NEIGHBOUR = "neighbour"
    FDB = "fdb"
    PEER = "peer"
    POD = "pod"
    RULE = "rule"
    SETTING = "setting"
    SESSION = "bgp session"


class Problem(StrEnum):
    """How an entry differs."""

    MISSING = "missing"
    WRONG = "wrong"
    NOT_OURS = "not ours"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing. `key` tells it from others of its kind, `value` is how it is set, `purpose` what it is for."""

    kind: Kind
    key: str
    value: str = ""
    purpose: str = ""

    @property
    def identity(self) -> tuple[Kind, str]:
        return self.kind, self.key


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry that is not as it should be: `wanted` and `found` are values, "" for what is not there."""

    kind: Kind
    key: str
    problem: Problem
    wanted: str
    found: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides about a node's entries: the node itself, who else has joined, and the pods that have addresses."""

    node: str
    address: IPv4Address
    pod_range: IPv4Network
    cluster_cidr: IPv4Network
    setting: Setting
    uplink: Uplink
    peers: Sequence[Peer] = ()
    pods: Sequence[Lease] = ()
    random_fully: bool = True
    attach: Attach = Attach.BRIDGE
    underlay: Underlay = ONE_LINK
    public_key: str = ""

    @property
    def mtu(self) -> int:
        """Of pods' links: the underlay's, less what the mode takes."""
        return modes.mtu(self.setting, self.underlay, self.uplink.mtu)


def expected(facts: Facts) -> tuple[list[Entry], tuple[NoWay, ...]]:
    """All entries of a node that is as it should be, and the nodes that its mode cannot reach.

    With the mode `external` these are the routes and settings: pods are the affair of who made them.
    """
    mode = backend(facts.setting, facts.underlay)
    wanted = mode.wanted(facts.peers, facts.uplink.network)
    external = facts.setting.mode is NetworkMode.EXTERNAL
    near = _bridge(facts) if facts.attach is Attach.BRIDGE else _own_range(facts)
    entries = [] if external else near
    if overlay.DEVICE in mode.tunnels:
        entries += _tunnel(facts)
    if wireguard.DEVICE in mode.tunnels:
        entries += _encrypted(facts)
    entries += _ways(wanted.paths, facts)
    for lease in facts.pods:
        entries += _pod(lease, facts)
    if not external:
        entries += _rules(facts)
        entries += _host_ports(facts)
    entries += [
        Entry(Kind.SETTING, key, str(value), _SETTING_PURPOSE[facts.attach])
        for key, value in settings_of(facts.attach).items()
    ]
    return entries, wanted.refused


def differences(
    wanted: Iterable[Entry], found: Iterable[Entry], refused: Iterable[NoWay]
) -> list[Difference]:
    """Where the kernel is not as it should be, in the order of kinds; nodes without a way are missing routes."""
    should = {entry.identity: entry for entry in wanted}
    there = {entry.identity: entry for entry in found}
    result = [
        Difference(Kind.ROUTE, str(way.pod_range), Problem.MISSING, "", "", f"pods of {way.node}: {way.why}")
        for way in refused
    ]
    for identity, entry in should.items():
        other = there.get(identity)
        if other is None:
            result.append(Difference(*identity, Problem.MISSING, entry.value, "", entry.purpose))
        elif other.value != entry.value:
            result.append(Difference(*identity, Problem.WRONG, entry.value, other.value, entry.purpose))
    result += [
        Difference(*identity, Problem.NOT_OURS, "", entry.value, "nothing of the pod network asks for it")
        for identity, entry in there.items()
        if identity not in should
    ]
    order = list(Kind)
    return sorted(result, key=lambda item: order.index(item.kind))


def learned(facts: Facts, found: Iterable[Entry]) -> list[Entry]:
    """What a BGP daemon should have given to the node: a way to the pods of each other node, whichever it is."""
    there = {entry.key: entry.value for entry in found if entry.kind is Kind.ROUTE}
    keys = {learned_key(peer.pod_range): peer.name for peer in facts.peers} if facts.underlay.learned else {}
    return [
        Entry(Kind.ROUTE, key, there.get(key, "by BGP"), f"pods of {name}, learned")
        for key, name in keys.items()
    ]


def learned_key(target: IPv4Network) -> str:
    """A node may have a route of its own to the same range, which then goes before."""
    return f"{target} by BGP"


def device_text(kind: str, *, up: bool, mtu: int, mac: str = "") -> str:
    return f"{kind} {'up' if up else 'down'} mtu {mtu}" + (f" mac {mac}" if mac else "")


def wireguard_text(state: State | None) -> str:
    if state is None:
        return "wireguard carried by nobody"
    return f"wireguard listen-port {state.port} public-key {state.public_key or '(none)'}"


def peer_entries(state: State, purposes: Mapping[str, str]) -> list[Entry]:
    """Entries of a device's peers; `purposes` by public key."""
    return [
        Entry(Kind.PEER, f"{key} dev {wireguard.DEVICE}", peer_text(peer), purposes.get(key, ""))
        for key, peer in state.peers.items()
    ]


def port_text(*, up: bool, mtu: int, hairpin: bool) -> str:
    return f"veth {'up' if up else 'down'} mtu {mtu} master {BRIDGE}{' hairpin' if hairpin else ''}"


def cable_text(*, up: bool, mtu: int, mac: str, master: str = "") -> str:
    return f"veth {'up' if up else 'down'} mtu {mtu} mac {mac}" + (f" master {master}" if master else "")


def pod_text(*, up: bool, mtu: int, addresses: Iterable[str], via: str) -> str:
    return f"eth0 {'up' if up else 'down'} mtu {mtu} {' '.join(addresses)} default via {via or 'nothing'}"


def vxlan_text(vni: int, local: IPv4Address | None, port: int, device: str, *, learning: bool) -> str:
    return f"vxlan id {vni} local {local} dev {device} dstport {port}{'' if learning else ' nolearning'}"


def route_text(via: IPv4Address | None, device: str, *, onlink: bool) -> str:
    return (f"via {via} " if via is not None else "") + f"dev {device}" + (" onlink" if onlink else "")


def rule_entries(table: str, lines: Iterable[str]) -> list[Entry]:
    """Entries of a table's rules: those of the chains of pod network and host ports, and the jumps into them."""
    chains = (masquerade.NAT_CHAIN, masquerade.FORWARD_CHAIN)
    return [
        Entry(Kind.RULE, f"{table} {line}")
        for line in lines
        if line.startswith("-A ")
        and any(chain in chains or is_ours(chain) for chain in (line.split()[1], line.split()[-1]))
    ]


def _bridge(facts: Facts) -> list[Entry]:
    address = gateway(facts.pod_range)
    text = device_text("bridge", up=True, mtu=facts.mtu, mac=rtnl.mac_of(address.ip))
    return [
        Entry(Kind.DEVICE, BRIDGE, text, "the pods of this node meet here"),
        Entry(Kind.ADDRESS, f"{address} dev {BRIDGE}", "", "the pods' gateway"),
    ]


def _own_range(facts: Facts) -> list[Entry]:
    return [Entry(Kind.ROUTE, str(facts.pod_range), UNREACHABLE, "addresses of this node that no pod has")]


def _tunnel(facts: Facts) -> list[Entry]:
    address = IPv4Interface((facts.pod_range.network_address, 32))
    mtu = facts.underlay.mtu(facts.uplink.mtu) - overlay.OVERHEAD
    link = vxlan_text(overlay.VNI, facts.address, overlay.PORT, facts.uplink.name, learning=False)
    text = device_text(link, up=True, mtu=mtu, mac=overlay.vtep_mac(facts.address))
    return [
        Entry(Kind.DEVICE, overlay.DEVICE, text, "wraps pods' packets into UDP packets between nodes"),
        Entry(
            Kind.ADDRESS, f"{address} dev {overlay.DEVICE}", "", "this node, as pods of other nodes see it"
        ),
    ]


def _encrypted(facts: Facts) -> list[Entry]:
    state = State(facts.public_key, wireguard.PORT)
    text = device_text(
        wireguard_text(state), up=True, mtu=facts.underlay.mtu(facts.uplink.mtu) - wireguard.OVERHEAD
    )
    address = IPv4Interface((facts.pod_range.network_address, 32))
    way = route_text(None, wireguard.DEVICE, onlink=False)
    return [
        Entry(Kind.DEVICE, wireguard.DEVICE, text, "encrypts pods' packets between nodes"),
        Entry(
            Kind.ADDRESS, f"{address} dev {wireguard.DEVICE}", "", "this node, as pods of other nodes see it"
        ),
        Entry(Kind.ROUTE, str(facts.cluster_cidr), way, "all other pods; the device chooses the node"),
    ]


def _ways(paths: Paths, facts: Facts) -> list[Entry]:
    by_range = {peer.pod_range: peer for peer in facts.peers}
    by_mac = {peer.vtep_mac: peer for peer in facts.peers}
    purposes = {peer.public_key: f"pods of {peer.name}, and itself" for peer in facts.peers}
    return [
        *peer_entries(State("", 0, paths.keys), purposes),
        *(
            Entry(Kind.ROUTE, str(target), _hop_text(hop, facts), f"pods of {by_range[target].name}")
            for target, hop in paths.routes.items()
        ),
        *(
            Entry(Kind.NEIGHBOUR, f"{address} dev {overlay.DEVICE}", mac, f"tunnel end of {by_mac[mac].name}")
            for address, mac in paths.neighbours.items()
        ),
        *(
            Entry(Kind.FDB, f"{mac} dev {overlay.DEVICE}", f"dst {remote}", f"tunnel to {by_mac[mac].name}")
            for mac, remote in paths.fdb.items()
        ),
    ]


def _hop_text(hop: Hop, facts: Facts) -> str:
    through = overlay.DEVICE if hop.tunnel else wireguard.DEVICE if hop.encrypted else ""
    return route_text(hop.via, through or facts.uplink.name, onlink=bool(through))


def _pod(lease: Lease, facts: Facts) -> list[Entry]:
    who = f"{lease.namespace}/{lease.name}"
    address = pod_interface(facts.attach, facts.pod_range, lease.address)
    inside = pod_text(up=True, mtu=facts.mtu, addresses=[str(address)], via=str(gateway(facts.pod_range).ip))
    near, routed = BRIDGE, []
    cable = port_text(up=True, mtu=facts.mtu, hairpin=True)
    if facts.attach is Attach.PTP:
        near, way = lease.link, gateway_interface(facts.attach, facts.pod_range)
        cable = cable_text(up=True, mtu=facts.mtu, mac=rtnl.mac_of(way.ip))
        routed = [
            Entry(Kind.ADDRESS, f"{way} dev {lease.link}", "", f"the gateway of pod {who}"),
            Entry(
                Kind.ROUTE, f"{lease.address}/32", route_text(None, lease.link, onlink=False), f"pod {who}"
            ),
        ]
    neighbour = f"{lease.address} dev {near}"
    return [
        Entry(Kind.DEVICE, lease.link, cable, f"cable of pod {who}"),
        *routed,
        Entry(Kind.NEIGHBOUR, neighbour, rtnl.mac_of(lease.address), f"pod {who}, without asking for it"),
        Entry(Kind.POD, lease.netns, inside, f"pod {who}"),
    ]


def _rules(facts: Facts) -> list[Entry]:
    nodes = [(facts.node, facts.address), *((peer.name, peer.address) for peer in facts.peers)]
    entries, table = [], ""
    text = masquerade.rules(facts.pod_range, facts.cluster_cidr, nodes, random_fully=facts.random_fully)
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        for entry in rule_entries(table, [line]):
            purpose = (
                "pods' addresses stay inside the cluster" if table == "nat" else "pods' packets may pass"
            )
            entries.append(Entry(entry.kind, entry.key, "", purpose))
    entries += [_jump(table, chain, rule) for table, chain, rule in masquerade.JUMPS]
    return entries


def _host_ports(facts: Facts) -> list[Entry]:
    pods = forwarded(facts.attach, facts.pod_range, facts.pods)
    if not pods:
        return []
    of_chain = {pod.chain: f"host ports of pod {pod.pod}" for pod in pods}
    entries = [
        Entry(Kind.RULE, f"nat {rule}", "", _purpose(rule, of_chain)) for rule in host_port_rules(pods)
    ]
    entries += [_jump("nat", chain, rule) for chain, rule, _ in HOST_PORT_JUMPS]
    entries += [
        Entry(Kind.SETTING, setting(device), "1", "host ports answer on 127.0.0.1 too")
        for device in dict.fromkeys(pod.device for pod in pods)
    ]
    return entries


def _purpose(rule: str, of_chain: dict[str, str]) -> str:
    words = rule.split()
    return (
        of_chain.get(words[1])
        or of_chain.get(words[-1])
        or "answers to host ports come back through this node"
    )


def _jump(table: str, chain: str, rule: Sequence[str]) -> Entry:
    words = " ".join(f'"{word}"' if " " in word else word for word in rule)
    return Entry(Kind.RULE, f"{table} -A {chain} {words}", "", "the way into the chain")
