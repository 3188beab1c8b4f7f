"""Pods and NetworkPolicies as values: what of the API's objects decides who may reach whom. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig, labels, name, namespace, uid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Key = tuple[str, str]
"""Namespace and name."""

PROTOCOLS: Final[Mapping[str, int]] = {"TCP": 6, "UDP": 17, "SCTP": 132}
PROTOCOL_NAMES: Final[Mapping[int, str]] = {number: word for word, number in PROTOCOLS.items()}
_ENDED: Final = ("Succeeded", "Failed")
_EVERYTHING: Final = LabelSelector()
LAST_PORT: Final = 65535


class Direction(StrEnum):
    """Seen from the pod that a policy selects."""

    INGRESS = "ingress"
    EGRESS = "egress"


class PodPort(NamedTuple):
    """A container's port that has a name."""

    name: str
    protocol: int
    number: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not ended and is not on its node's own network. Without addresses it cannot be reached yet."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    node: str
    addresses: tuple[Address, ...]
    ports: tuple[PodPort, ...] = ()

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Selected:
    """Peers: the pods that match `pods`, of the one namespace or, if that is "", of all that match `namespaces`."""

    namespace: str
    namespaces: LabelSelector
    pods: LabelSelector

    def __str__(self) -> str:
        pods = str(self.pods) or "all pods"
        if self.namespace:
            return f"{pods} in namespace {self.namespace}"
        return f"{pods} in namespaces {self.namespaces}" if str(self.namespaces) else f"{pods} everywhere"


@dataclass(frozen=True, slots=True)
class Block:
    """Peers: addresses of a range, without those of the ranges in `excepts`."""

    network: Network
    excepts: tuple[Network, ...] = ()

    def __contains__(self, address: Address) -> bool:
        return address in self.network and not any(address in network for network in self.excepts)

    def __str__(self) -> str:
        without = ", ".join(map(str, self.excepts))
        return f"{self.network} except {without}" if without else str(self.network)


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports `first` to `last` of a protocol (its IP number)."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT

    def __str__(self) -> str:
        word = PROTOCOL_NAMES[self.protocol]
        if (self.first, self.last) == (0, LAST_PORT):
            return f"all of {word}"
        return f"{self.first}/{word}" if self.first == self.last else f"{self.first}-{self.last}/{word}"


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """The port that the destination's containers give that name, of the same protocol."""

    protocol: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}/{PROTOCOL_NAMES[self.protocol]}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy allows. `peers` None: everybody; `ports` None: every port of every protocol."""

    peers: tuple[Selected | Block, ...] | None
    ports: tuple[PortRange | NamedPort, ...] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy. `ingress` or `egress` is None where it does not isolate; without rules nothing is allowed."""

    namespace: str
    name: str
    pods: LabelSelector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def pod_of(obj: Object, addresses: Sequence[Address] = ()) -> Pod | None:
    """The pod; None for one that has ended or that lives on its node's network.

    `addresses` are those of its sandbox, for a pod whose status does not tell them yet.
    """
    spec = obj.get("spec") or {}
    if spec.get("hostNetwork") or dig(obj, "status", "phase") in _ENDED:
        return None
    return Pod(
        namespace(obj),
        name(obj),
        uid(obj),
        labels(obj),
        spec.get("nodeName") or "",
        pod_addresses(obj) or tuple(addresses),
        tuple(_ports(spec)),
    )


def pod_addresses(obj: Object) -> tuple[Address, ...]:
    """The addresses in the pod's status."""
    status = obj.get("status") or {}
    found = [item["ip"] for item in status.get("podIPs") or () if item.get("ip")]
    return tuple(map(ip_address, found or filter(None, [status.get("podIP")])))


def _ports(spec: Object) -> Iterator[PodPort]:
    sidecars = [item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name"):
                protocol = PROTOCOLS[port.get("protocol") or "TCP"]
                yield PodPort(port["name"], protocol, port["containerPort"])


def policy_of(obj: Object) -> Policy:
    """The policy. Raises ValueError for one that the API would not have taken."""
    spec = obj.get("spec") or {}
    own = namespace(obj)
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return Policy(
        own,
        name(obj),
        LabelSelector.from_object(spec.get("podSelector") or {}),
        tuple(_rules(spec.get("ingress"), "from", own)) if "Ingress" in types else None,
        tuple(_rules(spec.get("egress"), "to", own)) if "Egress" in types else None,
    )


def _rules(rules: Sequence[Object] | None, peers: str, own: str) -> Iterator[Rule]:
    for rule in rules or ():
        yield Rule(
            tuple(_peer(peer, own) for peer in rule[peers]) if rule.get(peers) else None,
            tuple(map(_port, rule["ports"])) if rule.get("ports") else None,
        )


def _peer(peer: Object, own: str) -> Selected | Block:
    block = peer.get("ipBlock")
    if block is not None:
        excepts = tuple(ip_network(item, strict=False) for item in block.get("except") or ())
        return Block(ip_network(block["cidr"], strict=False), excepts)
    pods = LabelSelector.from_object(peer.get("podSelector") or {})
    namespaces = peer.get("namespaceSelector")
    if namespaces is None:
        return Selected(own, _EVERYTHING, pods)
    return Selected("", LabelSelector.from_object(namespaces), pods)


def _port(port: Object) -> PortRange | NamedPort:
    protocol = PROTOCOLS[port.get("protocol") or "TCP"]
    first = port.get("port")
    if first is None:
        return PortRange(protocol)
    if isinstance(first, str):
        return NamedPort(protocol, first)
    return PortRange(protocol, first, port.get("endPort") or first)
