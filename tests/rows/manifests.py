"""Ordinary manifests made complete, as the API server would: defaults, cluster IPs, node ports, Nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import clone, dig, name
from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE, SERVICE_CIDR
from controlplane.resources.kind import Kind
from netkit.proxy.addresses import Family, addresses_of, networks_of, parse_address
from netkit.proxy.services import Protocol
from rows.errors import TableError
from rows.format import Address, PodPlan

KINDS: Mapping[tuple[str, str], Kind] = {
    ("v1", "Service"): SERVICE,
    ("v1", "Node"): NODE,
    ("discovery.k8s.io/v1", "EndpointSlice"): ENDPOINT_SLICE,
    ("networking.k8s.io/v1", "ServiceCIDR"): SERVICE_CIDR,
}
_POLICIES = ("internalTrafficPolicy", "externalTrafficPolicy")
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def flattened(manifest: Any, where: str) -> Iterator[Object]:
    """The objects of one manifest; a List (also of `kubectl get -o yaml`) is its items. Raises TableError."""
    if not isinstance(manifest, dict):
        raise TableError(f"{where}: a manifest is a mapping, not {manifest!r}")
    if manifest.get("kind") == "List":
        for number, item in enumerate(manifest.get("items") or ()):
            yield from flattened(item, f"{where}: items[{number}]")
        return
    checked(manifest, where)
    yield clone(manifest)


def checked(manifest: Object, where: str) -> None:
    """Raise TableError unless it is an object that a proxy reads, with what it cannot do without."""
    kind = (manifest.get("apiVersion"), manifest.get("kind"))
    if kind not in KINDS:
        known = ", ".join(f"{kind} ({version})" for version, kind in KINDS)
        raise TableError(
            f"{where}: kind: {kind[1]!r} of apiVersion {kind[0]!r} is not one of {known}, List (v1)"
        )
    if not isinstance(manifest.get("metadata"), dict) or not manifest["metadata"].get("name"):
        raise TableError(f"{where}: metadata.name: every {kind[1]} needs one")
    where = f"{where}: {kind[1]} {name(manifest)}"
    for field in ("spec", "status"):
        if not isinstance(manifest.get(field), dict | None):
            raise TableError(f"{where}: {field}: must be a mapping")
    if kind[1] == "Service":
        _check_service(manifest, where)
    elif kind[1] == "EndpointSlice":
        _check_slice(manifest, where)


def _check_service(service: Object, where: str) -> None:
    spec = service.get("spec") or {}
    if spec.get("type", "ClusterIP") not in _TYPES:
        raise TableError(f"{where}: spec.type: {spec['type']!r} is not one of {', '.join(_TYPES)}")
    for policy in _POLICIES:
        if spec.get(policy) not in (None, "", "Cluster", "Local"):
            raise TableError(f"{where}: spec.{policy}: {spec[policy]!r} is neither Cluster nor Local")
    for number, port in enumerate(spec.get("ports") or ()):
        _check_port(port, f"{where}: spec.ports[{number}]", required=True)


def _check_slice(slice_: Object, where: str) -> None:
    if slice_.get("addressType") not in ("IPv4", "IPv6", "FQDN"):
        raise TableError(
            f"{where}: addressType: {slice_.get('addressType')!r} is not one of IPv4, IPv6, FQDN"
        )
    for number, port in enumerate(slice_.get("ports") or ()):
        _check_port(port, f"{where}: ports[{number}]", required=False)
    for number, item in enumerate(slice_.get("endpoints") or ()):
        if not isinstance(item, dict) or not item.get("addresses"):
            raise TableError(f"{where}: endpoints[{number}].addresses: at least one is needed")


def _check_port(port: Any, where: str, *, required: bool) -> None:
    if not isinstance(port, dict):
        raise TableError(f"{where}: must be a mapping")
    number = port.get("port")
    if (required or number is not None) and not (isinstance(number, int) and 0 < number < 65536):
        raise TableError(f"{where}.port: {number!r} is not a port")
    if port.get("protocol") not in (None, "", *Protocol):
        raise TableError(f"{where}.protocol: {port['protocol']!r} is not one of TCP, UDP, SCTP")


def completed(objects: Iterable[Object]) -> list[Object]:
    """The objects with everything the API server would have filled in."""
    found = list(objects)
    addresses = {family: _pool(family, found) for family in Family}
    taken = {port.get("nodePort") for item in found for port in dig(item, "spec", "ports", default=())}
    node_ports = (port for port in count(32000) if port not in taken)
    for item in found:
        kind = KINDS[item["apiVersion"], item["kind"]]
        if kind.namespaced:
            item["metadata"].setdefault("namespace", "default")
        kind.default(item)
        if kind is SERVICE:
            _allocate(item, addresses, node_ports)
    return found


def _pool(family: Family, objects: Iterable[Object]) -> Iterator[Address]:
    """Cluster IPs that no Service asks for."""
    taken = {
        address
        for item in objects
        for address in addresses_of(
            family, [dig(item, "spec", "clusterIP", default=""), *dig(item, "spec", "clusterIPs", default=())]
        )
    }
    first = parse_address("10.96.200.1" if family is Family.IPV4 else "fd00:10:96::c801")
    return (address for number in count() if (address := first + number) not in taken)


def _allocate(
    service: Object, addresses: Mapping[Family, Iterator[Address]], node_ports: Iterator[int]
) -> None:
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIPs"):
        if not spec.get("clusterIP"):
            spec["clusterIP"] = str(next(addresses[Family((spec.get("ipFamilies") or ["IPv4"])[0])]))
        spec["clusterIPs"] = [spec["clusterIP"]]
        if spec.get("ipFamilyPolicy") in ("PreferDualStack", "RequireDualStack"):
            other = Family.IPV4 if ":" in spec["clusterIP"] else Family.IPV6
            spec["clusterIPs"].append(str(next(addresses[other])))
    spec["clusterIP"] = spec["clusterIPs"][0]
    wanted = spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts")
    )
    if wanted:
        for port in spec.get("ports") or ():
            port["nodePort"] = port.get("nodePort") or next(node_ports)


def node_named(node_name: str, index: int, manifest: Object | None = None) -> Object:
    """A Node with addresses and pod ranges: those of its manifest, or those the network gives to number `index`."""
    node = (
        clone(manifest) if manifest else {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name}}
    )
    spec = node.setdefault("spec", {})
    if not spec.get("podCIDRs"):
        ranges = [spec["podCIDR"]] if spec.get("podCIDR") else []
        spec["podCIDRs"] = ranges or [f"10.244.{index}.0/24", f"fd00:10:244:{index}::/64"]
    spec["podCIDR"] = spec["podCIDRs"][0]
    status = node.setdefault("status", {})
    if not status.get("addresses"):
        status["addresses"] = [
            {"type": "InternalIP", "address": f"192.168.0.{1 + index}"},
            {"type": "InternalIP", "address": f"fd00:192:168::{1 + index}"},
            {"type": "ExternalIP", "address": f"192.168.1.{1 + index}"},
            {"type": "ExternalIP", "address": f"fd00:192:168:1::{1 + index}"},
            {"type": "Hostname", "address": node_name},
        ]
    return node


def node_addresses(node: Object) -> tuple[Address, ...]:
    """All IP addresses of a Node, the InternalIPs first."""
    listed = [item for item in dig(node, "status", "addresses", default=()) if item.get("type") != "Hostname"]
    listed.sort(key=lambda item: item.get("type") != "InternalIP")
    texts = [item["address"] for item in listed]
    return tuple(address for family in Family for address in addresses_of(family, texts))


def pod_addresses(node: Object, number: int) -> tuple[Address, ...]:
    """The address of this number in each of a node's pod ranges."""
    ranges = node["spec"]["podCIDRs"]
    return tuple(network[number] for family in Family for network in networks_of(family, ranges)[:1])


def pods_of(objects: Iterable[Object], nodes: Mapping[str, Object], where: str) -> dict[str, PodPlan]:
    """The pods behind all slices, by name: `targetRef.name` where there is one, else their address."""
    found: dict[str, PodPlan] = {}
    owner: dict[Address, str] = {}
    for slice_ in objects:
        if slice_["kind"] != "EndpointSlice" or slice_["addressType"] not in tuple(Family):
            continue
        family = Family(slice_["addressType"])
        for item in slice_["endpoints"]:
            addresses = addresses_of(family, item["addresses"])
            for address in addresses:
                pod = owner.get(address) or dig(item, "targetRef", "name") or str(address)
                node = item.get("nodeName") or _node_of(address, nodes)
                plan = found.get(pod) or PodPlan(pod, node, ())
                if item.get("nodeName") and plan.node != node:
                    raise TableError(
                        f"{where}: EndpointSlice {name(slice_)}: endpoints: pod {pod} is on {node} here"
                        f" and on {plan.node} elsewhere"
                    )
                owner[address] = pod
                listens = {
                    (address, port["port"], Protocol(port["protocol"]))
                    for port in slice_.get("ports") or ()
                    if port.get("port")
                }
                known = plan.addresses if address in plan.addresses else (*plan.addresses, address)
                found[pod] = PodPlan(pod, plan.node, known, plan.listens | listens)
    return found


def _node_of(address: Address, nodes: Mapping[str, Object]) -> str:
    """Where an endpoint that names no node lives: by its address, else on the last node."""
    family = Family.IPV4 if address.version == 4 else Family.IPV6
    for node_name, node in nodes.items():
        if any(address in network for network in networks_of(family, node["spec"]["podCIDRs"])):
            return node_name
    return list(nodes)[-1]
