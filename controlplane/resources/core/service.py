"""Service: the kind itself, its defaults and columns. What makes one valid is in `service_rules`, what a
write keeps of the old object in `service_update`. Addresses and node ports are allocated by the API
server, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.names import dns1035_label
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, UNKNOWN, format_labels, joined
from controlplane.resources.core import service_rules
from controlplane.resources.core.service_update import carry_over, synchronise_cluster_ips
from controlplane.resources.kind import Column, Kind, Subresource
from controlplane.resources.selectable import selectable_fields

AFFINITY_SECONDS = 10800
"""Default time a client sticks to its endpoint with `sessionAffinity: ClientIP`."""


def _default(service: Object) -> None:
    spec = service.get("spec")
    if spec is None:
        spec = service["spec"] = {}
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP" and _affinity_seconds(spec) is None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if not port.get("targetPort") and port.get("port") is not None:
            port["targetPort"] = port["port"]
    _default_policies(service, spec)


def _affinity_seconds(spec: Object) -> int | None:
    seconds: int | None = dig(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds")
    return seconds


def _default_policies(service: Object, spec: Object) -> None:
    if service_rules.externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and spec.get("internalTrafficPolicy") is None:
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True
    _default_ingress(service, service)
    service["status"] = service.get("status") or {}
    service["status"].setdefault("loadBalancer", {})


def _default_ingress(new: Object, old: Object) -> None:
    """An address of a load balancer leads to it directly (`VIP`) unless its provider says otherwise."""
    if dig(new, "spec", "type") == "LoadBalancer":
        for ingress in dig(new, "status", "loadBalancer", "ingress", default=()):
            if ingress.get("ip") and ingress.get("ipMode") is None:
                ingress["ipMode"] = "VIP"


def _prepare_create(service: Object) -> None:
    service["status"] = {"loadBalancer": {}}
    synchronise_cluster_ips(service["spec"], {})


def _warnings(new: Object, old: Object | None) -> Sequence[str]:
    """What a Service without a cluster IP of its own ignores."""
    spec = new.get("spec") or {}
    if not service_rules.is_headless(spec):
        return ()
    found = [
        f'spec.{field} is ignored when spec.clusterIP is "None"'
        for field in ("loadBalancerIP", "externalIPs")
        if spec.get(field)
    ]
    if spec.get("sessionAffinity") not in (None, "", "None"):
        found.append("spec.SessionAffinity is ignored for headless services")
    return found


def _row(service: Object, now: datetime) -> Sequence[object]:
    spec = service.get("spec") or {}
    cluster_ips = spec.get("clusterIPs") or [spec.get("clusterIP") or NONE]
    return (
        name(service),
        spec.get("type", ""),
        cluster_ips[0],
        external_ip(service),
        port_list(spec.get("ports") or ()) or NONE,
        age(service, now),
        format_labels(spec.get("selector")),
    )


def external_ip(service: Object) -> str:
    """The External-IP cell: external addresses, those of the load balancer, or the external name."""
    spec = service.get("spec") or {}
    external = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return joined(external) or NONE
        case "LoadBalancer":
            ingress = dig(service, "status", "loadBalancer", "ingress", default=())
            balanced = sorted({entry.get("ip") or entry.get("hostname") or "" for entry in ingress} - {""})
            return joined([*balanced, *external]) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case _:
            return UNKNOWN


def port_list(ports: Sequence[Object]) -> str:
    """`80/TCP,443:31443/TCP`: ports with their node ports."""
    return joined(
        f"{port.get('port')}:{port['nodePort']}/{port.get('protocol')}"
        if port.get("nodePort")
        else f"{port.get('port')}/{port.get('protocol')}"
        for port in ports
    )


SERVICE = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    namespaced=True,
    storage="services/specs",
    short_names=("svc",),
    categories=("all",),
    columns=(
        NAME,
        Column("Type", documents="io.k8s.api.core.v1.ServiceSpec.type"),
        Column("Cluster-IP", documents="io.k8s.api.core.v1.ServiceSpec.clusterIP"),
        Column("External-IP", documents="io.k8s.api.core.v1.ServiceSpec.externalIPs"),
        Column("Port(s)", documents="io.k8s.api.core.v1.ServiceSpec.ports"),
        AGE,
        Column("Selector", priority=1, documents="io.k8s.api.core.v1.ServiceSpec.selector"),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=carry_over,
    prepare_status=_default_ingress,
    validate=service_rules.validate,
    warnings=_warnings,
    validate_update=service_rules.validate_update,
    validate_status=service_rules.validate_status,
    validate_name=dns1035_label,
    status=True,
    create_on_update=True,
    subresources=(
        Subresource("proxy", "ServiceProxyOptions", ("create", "delete", "get", "patch", "update")),
    ),
    fields=selectable_fields("spec.clusterIP", "spec.type"),
)
