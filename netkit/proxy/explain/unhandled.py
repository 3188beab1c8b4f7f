"""Why a proxy does nothing about a Service, or about one of its addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.errors import Object
from controlplane.meta.objects import labels
from netkit.proxy.addresses import Address, Family
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.explain.target import Called
from netkit.proxy.flows import Destination
from netkit.proxy.services import HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL, Protocol, ServicePort
from netkit.proxy.settings import ProxyMode


def unhandled_service(service: Object, family: Family) -> str:
    """Why no port of `service` is handled in this family. Asked when `services.service_ports` gives none."""
    spec = service.get("spec") or {}
    found = labels(service)
    if spec.get("type") == "ExternalName":
        return f"type ExternalName is a name in DNS for {spec.get('externalName')}; there is no address to translate"
    if SERVICE_PROXY_NAME_LABEL in found:
        return f"the label {SERVICE_PROXY_NAME_LABEL}={found[SERVICE_PROXY_NAME_LABEL]} gives it to another proxy"
    if HEADLESS_LABEL in found:
        return f"the label {HEADLESS_LABEL} keeps proxies away"
    if spec.get("clusterIP") == "None":
        return "it is headless (clusterIP None): DNS names its endpoints, and clients call them directly"
    if not spec.get("clusterIP"):
        return "it has no cluster IP yet"
    if not spec.get("ports"):
        return "it has no ports"
    return f"it has no {family} cluster IP, only {', '.join(spec.get('clusterIPs') or [spec['clusterIP']])}"


def unhandled_address(
    port: ServicePort,
    called: Called,
    address: Address,
    source: Source,
    standpoint: Standpoint,
    ports: Iterable[ServicePort],
) -> str:
    """Why packets to one address of a handled port are not this port's to take; empty when they are.

    `ports` are all ports of the cluster: two Services may claim the same external address.
    """
    beyond = _beyond_userspace(port, called, address, source, standpoint)
    if standpoint.mode is ProxyMode.USERSPACE and beyond:
        return beyond
    match called.destination:
        case Destination.NODE_PORT if address.is_loopback and source.origin is not Origin.NODE:
            return f"{address} is the caller's own loopback: its packets never come to {standpoint.node.name}"
        case Destination.NODE_PORT:
            return standpoint.answers_node_ports(address)
        case Destination.LOAD_BALANCER if address not in port.load_balancer_ips:
            return f"ipMode Proxy: nodes leave {address} to the balancer"
        case Destination.CLUSTER_IP:
            return ""
    for other in ports:
        if other.order >= port.order or (other.port, other.protocol) != (port.port, port.protocol):
            continue
        if address in (*other.external_ips, *other.load_balancer_ips):
            return f"Service {other.name} is older and has {address}:{port.port} too"
    return ""


def _beyond_userspace(
    port: ServicePort, called: Called, address: Address, source: Source, standpoint: Standpoint
) -> str:
    """What the userspace mode does not take, other modes do."""
    if port.protocol is Protocol.SCTP:
        return "the userspace mode does not proxy SCTP"
    if called.destination is not Destination.EXTERNAL_IP or standpoint.is_local_address(address):
        return ""
    if source.origin is Origin.NODE:
        return "the userspace mode lets the node's own packets to external IPs go where they want"
    if source.bridged:
        return (
            "the userspace mode lets packets from a bridge, i.e. of pods, to external IPs go where they want"
        )
    return ""
