"""The kinds of `discovery.k8s.io/v1`: EndpointSlice, a part of a Service's endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import label_value
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.addresses import reachable_ip
from controlplane.resources.cells import AGE, NAME, UNSET, first_few
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

ENDPOINTS_MAX = 1000
"""Endpoints one slice may hold; the controller puts 100 into each."""

_ADDRESSES_MAX = 100
_PORTS_MAX = 20000
_ZONE_HINTS_MAX = 8


def _default(endpoint_slice: Object) -> None:
    for port in endpoint_slice.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    if endpoint_slice.get("endpoints") is None:
        endpoint_slice["endpoints"] = []
    for endpoint in endpoint_slice["endpoints"]:
        endpoint.setdefault("conditions", {})


def _validate(endpoint_slice: Object) -> Sequence[Cause]:
    field = Field.root(endpoint_slice)
    address_type = field["addressType"]
    address_type.required().one_of("FQDN", "IPv4", "IPv6")
    field["endpoints"].max_items(ENDPOINTS_MAX)
    for endpoint in field["endpoints"]:
        _validate_endpoint(endpoint, address_type.text)
    _validate_ports(field["ports"])
    return field.causes


def _validate_endpoint(endpoint: Field, address_type: str) -> None:
    addresses = endpoint["addresses"]
    addresses.required("must contain at least 1 address").max_items(_ADDRESSES_MAX)
    for address in addresses:
        if address_type == "FQDN":
            address.dns_subdomain()
        elif address_type in ("IPv4", "IPv6"):
            _validate_address(address, address_type)
    endpoint["nodeName"].dns_subdomain()
    endpoint["hostname"].dns_label()
    endpoint["zone"].check(label_value)
    endpoint["deprecatedTopology"].labels()
    hints = endpoint["hints"]["forZones"]
    hints.max_items(_ZONE_HINTS_MAX)
    for hint in hints:
        hint["name"].required().check(label_value)
    hints.unique("name")


def _validate_address(address: Field, address_type: str) -> None:
    try:
        family = f"IPv{ipaddress.ip_address(address.text).version}"
    except ValueError:
        family = ""
    if family != address_type:
        address.invalid(f"must be a valid {address_type} address")
    else:
        reachable_ip(address)


def _validate_ports(ports: Field) -> None:
    ports.max_items(_PORTS_MAX)
    names: set[str] = set()
    for port in ports:
        port_name = port["name"]
        if port_name.text in names:
            port_name.of(port_name.text).duplicate()
        names.add(port_name.text)
        port_name.dns_label()
        port["protocol"].required().one_of("SCTP", "TCP", "UDP")
        if port["port"].present:
            port["port"].port_number()
        port["appProtocol"].qualified_name()


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["addressType"].unchanged(Field.root(old)["addressType"])
    return field.causes


def _row(endpoint_slice: Object, now: datetime) -> Sequence[object]:
    ports = [_port_text(port) for port in endpoint_slice.get("ports") or ()]
    addresses = [
        address
        for endpoint in endpoint_slice.get("endpoints") or ()
        for address in endpoint.get("addresses") or ()
    ]
    return (
        name(endpoint_slice),
        endpoint_slice.get("addressType", ""),
        first_few(ports) or UNSET,
        first_few(addresses) or UNSET,
        age(endpoint_slice, now),
    )


def _port_text(port: Object) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return port.get("name") or "*"


ENDPOINT_SLICE = Kind(
    group="discovery.k8s.io",
    version="v1",
    kind="EndpointSlice",
    plural="endpointslices",
    singular="endpointslice",
    namespaced=True,
    columns=(
        NAME,
        Column("AddressType", documents="io.k8s.api.discovery.v1.EndpointSlice.addressType"),
        Column("Ports", documents="io.k8s.api.discovery.v1.EndpointSlice.ports"),
        Column("Endpoints", documents="io.k8s.api.discovery.v1.EndpointSlice.endpoints"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    generation=True,
    fields=selectable_fields(),
)
