"""What a proxy needs to know of a Service: one frozen `ServicePort` per port and address family.

Made from Service objects at the boundary; read by every back end. Pure: no I/O, no state, no endpoints.
The rules are those of kube-proxy 1.33 (`pkg/proxy/serviceport.go`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from netkit.proxy.addresses import Address, Family, Network, addresses_of, networks_of

SERVICE_PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
NOT_OURS_SELECTOR = f"!{SERVICE_PROXY_NAME_LABEL},!{HEADLESS_LABEL}"
"""Label selector of the Services and EndpointSlices a proxy reads: other proxies' and headless ones are not.
"""

DEFAULT_AFFINITY_SECONDS = 10800


class Protocol(StrEnum):
    """Transport protocols of service ports."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


def protocol_named(text: str | None) -> Protocol | None:
    """The protocol of a port; none given is TCP, and None is returned for those that nobody proxies."""
    return _PROTOCOLS.get(text or "TCP")


_PROTOCOLS = {str(protocol): protocol for protocol in Protocol}


class TrafficPolicy(StrEnum):
    """Which endpoints traffic may go to: all of the cluster, or those of the receiving node."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


@dataclass(frozen=True, order=True)
class ServicePortName:
    """Identity of a service port; `str()` is the `namespace/name:port` that rule comments carry."""

    namespace: str
    name: str
    port: str
    protocol: Protocol

    @cached_property
    def text(self) -> str:
        """`namespace/name`, and `:port` when the port has a name."""
        return f"{self.namespace}/{self.name}:{self.port}" if self.port else f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service in one address family.

    `load_balancer_ips` holds only addresses that this proxy must capture (ipMode VIP). `source_ranges`
    guard those and nothing else; empty means everybody. `health_check_port` and `node_port` are 0 when
    unused, `affinity_seconds` is None without ClientIP affinity. `created` (RFC 3339, sorts as text)
    decides which of two Services keeps an address that both claim.
    """

    name: ServicePortName
    family: Family
    cluster_ip: Address
    port: int
    node_port: int = 0
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()
    internal_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    affinity_seconds: int | None = None
    health_check_port: int = 0
    created: str = ""

    @property
    def protocol(self) -> Protocol:
        return self.name.protocol

    @property
    def externally_reachable(self) -> bool:
        """Whether clients outside the cluster have an address for it."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def internal_local(self) -> bool:
        return self.internal_policy is TrafficPolicy.LOCAL

    @property
    def external_local(self) -> bool:
        """External policy Local; counts only where there is an external address."""
        return self.external_policy is TrafficPolicy.LOCAL and self.externally_reachable

    @property
    def uses_cluster_list(self) -> bool:
        """Also true for internal Local with external addresses: pods of the cluster are short-circuited."""
        return not self.internal_local or self.externally_reachable

    @property
    def uses_local_list(self) -> bool:
        return self.internal_local or self.external_local

    @property
    def order(self) -> tuple[str, ServicePortName]:
        """Sort key of rules: of two claims on one address the older Service's rule is met first."""
        return (self.created, self.name)

    @property
    def rank(self) -> tuple[str, str, str, str, str]:
        """Sorts like `order`, and many of them faster."""
        name = self.name
        return (self.created, name.namespace, name.name, name.port, name.protocol)


def service_ports(service: Object, family: Family) -> tuple[ServicePort, ...]:
    """The ports of `service` that a proxy of this family handles; none for those it must skip.

    Skipped: ExternalName, no cluster IP of the family (headless included), the labels of other proxies.
    """
    spec: Mapping[str, Any] = service.get("spec") or {}
    cluster_ip = _cluster_ip(spec, family)
    if cluster_ip is None or spec.get("type") == "ExternalName" or _belongs_to_others(service):
        return ()
    external_local = spec.get("externalTrafficPolicy") == TrafficPolicy.LOCAL and _leaves_cluster(spec)
    ingress = dig(service, "status", "loadBalancer", "ingress", default=())
    health_port = spec.get("healthCheckNodePort") or 0
    service_namespace, service_name = namespace(service), name(service)
    shared: dict[str, Any] = {
        "family": family,
        "cluster_ip": cluster_ip,
        "external_ips": addresses_of(family, spec.get("externalIPs") or ()),
        "load_balancer_ips": addresses_of(family, _virtual_ips(ingress)),
        "source_ranges": _source_ranges(spec, family),
        "internal_policy": _policy(spec.get("internalTrafficPolicy") == TrafficPolicy.LOCAL),
        "external_policy": _policy(external_local),
        "affinity_seconds": _affinity_seconds(spec),
        "health_check_port": health_port if external_local and spec.get("type") == "LoadBalancer" else 0,
        "created": dig(service, "metadata", "creationTimestamp", default=""),
    }
    return tuple(
        ServicePort(
            name=ServicePortName(
                service_namespace,
                service_name,
                port.get("name") or "",
                protocol,
            ),
            port=port["port"],
            node_port=port.get("nodePort") or 0,
            **shared,
        )
        for port in spec.get("ports") or ()
        if (protocol := protocol_named(port.get("protocol"))) is not None
    )


def _policy(local: bool) -> TrafficPolicy:
    return TrafficPolicy.LOCAL if local else TrafficPolicy.CLUSTER


def _leaves_cluster(spec: Mapping[str, Any]) -> bool:
    """Whether the Service is of a kind that has external traffic, even if it has no address for it yet."""
    return spec.get("type") in ("LoadBalancer", "NodePort") or bool(spec.get("externalIPs"))


def _belongs_to_others(service: Object) -> bool:
    found = labels(service)
    return SERVICE_PROXY_NAME_LABEL in found or HEADLESS_LABEL in found


def _cluster_ip(spec: Mapping[str, Any], family: Family) -> Address | None:
    """The cluster IP of the family; `None` and headless Services have none that is an address."""
    texts = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    found = addresses_of(family, texts)
    return found[0] if found else None


def _virtual_ips(ingress: Any) -> list[str]:
    """Ingress addresses that nodes capture. ipMode Proxy means: send it to the balancer, do not touch it."""
    return [entry["ip"] for entry in ingress if entry.get("ip") and entry.get("ipMode") != "Proxy"]


def _source_ranges(spec: Mapping[str, Any], family: Family) -> tuple[Network, ...]:
    ranges = networks_of(family, spec.get("loadBalancerSourceRanges") or ())
    if any(network.prefixlen == 0 for network in ranges):
        return ()
    return ranges


def _affinity_seconds(spec: Mapping[str, Any]) -> int | None:
    if spec.get("sessionAffinity") != "ClientIP":
        return None
    seconds: int = dig(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds", default=0)
    return seconds or DEFAULT_AFFINITY_SECONDS
