"""The subsets of an Endpoints object: the same pods as in slices, in the older form. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.controllers.endpoints.membership import (
    address_of,
    families,
    hostname_of,
    is_candidate,
    is_headless,
    ports_of,
    target_reference,
)
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.pods import is_ready, phase

CAPACITY = 1000

_PortSet = tuple[tuple[int, str, str, str], ...]


def subsets(service: Object, pods: Sequence[Object], capacity: int = CAPACITY) -> tuple[list[Object], bool]:
    """The subsets, and whether addresses had to be left out because there are too many.

    Addresses with the same ports form one subset. Over capacity ready addresses are kept before unready ones.
    """
    publish_unready = dig(service, "spec", "publishNotReadyAddresses", default=False)
    family = families(service)[0]
    groups: dict[_PortSet, tuple[list[Object], list[Object]]] = {}
    for pod in pods:
        address = address_of(pod, family)
        if not address or not is_candidate(pod, include_terminating=publish_unready):
            continue
        ports = ports_of(service, pod)
        if not ports and not is_headless(service):
            continue
        if not (publish_unready or is_ready(pod) or _may_become_ready(pod)):
            continue
        key = tuple(
            sorted((p["port"], p["protocol"], p.get("name", ""), p.get("appProtocol", "")) for p in ports)
        )
        ready, unready = groups.setdefault(key, ([], []))
        (ready if publish_unready or is_ready(pod) else unready).append(_address(service, pod, address))
    truncated = _truncate(list(groups.values()), capacity)
    return [
        _subset(key, *addresses) for key, addresses in sorted(groups.items()) if any(addresses)
    ], truncated


def _may_become_ready(pod: Object) -> bool:
    policy = dig(pod, "spec", "restartPolicy", default="Always")
    if policy == "Never":
        return phase(pod) not in ("Failed", "Succeeded")
    return not (policy == "OnFailure" and phase(pod) == "Succeeded")


def _address(service: Object, pod: Object, address: str) -> Object:
    result: Object = {"ip": address, "targetRef": target_reference(pod)}
    node = dig(pod, "spec", "nodeName", default="")
    if node:
        result["nodeName"] = node
    hostname = hostname_of(pod, service)
    if hostname:
        result["hostname"] = hostname
    return result


def _subset(key: _PortSet, ready: list[Object], unready: list[Object]) -> Object:
    subset: Object = {}
    if ready:
        subset["addresses"] = sorted(ready, key=_by_address)
    if unready:
        subset["notReadyAddresses"] = sorted(unready, key=_by_address)
    ports = []
    for number, protocol, name, app_protocol in sorted(key, key=lambda port: (port[2], port[0])):
        port: Object = {"port": number, "protocol": protocol}
        if name:
            port["name"] = name
        if app_protocol:
            port["appProtocol"] = app_protocol
        ports.append(port)
    if ports:
        subset["ports"] = ports
    return subset


def _by_address(address: Object) -> tuple[str, str]:
    return address["ip"], address["targetRef"]["uid"]


def _truncate(groups: Sequence[tuple[list[Object], list[Object]]], capacity: int) -> bool:
    """Cut to capacity in place, unready addresses first."""
    truncated = False
    left = capacity
    for position in (0, 1):
        for addresses in (group[position] for group in groups):
            if len(addresses) > left:
                del addresses[left:]
                truncated = True
            left -= len(addresses)
    return truncated
