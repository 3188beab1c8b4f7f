"""Endpoints: the older list of a Service's addresses, one subset for each distinct set of ports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.addresses import reachable_ip
from controlplane.resources.cells import AGE, NAME, NONE, first_few
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields


def _default(endpoints: Object) -> None:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def _validate(endpoints: Object) -> Sequence[Cause]:
    field = Field.root(endpoints)
    for subset in field["subsets"]:
        addresses, not_ready, ports = subset["addresses"], subset["notReadyAddresses"], subset["ports"]
        if not len(addresses) and not len(not_ready):
            subset.of(None).required("must specify `addresses` or `notReadyAddresses`")
        for address in (*addresses, *not_ready):
            reachable_ip(address["ip"])
            address["hostname"].dns_label()
            address["nodeName"].dns_subdomain()
        several = len(ports) > 1
        for port in ports:
            port["name"].dns_label()
            if several:
                port["name"].required()
            port["port"].port_number()
            port["protocol"].required().one_of("SCTP", "TCP", "UDP")
            port["appProtocol"].qualified_name()
    return field.causes


def _row(endpoints: Object, now: datetime) -> Sequence[object]:
    return name(endpoints), format_endpoints(endpoints), age(endpoints, now)


def format_endpoints(endpoints: Object) -> str:
    """The ready `address:port` pairs, the first three of them; bare addresses of subsets without ports."""
    subsets = endpoints.get("subsets") or ()
    if not subsets:
        return NONE
    listed: list[str] = []
    for subset in subsets:
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            listed += addresses
        for port in ports:
            listed += [_host_port(address, port.get("port")) for address in addresses]
    return first_few(listed)


def _host_port(address: str, port: object) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


ENDPOINTS = Kind(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    singular="endpoints",
    namespaced=True,
    storage="services/endpoints",
    short_names=("ep",),
    columns=(NAME, Column("Endpoints", documents="io.k8s.api.core.v1.Endpoints.subsets"), AGE),
    row=_row,
    default=_default,
    validate=_validate,
    create_on_update=True,
    fields=selectable_fields(),
)
