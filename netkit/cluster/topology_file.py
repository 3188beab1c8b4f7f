"""Reads a topology: from a YAML file, from the ready-made ones, or from a cluster's configuration.

Its form is in `topologies/schema.json`. Reads no other system state than the file it is given.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from netkit.cluster import topologies
from netkit.cluster.errors import ConfigError
from netkit.cluster.topology import (
    CLIENT,
    CONTROL_PLANE,
    HOST,
    Interface,
    Machine,
    Role,
    Segment,
    Topology,
    Zone,
)
from netkit.cluster.topology_check import check
from netkit.cluster.topology_fields import Fault, Part, TopologyError
from netkit.fabric.spec import MIN_MTU, LinkProperties

API_VERSION: Final = "kube-netkit/v1alpha1"
KIND: Final = "Topology"
_MAX_ASN: Final = 4294967294


def ready_made() -> list[str]:
    """Names of the topologies that come with the toolkit."""
    names = [entry.name for entry in resources.files(topologies).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def schema() -> dict[str, Any]:
    """The form of a topology file as JSON Schema."""
    found: dict[str, Any] = json.loads(resources.files(topologies).joinpath("schema.json").read_text("utf-8"))
    return found


def find(wanted: str) -> Topology:
    """The ready-made topology of that name, else the one in that file, checked. Raises ConfigError, TopologyError."""
    if wanted in ready_made():
        text = resources.files(topologies).joinpath(f"{wanted}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(wanted).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a text file"
            raise ConfigError(
                f"{wanted}: {why}", f"ready-made topologies: {', '.join(ready_made())}"
            ) from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{wanted}: not valid YAML{where}: {getattr(error, 'problem', error)}") from None
    return parse(document, Path(wanted).stem)


def parse(document: object, name: str = "") -> Topology:
    """The topology that a parsed document describes, checked. Raises TopologyError with all faults."""
    faults: list[Fault] = []
    found = _read(Part(document, "", faults), name)
    # What does not have the form would be told of twice.
    faults += [] if faults else check(found)
    if faults:
        raise TopologyError(faults, found.name)
    return found


def _read(top: Part, name: str) -> Topology:
    for key, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if top.text(key, value) != value:
            top.wrong(key, f"must be {value}")
    name = top.text("name", name)
    segments = tuple(_segment(part) for part in top.parts("segments"))
    zones = tuple(_zone(part) for part in top.parts("zones", "name"))
    routers = [_machine(part, Role.ROUTER) for part in top.parts("routers")]
    alone = segments[0].name if len(segments) == 1 else ""
    nodes = [_machine(part, Role.NODE, alone) for part in top.parts("nodes")]
    # A segment that there is not is told of where it is named, not where it would be taken over.
    known = [segment.name for segment in segments]
    named = [each.segment for node in nodes for each in node.interfaces[:1] if each.segment in known]
    first = (*named, *known, "")[0]
    control = _single(top, "controlPlane", Role.CONTROL_PLANE, CONTROL_PLANE, first)
    near = control.interfaces[0].segment if control.interfaces[0].segment in known else first
    host = _single(top, "host", Role.HOST, HOST, near)
    given = top.has("clients") or top.take("clients") is not None
    clients = [_machine(part, Role.CLIENT, near) for part in top.parts("clients")]
    if not clients and not given:
        clients = [Machine(CLIENT, Role.CLIENT, (Interface(near),))]
    top.finish()
    if not segments:
        top.wrong("segments", "at least one is needed")
    if not nodes:
        top.wrong("nodes", "at least one is needed")
    return Topology(segments, (*routers, host, control, *clients, *nodes), zones, name)


def _segment(part: Part) -> Segment:
    found = Segment(
        part.text("name", needed=True), part.network("subnet"), part.number("mtu", 1500, MIN_MTU, 65535)
    )
    part.finish()
    return found


def _zone(part: Part) -> Zone:
    found = Zone(part.text("name", needed=True), part.text("region"))
    part.finish()
    return found


def _machine(part: Part, role: Role, default: str = "") -> Machine:
    name = part.text("name", needed=True)
    interfaces = _interfaces(part, default)
    labels: tuple[tuple[str, str], ...] = ()
    zone, asn = "", 0
    if role is Role.NODE:
        zone, labels = part.text("zone"), part.labels("labels")
    if role is Role.ROUTER:
        asn = part.number("asn", 0, 1, _MAX_ASN)
    part.finish()
    return Machine(name, role, interfaces, zone, labels, asn)


def _single(top: Part, key: str, role: Role, name: str, default: str) -> Machine:
    """The control plane or the host: one machine whose name is fixed, on a segment even if the file is silent."""
    value = top.take(key)
    part = Part({"segment": value} if isinstance(value, str) else value, key, top.faults)
    found = Machine(name, role, (_interface(part, default),))
    part.finish()
    return found


def _interfaces(part: Part, default: str) -> tuple[Interface, ...]:
    if not part.has("interfaces"):
        part.take("interfaces")
        if not default:
            part.wrong("interfaces", "is needed where there are several segments")
            return ()
        return (Interface(default),)
    found = []
    for each in part.parts("interfaces", "segment"):
        found.append(_interface(each))
        each.finish()
    if not found:
        part.wrong("interfaces", "at least one is needed")
    return tuple(found)


def _interface(part: Part, default: str | None = None) -> Interface:
    """`default` is the segment where none is named; "" for one that is not known because of another fault."""
    segment = part.text("segment", default or "", needed=default is None)
    address = part.address("address")
    link = part.part("link")
    properties = LinkProperties(
        mtu=link.number("mtu", 0, MIN_MTU, 65535),
        rate=link.rate("rate"),
        delay=link.seconds("delay"),
        jitter=link.seconds("jitter"),
        loss=link.share("loss"),
    )
    link.finish()
    return Interface(segment, address, properties)
