"""What a question is about: from `default/web:http` or `10.96.0.10:80` to Services, their ports and addresses.

Pure; errors say what there is instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig, name, namespace, namespaced_name
from netkit.proxy.addresses import Address, Family, addresses_of, host_port, parse_address
from netkit.proxy.explain.errors import NotExplainable
from netkit.proxy.explain.standpoint import Origin
from netkit.proxy.flows import Destination
from netkit.proxy.services import Protocol, ServicePortName


class To(StrEnum):
    """Which address of the Service is called, in the words of `--to`."""

    CLUSTER_IP = "cluster-ip"
    NODE_PORT = "node-port"
    EXTERNAL_IP = "external-ip"
    LOAD_BALANCER = "load-balancer"

    @property
    def destination(self) -> Destination:
        return _DESTINATIONS[self]


_DESTINATIONS = {
    To.CLUSTER_IP: Destination.CLUSTER_IP,
    To.NODE_PORT: Destination.NODE_PORT,
    To.EXTERNAL_IP: Destination.EXTERNAL_IP,
    To.LOAD_BALANCER: Destination.LOAD_BALANCER,
}


@dataclass(frozen=True, slots=True)
class Called:
    """The address a connection is made to.

    None for NodePorts, which answer on addresses of whichever node is asked, and for Services without cluster IP,
    which no proxy handles.
    """

    destination: Destination
    address: Address | None
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """One port of a Service. `called` is None unless the question named an address."""

    service: Object
    port: Mapping[str, Any]
    called: Called | None = None

    @property
    def name(self) -> ServicePortName:
        return ServicePortName(
            namespace(self.service),
            name(self.service),
            self.port.get("name") or "",
            Protocol(self.port.get("protocol") or "TCP"),
        )


_ADDRESS = re.compile(r"^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d+)$")


def find(
    text: str, default_namespace: str, services: Sequence[Object], nodes: Sequence[Object]
) -> list[Target]:
    """The service ports that `text` names: all ports of the Service if it names none.

    Raises NotExplainable when there is no such Service, port or address.
    """
    if match := _ADDRESS.match(text):
        try:
            address = parse_address(match[1] or match[2])
        except ValueError:
            raise NotExplainable(f"{match[1] or match[2]} is not an IP address") from None
        return _by_address(address, int(match[3]), services, nodes)
    path, _, wanted = text.partition(":")
    service_namespace, _, service_name = path.rpartition("/")
    service = _by_name(service_namespace or default_namespace, service_name, services)
    ports = service.get("spec", {}).get("ports") or []
    if not wanted:
        return [Target(service, port) for port in ports] or [Target(service, {})]
    found = [port for port in ports if wanted in (port.get("name"), str(port["port"]))]
    if not found:
        raise NotExplainable(
            f"Service {namespaced_name(service)} has no port {wanted}", f"it has: {_ports_text(service)}"
        )
    return [Target(service, port) for port in found]


def _by_name(service_namespace: str, service_name: str, services: Sequence[Object]) -> Object:
    for service in services:
        if (namespace(service), name(service)) == (service_namespace, service_name):
            return service
    here = sorted(name(service) for service in services if namespace(service) == service_namespace)
    elsewhere = sorted(namespaced_name(service) for service in services if name(service) == service_name)
    hint = f"there are: {', '.join(here)}" if here else f"namespace {service_namespace} has no Services"
    if elsewhere:
        hint = f"there is {', '.join(elsewhere)}"
    raise NotExplainable(f"there is no Service {service_namespace}/{service_name}", hint)


def _by_address(
    address: Address, number: int, services: Sequence[Object], nodes: Sequence[Object]
) -> list[Target]:
    known: list[str] = []
    found: list[Target] = []
    for service in services:
        for destination, owned in addresses(service):
            if owned != address:
                continue
            known.append(f"{namespaced_name(service)} ({destination}), which has {_ports_text(service)}")
            called = Called(destination, address, number)
            found += [
                Target(service, port, called)
                for port in service["spec"].get("ports") or ()
                if port["port"] == number
            ]
    if found:
        return found
    if known:
        raise NotExplainable(
            f"no Service has port {number} on {address}", f"the address belongs to {known[0]}"
        )
    found = [
        Target(service, port, Called(Destination.NODE_PORT, address, number))
        for service in services
        for port in service.get("spec", {}).get("ports") or ()
        if port.get("nodePort") == number
    ]
    if not found:
        raise NotExplainable(f"{host_port(address, number)} is no address and port of any Service")
    if not address.is_loopback and address not in {item for node in nodes for item in node_addresses(node)}:
        raise NotExplainable(
            f"{address} is an address of no node",
            f"port {number} is a NodePort of {found[0].name}; the nodes have: {_nodes_text(nodes)}",
        )
    return found


def addresses(service: Object) -> Iterable[tuple[Destination, Address]]:
    """All addresses of a Service by kind, NodePorts apart; also those that proxies leave alone (ipMode Proxy)."""
    spec = service.get("spec") or {}
    ingress = dig(service, "status", "loadBalancer", "ingress", default=())
    for destination, texts in (
        (Destination.CLUSTER_IP, spec.get("clusterIPs") or [spec.get("clusterIP") or ""]),
        (Destination.EXTERNAL_IP, spec.get("externalIPs") or ()),
        (Destination.LOAD_BALANCER, [entry["ip"] for entry in ingress if entry.get("ip")]),
    ):
        for family in Family:
            for address in addresses_of(family, texts):
                yield destination, address


def node_addresses(node: Object) -> list[Address]:
    """The addresses a Node object names, as far as they are addresses."""
    texts = [item.get("address", "") for item in dig(node, "status", "addresses", default=())]
    return [address for family in Family for address in addresses_of(family, texts)]


def called(target: Target, to: To | None, origin: Origin, family: Family) -> Called:
    """Which address is called: the one the question named, that of `to`, or what callers of `origin` use.

    Raises NotExplainable when the Service has no such address.
    """
    if target.called is not None:
        return target.called
    wanted = to.destination if to is not None else Destination.CLUSTER_IP
    cluster_ip = _address_of(target, Destination.CLUSTER_IP, family)
    if cluster_ip is None and (to is None or wanted is Destination.CLUSTER_IP):
        return Called(Destination.CLUSTER_IP, None, target.port.get("port", 0))
    if to is None and origin is Origin.OUTSIDE:
        return _first_external(target, family)
    address = _address_of(target, wanted, family)
    if address is not None:
        return address
    raise NotExplainable(
        f"Service {namespaced_name(target.service)} has no {wanted} of family {family}{_why_none(target, wanted)}"
    )


def _first_external(target: Target, family: Family) -> Called:
    for destination in (Destination.LOAD_BALANCER, Destination.EXTERNAL_IP, Destination.NODE_PORT):
        if (found := _address_of(target, destination, family)) is not None:
            return found
    kind = target.service.get("spec", {}).get("type") or "ClusterIP"
    raise NotExplainable(
        f"Service {namespaced_name(target.service)} has no address for callers outside the cluster (type {kind})",
        "--to cluster-ip tells what becomes of a packet that reaches a node with the cluster IP all the same",
    )


def _address_of(target: Target, wanted: Destination, family: Family) -> Called | None:
    if wanted is Destination.NODE_PORT:
        number = target.port.get("nodePort")
        return Called(wanted, None, number) if number else None
    for destination, address in addresses(target.service):
        if destination is wanted and address.version == family.version and target.port:
            return Called(destination, address, target.port["port"])
    return None


def _why_none(target: Target, wanted: Destination) -> str:
    spec = target.service.get("spec") or {}
    kind = spec.get("type") or "ClusterIP"
    if wanted is Destination.LOAD_BALANCER and kind == "LoadBalancer":
        return ": its status names none yet (pending)"
    if wanted is Destination.EXTERNAL_IP:
        return ": spec.externalIPs names none"
    return f" (type {kind})"


def _ports_text(service: Object) -> str:
    return ", ".join(port_text(port) for port in service.get("spec", {}).get("ports") or ()) or "no ports"


def port_text(port: Mapping[str, Any]) -> str:
    """`http (80/TCP)` or `80/TCP`."""
    numbers = f"{port['port']}/{port.get('protocol') or 'TCP'}"
    return f"{port['name']} ({numbers})" if port.get("name") else numbers


def _nodes_text(nodes: Sequence[Object]) -> str:
    return ", ".join(f"{name(node)} {item}" for node in nodes for item in node_addresses(node)[:1])
