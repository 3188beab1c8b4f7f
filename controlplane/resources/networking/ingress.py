"""Ingress: HTTP rules that lead to Services (pkg/apis/networking, v1.32)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import (
    dns1035_label,
    dns1123_subdomain,
    port_name,
    wildcard_dns1123_subdomain,
)
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, joined
from controlplane.resources.fieldpath import Literal
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")

_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_NOT_AN_IP = "must be a DNS name, not an IP address"


def _default(ingress: Object) -> None:
    ingress["spec"] = ingress.get("spec") or {}
    status = ingress["status"] = ingress.get("status") or {}
    status.setdefault("loadBalancer", {})


def _validate(ingress: Object) -> Sequence[Cause]:
    field = Field.root(ingress)
    spec = field["spec"]
    if not len(spec["rules"]) and spec["defaultBackend"].value is None:
        spec.of(Literal("[]networking.IngressRule(nil)")).invalid(
            "either `defaultBackend` or `rules` must be specified"
        )
    if spec["defaultBackend"].value is not None:
        _backend(spec["defaultBackend"])
    for rule in spec["rules"]:
        _rule(rule)
    for tls in spec["tls"]:
        for host in tls["hosts"]:
            _host(host)
        tls["secretName"].dns_subdomain()
    class_name = spec["ingressClassName"]
    if class_name.value is not None:
        for message in dns1123_subdomain(class_name.text):
            class_name.invalid(message)
    return field.causes


def _validate_create(ingress: Object) -> Sequence[Cause]:
    """The old annotation and the field may not contradict each other in a new object."""
    old_style, class_name = (
        dig(ingress, "metadata", "annotations", default={}).get(CLASS_ANNOTATION),
        dig(ingress, "spec", "ingressClassName"),
    )
    if old_style is None or class_name is None or old_style == class_name:
        return ()
    place = Field(old_style, f"annotations.{CLASS_ANNOTATION}", [])
    return place.invalid("must match `ingressClassName` when both are specified").causes


def _warnings(new: Object, old: Object | None) -> Sequence[str]:
    annotated = CLASS_ANNOTATION in dig(new, "metadata", "annotations", default={})
    if old is None and annotated and dig(new, "spec", "ingressClassName") is None:
        return [
            f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
        ]
    return ()


def _host(host: Field) -> None:
    for message in (wildcard_dns1123_subdomain if "*" in host.text else dns1123_subdomain)(host.text):
        host.invalid(message)


def _rule(rule: Field) -> None:
    host = rule["host"]
    if host.present:
        if _is_address(host.text):
            host.invalid(_NOT_AN_IP)
        _host(host)
    http = rule["http"]
    if http.value is None:
        return
    http["paths"].required()
    for path in http["paths"]:
        _path(path)


def _path(path: Field) -> None:
    path_type, place = path["pathType"], path["path"]
    if path_type.value is None:
        path_type.required("pathType must be specified")
        return
    if path_type.value in ("Exact", "Prefix"):
        if not place.text.startswith("/"):
            place.invalid("must be an absolute path")
        for part in _BAD_SEQUENCES:
            if part in place.text:
                place.invalid(f"must not contain '{part}'")
        for ending in _BAD_ENDINGS:
            if place.text.endswith(ending):
                place.invalid(f"cannot end with '{ending}'")
    elif path_type.value == "ImplementationSpecific":
        if place.present and not place.text.startswith("/"):
            place.invalid("must be an absolute path")
    else:
        path_type.one_of(*PATH_TYPES)
    _backend(path["backend"])


def _backend(backend: Field) -> None:
    service, resource = backend["service"], backend["resource"]
    nothing = backend.of("")
    if service.value is not None and resource.value is not None:
        nothing.invalid("cannot set both resource and service backends")
    elif resource.value is not None:
        typed_reference(resource)
    elif service.value is not None:
        service["name"].required().check(dns1035_label)
        _backend_port(nothing, service["port"])
    else:
        nothing.invalid("resource or service backend is required")


def _backend_port(backend: Field, port: Field) -> None:
    if port["name"].present and port["number"].value:
        backend.invalid("cannot set both port name & port number")
    elif port["name"].present:
        port["name"].check(port_name)
    elif port["number"].value:
        port["number"].between(1, 65535)
    else:
        backend.required("port name or number is required")


def typed_reference(reference: Field) -> None:
    """A reference to any object, by API group, kind and name."""
    reference["apiGroup"].dns_subdomain()
    reference["kind"].required().path_segment()
    reference["name"].required().path_segment()


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    for entry in field["status"]["loadBalancer"]["ingress"]:
        entry["ip"].ip()
        hostname = entry["hostname"].dns_subdomain()
        if hostname.present and _is_address(hostname.text):
            hostname.invalid(_NOT_AN_IP)
    return field.causes


def _prepare_status(new: Object, old: Object) -> None:
    status = new["status"] = new.get("status") or {}
    status.setdefault("loadBalancer", {})


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _row(ingress: Object, now: datetime) -> Sequence[object]:
    spec = ingress.get("spec") or {}
    class_name = spec.get("ingressClassName")
    balanced = {
        entry.get("ip") or entry.get("hostname") or ""
        for entry in dig(ingress, "status", "loadBalancer", "ingress", default=())
    }
    return (
        name(ingress),
        NONE if class_name is None else class_name,
        _hosts(spec.get("rules") or ()),
        joined(sorted(balanced - {""})),
        "80, 443" if spec.get("tls") else "80",
        age(ingress, now),
    )


def _hosts(rules: Sequence[Object], maximum: int = 3) -> str:
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == maximum
        if not more and rule.get("host"):
            hosts.append(rule["host"])
    text = joined(hosts) or "*"
    return f"{text} + {len(rules) - maximum} more..." if more else text


INGRESS = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="Ingress",
    plural="ingresses",
    singular="ingress",
    namespaced=True,
    storage="ingress",
    short_names=("ing",),
    columns=(
        NAME,
        Column(
            "Class",
            description="The name of the IngressClass resource that should be used for additional configuration",
        ),
        Column(
            "Hosts", description="Hosts that incoming requests are matched against before the ingress rule"
        ),
        Column("Address", description="Address is a list containing ingress points for the load-balancer"),
        Column("Ports", description="Ports of TLS configurations that open"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_create=_validate_create,
    warnings=_warnings,
    prepare_status=_prepare_status,
    validate_status=_validate_status,
    status=True,
    generation=True,
    fields=selectable_fields(),
)
