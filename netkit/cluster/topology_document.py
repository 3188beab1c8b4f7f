"""Writes a topology as the document it could be read from. Pure; `topology_file` is the other direction."""

from __future__ import annotations

from typing import Any

from netkit.cluster.topology import Interface, Machine, Role, Topology
from netkit.fabric.spec import LinkProperties

_LISTS = {Role.ROUTER: "routers", Role.CLIENT: "clients", Role.NODE: "nodes"}


def document(topology: Topology) -> dict[str, Any]:
    """The document; `topology_file.parse` makes the same topology of it."""
    machines: dict[str, list[dict[str, Any]]] = {key: [] for key in _LISTS.values()}
    found: dict[str, Any] = {
        "apiVersion": "kube-netkit/v1alpha1",
        "kind": "Topology",
        "name": topology.name,
        "segments": [
            _given(name=each.name, subnet=str(each.subnet) if each.subnet else "", mtu=each.mtu)
            for each in topology.segments
        ],
        "zones": [_given(name=zone.name, region=zone.region) for zone in topology.zones],
    }
    for machine in topology.machines:
        if machine.role in _LISTS:
            machines[_LISTS[machine.role]].append(_machine(machine))
        else:
            key = "host" if machine.role is Role.HOST else "controlPlane"
            found[key] = _interface(machine.interfaces[0])
    return {**found, **machines}


def properties(link: LinkProperties) -> dict[str, Any]:
    """A cable's properties in the file's words; what it does not do is left out."""
    return _given(
        mtu=link.mtu,
        rate=_rate(link.rate),
        delay=_time(link.delay),
        jitter=_time(link.jitter),
        loss=f"{link.loss * 100:.10g}%" if link.loss else "",
    )


def _machine(machine: Machine) -> dict[str, Any]:
    return _given(
        name=machine.name,
        zone=machine.zone,
        labels=dict(machine.labels),
        asn=machine.asn,
        interfaces=[_interface(each) for each in machine.interfaces],
    )


def _interface(interface: Interface) -> dict[str, Any]:
    address = str(interface.address) if interface.address else ""
    return _given(segment=interface.segment, address=address, link=properties(interface.link))


def _rate(bits: int) -> str:
    for unit, scale in (("g", 10**9), ("m", 10**6), ("k", 10**3)):
        if bits and bits % scale == 0:
            return f"{bits // scale}{unit}bit"
    return f"{bits}bit" if bits else ""


def _time(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{seconds * 1000:.10g}ms"


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
