"""The endpoints a Service should have, in the form of EndpointSlices. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.controllers.endpoints.membership import (
    HEADLESS_LABEL,
    address_of,
    hostname_of,
    is_candidate,
    is_headless,
    ports_of,
    target_reference,
)
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace
from controlplane.meta.owners import owner_reference
from controlplane.meta.pods import is_ready

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
ZONE_LABEL = "topology.kubernetes.io/zone"

PortKey = tuple[tuple[str, str, int, str], ...]
NodeLookup = Callable[[str], Object | None]


def port_key(ports: Sequence[Object] | None) -> PortKey:
    """Slices hold endpoints with the same ports only: this is what groups them."""
    return tuple(
        sorted(
            (port.get("name") or "", port["protocol"], port["port"], port.get("appProtocol") or "")
            for port in ports or ()
        )
    )


_RESERVED = frozenset((HEADLESS_LABEL, SERVICE_LABEL, MANAGED_BY_LABEL))


@dataclass(frozen=True, slots=True)
class SliceTemplate:
    """What all slices of one owner (a Service, or Endpoints written by hand) have in common.

    `labels` are the owner's own and the ones readers select by, `owner` is the reference to it.
    """

    name: str
    namespace: str
    labels: dict[str, str]
    owner: Object

    def empty(self, family: str, ports: list[Object]) -> Object:
        """A slice without endpoints and name, to be filled and created."""
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{self.name}-",
                "namespace": self.namespace,
                "labels": self.labels,
                "ownerReferences": [self.owner],
            },
            "addressType": family,
            "endpoints": [],
            "ports": ports,
        }


def template(owner: Object, owner_kind: str, manager: str, *, headless: bool) -> SliceTemplate:
    """The template of the slices that `manager` keeps for `owner`, an object of `owner_kind` in v1."""
    wanted = {key: value for key, value in labels(owner).items() if key not in _RESERVED}
    if headless:
        wanted[HEADLESS_LABEL] = ""
    wanted[SERVICE_LABEL] = name(owner)
    wanted[MANAGED_BY_LABEL] = manager
    return SliceTemplate(name(owner), namespace(owner), wanted, owner_reference("v1", owner_kind, owner))


def service_template(service: Object) -> SliceTemplate:
    """The template of the slices of a Service that selects pods."""
    return template(service, "Service", MANAGER, headless=is_headless(service))


def desired(
    service: Object, pods: Sequence[Object], family: str, node_of: NodeLookup
) -> dict[PortKey, tuple[list[Object], list[Object]]]:
    """Ports and endpoints per group of ports. Pods on nodes that do not exist (yet) are left out."""
    unready_too = dig(service, "spec", "publishNotReadyAddresses", default=False)
    groups: dict[PortKey, tuple[list[Object], list[Object]]] = {}
    for pod in pods:
        address = address_of(pod, family)
        node_name = dig(pod, "spec", "nodeName", default="")
        node = node_of(node_name) if node_name else None
        if not address or not is_candidate(pod, include_terminating=True) or (node_name and node is None):
            continue
        ports = ports_of(service, pod)
        if not ports and not is_headless(service):
            continue
        _, endpoints = groups.setdefault(port_key(ports), (ports, []))
        endpoints.append(_endpoint(service, pod, address, node, publish_unready=unready_too))
    if dig(service, "spec", "trafficDistribution") == "PreferClose":
        for _, endpoints in groups.values():
            _hint_own_zone(endpoints)
    return groups


def _endpoint(
    service: Object, pod: Object, address: str, node: Object | None, *, publish_unready: bool
) -> Object:
    serving = is_ready(pod)
    terminating = is_being_deleted(pod)
    endpoint: Object = {
        "addresses": [address],
        "conditions": {
            "ready": publish_unready or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": target_reference(pod),
    }
    hostname = hostname_of(pod, service)
    if hostname:
        endpoint["hostname"] = hostname
    if node is not None:
        endpoint["nodeName"] = name(node)
        zone = labels(node).get(ZONE_LABEL, "")
        if zone:
            endpoint["zone"] = zone
    return endpoint


def _hint_own_zone(endpoints: list[Object]) -> None:
    """Traffic to the zone's own endpoints, unless a ready one has no zone and would never be reached."""
    ready = [endpoint for endpoint in endpoints if endpoint["conditions"]["ready"]]
    if all("zone" in endpoint for endpoint in ready):
        for endpoint in ready:
            endpoint["hints"] = {"forZones": [{"name": endpoint["zone"]}]}
