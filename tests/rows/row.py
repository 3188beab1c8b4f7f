"""One row of a file: words in, a `Row` with all symbols resolved out. Pure; faults name the row and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from netkit.proxy.addresses import Address, Family, addresses_of, host_port, parse_address
from netkit.proxy.endpoints import SERVICE_NAME_LABEL
from netkit.proxy.flows import Destination
from netkit.proxy.services import Protocol
from rows.configuration import checked, merged
from rows.errors import TableError
from rows.format import MODES, Cluster, Expectation, Origin, Outcome, Place, Row, Sticky, Target
from rows.manifests import node_addresses

ROW_FIELDS = (
    "name", "covers", "node", "settings", "from", "service", "to", "port", "protocol", "family", "expect",
    "masqueraded", "sticky", "modes",
)  # fmt: skip
_EXPECTATION_FIELDS = ("expect", "masqueraded", "sticky", "skip", "instead")
_STICKY = {False: Sticky.NO, True: Sticky.ALL, "each": Sticky.EACH}
_KINDS = {
    "clusterIP": Destination.CLUSTER_IP,
    "nodePort": Destination.NODE_PORT,
    "externalIP": Destination.EXTERNAL_IP,
    "loadBalancer": Destination.LOAD_BALANCER,
}
_PORT_SUFFIX = re.compile(r"^(?P<pod>\[[0-9a-fA-F:.]+\]|[^:]+):(?P<port>\d+)$")


@dataclass(frozen=True)
class NodeClient:
    """A pod that is no endpoint, written `pod on NODE`."""

    node: str

    @classmethod
    def parse(cls, text: str) -> NodeClient | None:
        found = re.fullmatch(r"pod on (\S+)", text)
        return cls(found[1]) if found else None


@dataclass
class _Words:
    """A row's words, and what they are understood against."""

    words: Mapping[str, Any]
    cluster: Cluster
    where: str

    def fault(self, field: str, problem: str) -> TableError:
        return TableError(f"{self.where}: {field}: {problem}")

    def text(self, field: str, default: str = "") -> str:
        value = self.words.get(field, default)
        if not isinstance(value, str):
            raise self.fault(field, f"{value!r} is not text")
        return value

    def one_of(self, field: str, allowed: Any, default: Any) -> Any:
        value = self.words.get(field, default)
        if value not in tuple(allowed):
            raise self.fault(field, f"{value!r} is not one of {', '.join(allowed)}")
        return value


def row_of(
    words: Mapping[str, Any],
    cluster: Cluster,
    settings: Mapping[str, Any],
    modes: Mapping[str, Any],
    where: str,
) -> Row:
    """The row that a mapping describes. `settings` and `modes` are the cluster's, which the row's own precede."""
    row = _Words(words, cluster, where)
    covers = words.get("covers", "")
    node = row.text("node", next(iter(cluster.nodes)))
    if node not in cluster.nodes:
        raise row.fault("node", f"there is no node {node}")
    own = words.get("settings", {})
    if not isinstance(own, dict):
        raise row.fault("settings", "must be a mapping")
    service = _service(row)
    family = Family(row.one_of("family", Family, _family_of(service)))
    port, protocol = _port(row, service)
    origin = _origin(row, node, family)
    targets = _targets(row, service, port, node, family, protocol)
    if origin.source is not None and origin.source.version != family.version:
        raise row.fault("from", f"{origin.source} is no address of {family}")
    port_name = str(port.get("name") or "") if isinstance(port, dict) else ""
    found = Row(
        cluster=cluster.name,
        name=row.text("name"),
        covers=", ".join(map(str, covers)) if isinstance(covers, list) else str(covers),
        node=node,
        settings=checked(merged(settings, own), where),
        origin=origin,
        service=(namespace(service), name(service)) if service is not None else None,
        service_port=port_name,
        targets=targets,
        protocol=protocol,
        family=family,
        expected={},
        written={"from": row.text("from"), "to": _written(words.get("to"), words.get("port"))},
    )
    return replace(found, expected=_expectations(row, found, modes))


def _written(to: Any, port: Any) -> str:
    text = ", ".join(map(str, to)) if isinstance(to, list) else str(to)
    return text if port is None else f"{text} port {port}"


def _service(row: _Words) -> Object | None:
    services = row.cluster.of_kind("Service")
    wanted = row.text("service")
    if not wanted:
        return services[0] if len(services) == 1 else None
    space, _, short = wanted.rpartition("/")
    for service in services:
        if name(service) == short and namespace(service) == (space or "default"):
            return service
    raise row.fault("service", f"there is no Service {wanted} in cluster {row.cluster.name}")


def _family_of(service: Object | None) -> Family:
    address = dig(service, "spec", "clusterIP", default="") if service else ""
    return Family.IPV6 if ":" in address else Family.IPV4


def _port(row: _Words, service: Object | None) -> tuple[Object | int | None, Protocol]:
    """The Service's port that is meant, or a number that it does not declare; and the protocol."""
    wanted = row.words.get("port")
    given = row.words.get("protocol")
    if given is not None and given not in tuple(Protocol):
        raise row.fault("protocol", f"{given!r} is not one of {', '.join(Protocol)}")
    ports = [
        port
        for port in dig(service, "spec", "ports", default=())
        if given is None or port["protocol"] == given
    ]
    if wanted is None:
        return (ports[0], Protocol(ports[0]["protocol"])) if ports else (None, Protocol(given or "TCP"))
    for port in ports:
        if wanted in (port.get("name") or None, port["port"]):
            return port, Protocol(port["protocol"])
    if not isinstance(wanted, int) or not 0 < wanted < 65536:
        raise row.fault("port", f"{wanted!r} is neither a number nor the name of a port of the Service")
    return wanted, Protocol(given or "TCP")


def _origin(row: _Words, node: str, family: Family) -> Origin:
    text, _, source_text = row.text("from").partition(" as ")
    if not text:
        raise row.fault("from", "says where connections come from, and is missing")
    source = _address(row, "from", source_text) if source_text else None
    nodes = row.cluster.nodes
    if text == "node" or text == "localhost" or text in nodes or text == "other-node":
        machine = text if text in nodes else node
        if text == "other-node":
            machine = next(other for other in nodes if other != node)
        if text == "localhost":
            source = ip_address("127.0.0.1" if family is Family.IPV4 else "::1")
        return Origin(Place.NODE, machine, source)
    if text == "outside":
        return Origin(Place.OUTSIDE, "outside", source)
    if client := NodeClient.parse(text):
        if client.node not in (*nodes, "node"):
            raise row.fault("from", f"there is no node {client.node}")
        return Origin(Place.POD, f"pod on {node if client.node == 'node' else client.node}", source)
    for pod in row.cluster.pods.values():
        if text == pod.name or text in map(str, pod.addresses):
            return Origin(Place.POD, pod.name, source)
    try:
        return Origin(Place.OUTSIDE, "outside", parse_address(text))
    except ValueError:
        raise row.fault(
            "from",
            f"{text!r} is not a pod, node, other-node, {', '.join(nodes)}, localhost, outside, "
            "'pod on NODE' or an address",
        ) from None


def _targets(
    row: _Words,
    service: Object | None,
    port: Object | int | None,
    node: str,
    family: Family,
    protocol: Protocol,
) -> tuple[Target, ...]:
    wanted = row.words.get("to")
    texts = wanted if isinstance(wanted, list) else [wanted]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise row.fault("to", f"{wanted!r} does not say what is called")
    return tuple(_target(row, text, service, port, node, family) for text in texts)


def _target(
    row: _Words, text: str, service: Object | None, port: Object | int | None, node: str, family: Family
) -> Target:
    kind_text, _, place = text.partition("@")
    kind = _KINDS.get(kind_text)
    if port is None:
        raise row.fault("port", "the Service has none, so the row must name one")
    number = port["port"] if isinstance(port, dict) else port
    if kind is None:
        return Target(_address(row, "to", text), number)
    if service is None:
        raise row.fault("service", f"must be named for 'to: {text}'")
    if kind is Destination.NODE_PORT:
        number = port.get("nodePort") if isinstance(port, dict) else port
        if not number:
            raise row.fault("to", f"Service {name(service)} has no node port")
        return Target(_node_address(row, place or "node", node, family), number, kind)
    if place:
        raise row.fault("to", f"only nodePort takes a place, not {text!r}")
    spec = service["spec"]
    ingress = dig(service, "status", "loadBalancer", "ingress", default=())
    addresses = {
        Destination.CLUSTER_IP: spec.get("clusterIPs") or (),
        Destination.EXTERNAL_IP: spec.get("externalIPs") or (),
        Destination.LOAD_BALANCER: [item["ip"] for item in ingress if item.get("ip")],
    }[kind]
    found = addresses_of(family, addresses)
    if not found:
        raise row.fault("to", f"Service {name(service)} has no {kind_text} of {family}")
    return Target(found[0], number, kind if isinstance(port, dict) else None)


def _node_address(row: _Words, place: str, node: str, family: Family) -> Address:
    nodes = row.cluster.nodes
    if place == "localhost":
        return ip_address("127.0.0.1" if family is Family.IPV4 else "::1")
    if place == "node":
        place = node
    if place == "other-node":
        place = next(other for other in nodes if other != node)
    if place in nodes:
        return next(address for address in node_addresses(nodes[place]) if address.version == family.version)
    return _address(row, "to", place)


def _address(row: _Words, field: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError:
        known = f"an address or one of {', '.join(_KINDS)}" if field == "to" else "an address"
        raise row.fault(field, f"{text!r} is not {known}") from None


def _expectations(row: _Words, found: Row, modes: Mapping[str, Any]) -> dict[str, Expectation]:
    own = row.words.get("modes", {})
    if not isinstance(own, dict):
        raise row.fault("modes", "must be a mapping")
    plain = {word: row.words[word] for word in ("expect", "masqueraded", "sticky") if word in row.words}
    expected = {}
    for mode in (*own, *modes):
        if mode not in MODES:
            raise row.fault("modes", f"{mode!r} is not one of {', '.join(MODES)}")
    for mode in MODES:
        mine, shared = own.get(mode) or {}, modes.get(mode) or {}
        for words in (mine, shared):
            if not isinstance(words, dict):
                raise row.fault(f"modes.{mode}", f"must be a mapping of {', '.join(_EXPECTATION_FIELDS)}")
            for word in words:
                if word not in _EXPECTATION_FIELDS:
                    raise row.fault(f"modes.{mode}", f"{word}: not one of {', '.join(_EXPECTATION_FIELDS)}")
        # A cluster's word for a mode precedes the row's plain word, the row's word for the mode precedes both.
        expected[mode] = _expectation(row, found, {**plain, **shared, **mine}, mine)
    return expected


def _expectation(row: _Words, found: Row, words: Mapping[str, Any], own: Mapping[str, Any]) -> Expectation:
    skip = words.get("skip", "")
    if not isinstance(skip, str):
        raise row.fault("skip", "says why, in words")
    sticky = words.get("sticky", False)
    if not isinstance(sticky, bool | str) or sticky not in _STICKY:
        raise row.fault("sticky", f"{sticky!r} is not one of true, false, each")
    masqueraded = words.get("masqueraded")
    if not isinstance(masqueraded, bool | None):
        raise row.fault("masqueraded", f"{masqueraded!r} is neither true nor false")
    expect = words.get("expect")
    instead = words.get("instead") or {}
    verdicts = [outcome for outcome in Outcome if outcome is not Outcome.ENDPOINTS]
    if not isinstance(instead, dict) or any(word not in verdicts for word in (*instead, *instead.values())):
        raise row.fault("instead", f"{instead!r} is not a mapping of verdicts to verdicts")
    if isinstance(expect, str) and "expect" not in own:
        expect = instead.get(expect, expect)
    if isinstance(expect, list) and expect:
        endpoints = frozenset(_endpoint(row, found, text) for text in expect)
        return Expectation(Outcome.ENDPOINTS, endpoints, masqueraded, _STICKY[sticky], skip)
    if expect not in verdicts:
        raise row.fault(
            "expect", f"{expect!r} is neither a list of endpoints nor one of {', '.join(verdicts)}"
        )
    return Expectation(Outcome(expect), skip=skip)


def _endpoint(row: _Words, found: Row, text: Any) -> str:
    """`address:port` of an endpoint written as a pod's name or an address, with or without a port."""
    if not isinstance(text, str):
        raise row.fault("expect", f"{text!r} is not the name or address of an endpoint")
    suffix = _PORT_SUFFIX.match(text)
    wanted = suffix["pod"].strip("[]") if suffix else text
    for pod in row.cluster.pods.values():
        if wanted != pod.name and wanted not in map(str, pod.addresses):
            continue
        address = next((item for item in pod.addresses if item.version == found.family.version), None)
        if wanted != pod.name:
            address = next(item for item in pod.addresses if str(item) == wanted)
        if address is None:
            raise row.fault("expect", f"pod {pod.name} has no address of {found.family}")
        return host_port(address, int(suffix["port"]) if suffix else _listening(row, found, address, text))
    raise row.fault("expect", f"no endpoint of cluster {row.cluster.name} is {wanted!r}")


def _listening(row: _Words, found: Row, address: Address, text: str) -> int:
    """The port of an endpoint written without one: that of the Service's port."""
    ports = {
        port["port"]
        for slice_ in row.cluster.of_kind("EndpointSlice")
        if found.service == (namespace(slice_), labels(slice_).get(SERVICE_NAME_LABEL))
        for port in slice_.get("ports") or ()
        if port["name"] == found.service_port and port["protocol"] == found.protocol
        for item in slice_["endpoints"]
        if address in addresses_of(found.family, item["addresses"])
    }
    if len(ports) != 1:
        raise row.fault("expect", f"{text!r} has {len(ports)} ports that fit, write it as {text}:PORT")
    return int(ports.pop())
