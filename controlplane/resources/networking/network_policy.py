"""NetworkPolicy: which traffic the pods it selects may have (pkg/apis/networking, v1.32)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import port_name
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, format_selector
from controlplane.resources.fieldpath import Literal, string_list
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field, is_cidr
from controlplane.resources.selectable import selectable_fields

POLICY_TYPES = ("Ingress", "Egress")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def _default(policy: Object) -> None:
    spec = policy["spec"] = policy.get("spec") or {}
    spec["podSelector"] = spec.get("podSelector") or {}
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            if port.get("protocol") is None:
                port["protocol"] = "TCP"
    if not spec.get("policyTypes"):
        spec["policyTypes"] = list(POLICY_TYPES if spec.get("egress") else POLICY_TYPES[:1])


def _validate(policy: Object) -> Sequence[Cause]:
    field = Field.root(policy)
    spec = field["spec"]
    validate_label_selector(spec["podSelector"])
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec[direction]:
            for port in rule["ports"]:
                _port(port)
            for peer in rule[peers]:
                _peer(peer)
    types = spec["policyTypes"]
    if len(types) > len(POLICY_TYPES):
        shown = string_list(types.value).replace("[]string", "[]networking.PolicyType")
        types.of(Literal(shown)).invalid("may not specify more than two policyTypes")
        return field.causes
    for type_ in types:
        type_.of(type_.value or " ").one_of(*POLICY_TYPES)
    return field.causes


def _port(port: Field) -> None:
    port["protocol"].one_of(*_PROTOCOLS)
    start, end = port["port"], port["endPort"]
    if isinstance(start.value, int):
        start.between(1, 65535)
        if end.value is not None:
            if end.value < start.value:
                end.invalid("must be greater than or equal to `port`")
            end.between(1, 65535)
    elif start.value is not None:
        if end.value is not None:
            end.invalid("may not be specified when `port` is non-numeric")
        for message in port_name(start.text):
            start.invalid(message)
    elif end.value is not None:
        end.invalid("may not be specified when `port` is not specified")


def _peer(peer: Field) -> None:
    given = [part for part in ("podSelector", "namespaceSelector", "ipBlock") if peer[part].value is not None]
    for part in given:
        if part == "ipBlock":
            _ip_block(peer[part])
        else:
            validate_label_selector(peer[part])
    if not given:
        peer.of(None).required("must specify a peer")
    elif len(given) > 1 and "ipBlock" in given:
        peer.forbidden("may not specify both ipBlock and another peer")


def _ip_block(block: Field) -> None:
    cidr = block["cidr"].required().cidr()
    if not is_cidr(cidr.text):
        return
    outer = ipaddress.ip_network(cidr.text, strict=False)
    for part in block["except"]:
        part.of(part.value or " ").cidr()
        if not is_cidr(part.text):
            continue
        inner = ipaddress.ip_network(part.text, strict=False)
        contained = inner.version == outer.version and inner.network_address in outer
        if not contained or outer.prefixlen >= inner.prefixlen:
            part.invalid("must be a strict subset of `cidr`")


def _row(policy: Object, now: datetime) -> Sequence[object]:
    return name(policy), format_selector(dig(policy, "spec", "podSelector", default={})), age(policy, now)


NETWORK_POLICY = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="NetworkPolicy",
    plural="networkpolicies",
    singular="networkpolicy",
    namespaced=True,
    short_names=("netpol",),
    columns=(
        NAME,
        Column("Pod-Selector", documents="io.k8s.api.networking.v1.NetworkPolicySpec.podSelector"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    generation=True,
    fields=selectable_fields(),
)
