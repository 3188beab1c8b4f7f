"""Objects for proxy tests, written as briefly as a table row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from netkit.proxy.addresses import Address, Family
from netkit.proxy.state import ProxyState

Object = dict[str, Any]


def service(
    name: str = "ns1/svc1",
    cluster_ip: str = "172.30.0.41",
    ports: Sequence[Mapping[str, Any]] = ({"name": "p80", "port": 80},),
    *,
    labels: Mapping[str, str] | None = None,
    ingress: Sequence[Mapping[str, Any]] = (),
    created: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> Object:
    """A Service; `spec` are fields of its spec, `ingress` the entries of its load balancer status."""
    namespace, short = name.split("/")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": short,
            "namespace": namespace,
            "labels": dict(labels or {}),
            "creationTimestamp": created,
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"protocol": "TCP", **port} for port in ports],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}},
    }


def endpoint(
    address: str,
    node: str = "",
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    zones: Sequence[str] = (),
    nodes: Sequence[str] = (),
) -> Object:
    """One endpoint of a slice. None leaves a condition out."""
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    found: Object = {
        "addresses": [address],
        "conditions": {key: value for key, value in conditions.items() if value is not None},
    }
    if node:
        found["nodeName"] = node
    hints: Object = {}
    if zones:
        hints["forZones"] = [{"name": zone} for zone in zones]
    if nodes:
        hints["forNodes"] = [{"name": name} for name in nodes]
    if hints:
        found["hints"] = hints
    return found


def draining(address: str, node: str = "") -> Object:
    """An endpoint that shuts down but still answers."""
    return endpoint(address, node, ready=False, serving=True, terminating=True)


def unready(address: str, node: str = "") -> Object:
    return endpoint(address, node, ready=False, serving=False, terminating=False)


def slice_of(
    service_name: str = "ns1/svc1",
    *endpoints: Object | str,
    suffix: str = "a",
    ports: Sequence[Mapping[str, Any]] = ({"name": "p80", "port": 80},),
    address_type: str = "IPv4",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """An EndpointSlice of a Service; a plain string stands for a ready endpoint without node."""
    namespace, short = service_name.split("/")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{short}-{suffix}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": short, **(labels or {})},
            "annotations": dict(annotations or {}),
        },
        "addressType": address_type,
        "endpoints": [endpoint(item) if isinstance(item, str) else item for item in endpoints],
        "ports": [{"protocol": "TCP", **port} for port in ports],
    }


def state_of(*objects: Object, family: Family = Family.IPV4) -> ProxyState:
    """A state that has taken in and collected all objects."""
    state = ProxyState(family)
    feed(state, *objects)
    state.collect()
    return state


def feed(state: ProxyState, *objects: Object) -> None:
    for obj in objects:
        if obj["kind"] == "Service":
            state.upsert_service(obj)
        else:
            state.upsert_slice(obj)


@dataclass
class FakeNodeKernel:
    """A kernel whose settings are attributes."""

    liberal: bool = False
    local: list[Address] = field(default_factory=lambda: [ip_address("127.0.0.1"), ip_address("10.0.0.1")])
    localnet: bool = False
    counters: frozenset[str] = frozenset()

    def tcp_be_liberal(self) -> bool:
        return self.liberal

    def addresses(self) -> Sequence[Address]:
        return self.local

    def route_localnet(self) -> bool:
        changed = not self.localnet
        self.localnet = True
        return changed

    def packet_counters(self, names: Sequence[str]) -> frozenset[str]:
        return self.counters.intersection(names)

    def counted_packets(self, name: str) -> int | None:
        return 0 if name in self.counters else None
