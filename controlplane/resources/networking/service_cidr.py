"""ServiceCIDR and IPAddress: the ranges Services get their addresses from, and one object per address in use
(pkg/apis/networking, v1.32).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, joined
from controlplane.resources.fieldpath import string_list
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import IMMUTABLE, INVALID_IP, Field, is_cidr
from controlplane.resources.selectable import selectable_fields

DEFAULT_NAME = "kubernetes"
"""The ServiceCIDR with the ranges the API server was started with."""
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY = "Ready"
FAMILY_LABEL = "ipaddress.kubernetes.io/ip-family"
MANAGED_BY_LABEL = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"

_FAMILIES = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"


def _default_cidr(service_cidr: Object) -> None:
    service_cidr["spec"] = service_cidr.get("spec") or {}
    service_cidr["status"] = service_cidr.get("status") or {}


def _validate_cidr(service_cidr: Object) -> Sequence[Cause]:
    field = Field.root(service_cidr)
    cidrs = field["spec"]["cidrs"]
    if not len(cidrs):
        cidrs.of(None).required("at least one CIDR required")
    elif len(cidrs) > 2:
        cidrs.of(string_list(cidrs.value)).invalid("may only hold up to 2 values")
    else:
        for cidr in cidrs:
            _canonical_cidr(cidr)
        versions = [ipaddress.ip_network(text, strict=False).version for text in cidrs.value if is_cidr(text)]
        if len(versions) == 2 and versions[0] == versions[1]:
            cidrs.invalid(_FAMILIES)
    return field.causes


def _canonical_cidr(cidr: Field) -> None:
    cidr.of(cidr.value or " ").cidr()
    if is_cidr(cidr.text):
        network = ipaddress.ip_network(cidr.text, strict=False)
        if str(network.network_address) != cidr.text.partition("/")[0]:
            cidr.invalid(f'must be in canonical form ("{network}")')


def _validate_cidr_update(new: Object, old: Object) -> Sequence[Cause]:
    """A range stays; a second one of the other family may be added."""
    field = Field.root(new)
    cidrs, before = field["spec"]["cidrs"], dig(old, "spec", "cidrs", default=[])
    if len(cidrs) == len(before) or (len(before), len(cidrs)) == (1, 2):
        for cidr, text in zip(cidrs, before, strict=False):
            if cidr.value != text:
                cidr.invalid(IMMUTABLE)
    else:
        cidrs.of(string_list(cidrs.value or None)).invalid(IMMUTABLE)
    return field.causes


def _cidr_row(service_cidr: Object, now: datetime) -> Sequence[object]:
    return (
        name(service_cidr),
        joined(dig(service_cidr, "spec", "cidrs", default=())),
        age(service_cidr, now),
    )


def address_name(text: str) -> list[str]:
    """The name of an IPAddress is the address in its canonical form."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [INVALID_IP]
    if "%" in text:
        return [INVALID_IP]
    return [] if str(address) == text else ["must be in canonical form (" + f'"{address}"' + ")"]


def _default_address(address: Object) -> None:
    address["spec"] = address.get("spec") or {}


def _validate_address(address: Object) -> Sequence[Cause]:
    field = Field.root(address)
    parent = field["spec"]["parentRef"]
    if parent.value is None:
        parent.required()
        return field.causes
    parent["group"].dns_subdomain()
    parent["resource"].required().path_segment()
    parent["name"].required().path_segment()
    parent["namespace"].path_segment()
    return field.causes


def _validate_address_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["spec"]["parentRef"].unchanged(Field.root(old)["spec"]["parentRef"])
    return field.causes


def _address_row(address: Object, now: datetime) -> Sequence[object]:
    parent = dig(address, "spec", "parentRef")
    if not parent:
        return name(address), NONE
    group = f".{parent['group']}" if parent.get("group") else ""
    namespace = f"/{parent['namespace']}" if parent.get("namespace") else ""
    return name(
        address
    ), f"{(parent.get('resource', '') + group).lower()}{namespace}/{parent.get('name', '')}"


SERVICE_CIDR = Kind(
    group="networking.k8s.io",
    version="v1beta1",
    kind="ServiceCIDR",
    plural="servicecidrs",
    singular="servicecidr",
    namespaced=False,
    columns=(
        NAME,
        Column("CIDRs", documents="io.k8s.api.networking.v1beta1.ServiceCIDRSpec.cidrs"),
        AGE,
    ),
    row=_cidr_row,
    default=_default_cidr,
    validate=_validate_cidr,
    validate_update=_validate_cidr_update,
    status=True,
    fields=selectable_fields(),
)

IP_ADDRESS = Kind(
    group="networking.k8s.io",
    version="v1beta1",
    kind="IPAddress",
    plural="ipaddresses",
    singular="ipaddress",
    namespaced=False,
    short_names=("ip",),
    columns=(NAME, Column("ParentRef", documents="io.k8s.api.networking.v1beta1.IPAddressSpec.parentRef")),
    row=_address_row,
    default=_default_address,
    validate=_validate_address,
    validate_update=_validate_address_update,
    validate_name=address_name,
    generate_name=False,
    fields=selectable_fields(),
)
