"""Which pods belong to a Service, and what of a pod its endpoints show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels, metadata, namespace
from controlplane.meta.pods import find_port, is_finished, is_ready

HEADLESS_LABEL = "service.kubernetes.io/headless"


def has_endpoints(service: Object) -> bool:
    """Whether its endpoints are ours to keep: it selects pods and is no mere alias."""
    return bool(dig(service, "spec", "selector")) and dig(service, "spec", "type") != "ExternalName"


def is_headless(service: Object) -> bool:
    """Whether it has no cluster IP; then proxies leave it to DNS."""
    return dig(service, "spec", "clusterIP", default="") in ("", "None")


def selects(service: Object, pod: Object) -> bool:
    """Whether the pod has all labels the Service asks for."""
    selector: Mapping[str, str] = dig(service, "spec", "selector", default={})
    return bool(selector) and selector.items() <= labels(pod).items()


def is_candidate(pod: Object, *, include_terminating: bool) -> bool:
    """Whether the pod can have an endpoint at all: it has an address and has not finished."""
    if is_finished(pod) or not pod_addresses(pod):
        return False
    return include_terminating or not is_being_deleted(pod)


def pod_addresses(pod: Object) -> list[str]:
    """All addresses of the pod, the primary one first."""
    listed = [entry["ip"] for entry in dig(pod, "status", "podIPs", default=()) if entry.get("ip")]
    single = dig(pod, "status", "podIP", default="")
    return listed or ([single] if single else [])


def families(service: Object) -> list[str]:
    """Address types of the Service, as EndpointSlices call them."""
    listed = dig(service, "spec", "ipFamilies", default=())
    if listed:
        return list(listed)
    return ["IPv6" if ":" in dig(service, "spec", "clusterIP", default="") else "IPv4"]


def address_of(pod: Object, family: str) -> str:
    """The pod's address of that family, or an empty string."""
    for address in pod_addresses(pod):
        if (":" in address) == (family == "IPv6"):
            return address
    return ""


def hostname_of(pod: Object, service: Object) -> str:
    """The name under which DNS gives out this pod alone; empty for most."""
    hostname: str = dig(pod, "spec", "hostname", default="")
    subdomain = dig(pod, "spec", "subdomain", default="")
    same = subdomain == metadata(service).get("name") and namespace(pod) == namespace(service)
    return hostname if same else ""


def target_reference(pod: Object) -> Object:
    """What `targetRef` says."""
    described = metadata(pod)
    return {
        "kind": "Pod",
        "namespace": described["namespace"],
        "name": described["name"],
        "uid": described["uid"],
    }


def ports_of(service: Object, pod: Object) -> list[Object]:
    """The Service's ports as this pod offers them; named ones it does not have are left out."""
    found = []
    for port in dig(service, "spec", "ports", default=()):
        protocol = port.get("protocol", "TCP")
        number = find_port(pod, port.get("targetPort") or port["port"], protocol)
        if number is None:
            continue
        entry: Object = {"name": port.get("name", ""), "port": number, "protocol": protocol}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        found.append(entry)
    return found


def facts(pod: Object) -> tuple[object, ...]:
    """Everything of a pod that can change endpoints; while this stays the same there is nothing to do."""
    return (
        labels(pod),
        pod_addresses(pod),
        dig(pod, "spec", "nodeName"),
        dig(pod, "spec", "hostname"),
        dig(pod, "spec", "subdomain"),
        is_ready(pod),
        is_finished(pod),
        is_being_deleted(pod),
    )


def label_pairs(obj: Object) -> Iterable[str]:
    """Index of pods: each of their labels, within the namespace."""
    space = namespace(obj)
    return [f"{space}/{key}={value}" for key, value in labels(obj).items()]


def selector_pair(service: Object) -> Iterable[str]:
    """Index of Services: one label that all their pods must have."""
    selector: Mapping[str, str] = dig(service, "spec", "selector", default={})
    return [f"{namespace(service)}/{key}={selector[key]}" for key in sorted(selector)[:1]]
