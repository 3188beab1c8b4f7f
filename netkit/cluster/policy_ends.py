"""What names on the command line of `netkit policy` stand for, and the objects that say so. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from netkit.cluster.errors import ClusterError
from netkit.policy.model import LAST_PORT, PROTOCOLS, Address, Pod, pod_addresses, pod_of, policy_of
from netkit.policy.verdict import End, Judge

Arrival = tuple[End, int | None]
"""Where a connection ends, and the port that arrives there; None: no port was named."""

_NODE = "node:"


@dataclass(frozen=True)
class Objects:
    """What of the cluster decides who reaches whom."""

    pods: Sequence[Object]
    namespaces: Sequence[Object]
    policies: Sequence[Object]
    nodes: Sequence[Object]
    services: Sequence[Object]
    slices: Sequence[Object]

    def judge(self) -> Judge:
        return Judge(map(policy_of, self.policies), {name(item): labels(item) for item in self.namespaces})

    @cached_property
    def running(self) -> Mapping[str, Pod]:
        """The pods that can be reached, by NAMESPACE/NAME, in the order of their names."""
        found = filter(None, map(pod_of, self.pods))
        return {str(pod): pod for pod in sorted(found, key=lambda pod: pod.key) if pod.addresses}

    @cached_property
    def pod_at(self) -> Mapping[Address, Pod]:
        return {address: pod for pod in self.running.values() for address in pod.addresses}

    @cached_property
    def node_at(self) -> Mapping[Address, str]:
        return {address: name(node) for node in self.nodes for address in _node_addresses(node)}


def sources(objects: Objects, word: str) -> list[End]:
    """Who calls: a pod, node or address, once for each of its addresses. Raises ClusterError."""
    found = _plain(objects, word)
    if found is None:
        hint = "write a pod (NAMESPACE/NAME), node:NAME or an IP address"
        raise ClusterError(f"there is no running pod {_full(word)}", hint)
    return found


def destinations(objects: Objects, target: str, protocol: str) -> list[Arrival]:
    """Who is called by `TARGET[:PORT]`; of a Service each endpoint, without PORT at each port. Raises ClusterError."""
    word, port = with_port(target)
    found = _plain(objects, word)
    service = _service(objects, word)
    if service is not None and (found is None or found[0].pod is None):
        return list(_endpoints(objects, service, port, protocol))
    if found is None:
        raise ClusterError(
            f"there is no running pod and no Service {_full(word)}",
            "write NAMESPACE/NAME, node:NAME or an IP address",
        )
    return [(end, _number(port, end.pod, protocol)) for end in found]


def with_port(target: str) -> tuple[str, str]:
    """`TARGET:PORT` in two, PORT is "" without one; an IPv6 address with a port is written in brackets."""
    if target.startswith("["):
        address, _, port = target[1:].partition("]")
        return address, port.lstrip(":")
    if target.startswith(_NODE):
        node, _, port = target[len(_NODE) :].partition(":")
        return _NODE + node, port
    if target.count(":") != 1:
        return target, ""
    head, _, port = target.partition(":")
    return head, port


def words(objects: Objects, *, services: bool) -> list[str]:
    """All names that stand for an end."""
    found = [*objects.running, *(_NODE + name(node) for node in objects.nodes)]
    if services:
        found += [f"{namespace(item)}/{name(item)}" for item in objects.services]
    return sorted(found)


def _plain(objects: Objects, word: str) -> list[End] | None:
    """The ends of a word that is no Service; None when it might be one."""
    if word.startswith(_NODE):
        node = word[len(_NODE) :]
        own = [address for address, owner in objects.node_at.items() if owner == node]
        if not own:
            raise ClusterError(
                f"there is no node {node}", f"there are: {', '.join(map(name, objects.nodes))}"
            )
        return [End(word, address, None, node) for address in own]
    address = _address(word)
    if address is not None:
        return [_end(objects, address)]
    full = _full(word)
    if full in objects.running:
        pod = objects.running[full]
        return [End(full, address, pod) for address in pod.addresses]
    for item in objects.pods:
        if f"{namespace(item)}/{name(item)}" == full and dig(item, "spec", "hostNetwork"):
            # It is its node, to policies.
            return [
                End(full, address, None, dig(item, "spec", "nodeName", default=""))
                for address in pod_addresses(item)
            ] or None
    return None


def _service(objects: Objects, word: str) -> Object | None:
    """The Service of a name or cluster IP."""
    address, full = _address(word), _full(word)
    for item in objects.services:
        if address is None and f"{namespace(item)}/{name(item)}" == full:
            return item
        if address is not None and str(address) in (dig(item, "spec", "clusterIPs", default=None) or ()):
            return item
    return None


def _endpoints(objects: Objects, service: Object, port: str, protocol: str) -> Iterator[Arrival]:
    title = f"Service {namespace(service)}/{name(service)}"
    ports = [item for item in service["spec"].get("ports") or () if item.get("protocol", "TCP") == protocol]
    wanted = [item for item in ports if port in ("", str(item["port"]), item.get("name"))]
    if not wanted:
        known = ", ".join(f"{item['port']}/{protocol}" for item in ports)
        raise ClusterError(
            f"{title} has no {protocol} port{f' {port}' if port else ''}", f"it has: {known}" if known else ""
        )
    slices = [
        item
        for item in objects.slices
        if namespace(item) == namespace(service)
        and labels(item).get("kubernetes.io/service-name") == name(service)
    ]
    found = False
    for name_of_port in (item.get("name") or "" for item in wanted):
        for item in slices:
            numbers = [
                each["port"] for each in item.get("ports") or () if (each.get("name") or "") == name_of_port
            ]
            for endpoint in item.get("endpoints") or () if numbers else ():
                for address in map(ip_address, endpoint.get("addresses") or ()):
                    found = True
                    yield _end(objects, address), numbers[0]
    if not found:
        raise ClusterError(f"{title} has no endpoints")


def _end(objects: Objects, address: Address) -> End:
    pod = objects.pod_at.get(address)
    shown = f"{pod} ({address})" if pod is not None else str(address)
    return End(shown, address, pod, objects.node_at.get(address, ""))


def _number(port: str, pod: Pod | None, protocol: str) -> int | None:
    if not port:
        return None
    if port.isascii() and port.isdigit() and 0 < int(port) <= LAST_PORT:
        return int(port)
    for item in pod.ports if pod is not None else ():
        if (item.name, item.protocol) == (port, PROTOCOLS[protocol]):
            return item.number
    raise ClusterError(
        f"there is no {protocol} port {port}", "write its number, or the name a container gives it"
    )


def _full(word: str) -> str:
    return word if "/" in word else f"default/{word}"


def _address(word: str) -> Address | None:
    try:
        return ip_address(word)
    except ValueError:
        return None


def _node_addresses(node: Object) -> list[Address]:
    return [ip_address(item["address"]) for item in dig(node, "status", "addresses", default=())
            if item.get("type") == "InternalIP"]  # fmt: skip
