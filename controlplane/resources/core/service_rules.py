"""What makes a Service valid: upstream's `ValidateService` and `ValidateServiceUpdate` (v1.32). Pure.

Numbers and addresses that the server allocates may still be missing when these rules run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.resources.addresses import reachable_ip
from controlplane.resources.fieldpath import Literal, duplicate, quoted, string_list
from controlplane.resources.rules import IMMUTABLE, INVALID_CIDR, Field, is_cidr

KUBELET_PORT = 10250
AFFINITY_SECONDS_MAX = 86400
NO_CLUSTER_IP = "None"
SOURCE_RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_MAY_NOT_CHANGE = "may not change once set"


def externally_accessible(spec: Object) -> bool:
    """Whether clients outside the cluster can reach it, so that `externalTrafficPolicy` has a meaning."""
    return spec.get("type") in ("NodePort", "LoadBalancer") or (
        spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs"))
    )


def needs_cluster_ip(spec: Object) -> bool:
    return spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")


def needs_node_port(spec: Object) -> bool:
    if spec.get("type") == "NodePort":
        return True
    return spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False


def needs_health_check_node_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_headless(spec: Object) -> bool:
    return spec.get("clusterIP") == NO_CLUSTER_IP or (spec.get("clusterIPs") or [""])[0] == NO_CLUSTER_IP


def validate(service: Object) -> Sequence[Cause]:
    field = Field.root(service)
    spec = field["spec"]
    value: Object = spec.value or {}
    if not is_headless(value) and value.get("type") != "ExternalName":
        spec["ports"].required()
    _by_type(spec, value)
    _ports(spec["ports"])
    spec["selector"].labels()
    _session_affinity(spec)
    _cluster_ips(spec, value)
    for address in spec["externalIPs"]:
        reachable_ip(address)
    spec["type"].required().one_of(*_TYPES)
    _node_ports(spec, value)
    _load_balancer(spec, value)
    _source_ranges_annotation(field["metadata"]["annotations"], value)
    _traffic_policies(spec, value)
    return field.causes


def _by_type(spec: Field, value: Object) -> None:
    match value.get("type"):
        case "LoadBalancer":
            for port in spec["ports"]:
                if port["port"].value == KUBELET_PORT:
                    port.of(KUBELET_PORT).invalid(
                        f"may not expose port {KUBELET_PORT} externally since it is used by kubelet"
                    )
            if is_headless(value):
                _headless(spec).invalid("may not be set to 'None' for LoadBalancer services")
        case "NodePort":
            if is_headless(value):
                _headless(spec).invalid("may not be set to 'None' for NodePort services")
        case "ExternalName":
            for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec[name].absent("may not be set for ExternalName services")
            external = spec["externalName"]
            # The name may end in a dot that makes it absolute.
            external.of(external.text.removesuffix(".")).required().dns_subdomain()


def _headless(spec: Field) -> Field:
    return Field(NO_CLUSTER_IP, f"{spec.path}.clusterIPs[0]", spec.causes)


def _ports(ports: Field) -> None:
    several = len(ports) > 1
    names: set[str] = set()
    for port in ports:
        name = port["name"]
        if several:
            name.required()
        if name.present:
            name.dns_label()
            if name.text in names:
                name.duplicate()
            names.add(name.text)
        port["port"].port_number()
        port["protocol"].required().one_of("SCTP", "TCP", "UDP")
        port["targetPort"].port_number_or_name()
        port["appProtocol"].qualified_name()


def _session_affinity(spec: Field) -> None:
    affinity, config = spec["sessionAffinity"], spec["sessionAffinityConfig"]
    affinity.required().one_of("ClientIP", "None")
    if affinity.value == "None":
        config.absent("must not be set when session affinity is None")
    elif affinity.value == "ClientIP":
        timeout = config["clientIP"]["timeoutSeconds"]
        timeout.required("when session affinity type is ClientIP")
        if isinstance(timeout.value, int) and not 0 < timeout.value <= AFFINITY_SECONDS_MAX:
            timeout.invalid(f"must be greater than 0 and less than {AFFINITY_SECONDS_MAX}")


def _cluster_ips(spec: Field, value: Object) -> None:
    ips, ip = spec["clusterIPs"], spec["clusterIP"]
    shown_ips = ips.of(string_list(ips.value or None))
    if ip.present and len(ips) and ips.value[0] != ip.value:
        shown_ips.invalid("first value must match `clusterIP`")
    elif not ip.present and len(ips):
        shown_ips.invalid("must be empty when `clusterIP` is not specified")
    if len(ips) > 2:
        shown_ips.invalid("may only hold up to 2 values")
    known = len(spec.causes)
    for position, address in enumerate(ips):
        if address.value == NO_CLUSTER_IP:
            if position or len(ips) > 1:
                shown_ips.invalid("'None' must be the first and only value")
        else:
            address.ip()
    if len(spec.causes) == known and not is_headless(value):
        _families_of_ips(ips, shown_ips, spec["ipFamilies"].value or [])
    spec["ipFamilyPolicy"].one_of("PreferDualStack", "RequireDualStack", "SingleStack")
    families = spec["ipFamilies"]
    if len(families) > 2:
        families.invalid("may only hold up to 2 values")
    seen: set[str] = set()
    for family in families:
        family.one_of("IPv4", "IPv6")
        if family.text in seen:
            family.duplicate()
        seen.add(family.text)


def _families_of_ips(ips: Field, shown_ips: Field, families: Sequence[str]) -> None:
    """One address of each family, in the order of the families."""
    versions = [ipaddress.ip_address(address.text).version for address in ips]
    if len(versions) > 1 and len(set(versions)) != len(versions):
        shown_ips.invalid("may specify no more than one IP for each IP family")
    for position, (address, version, family) in enumerate(zip(ips, versions, families, strict=False)):
        if family in ("IPv4", "IPv6") and family != f"IPv{version}":
            address.invalid(f"expected an {family} value as indicated by `ipFamilies[{position}]`")


def _node_ports(spec: Field, value: Object) -> None:
    if value.get("type") == "ClusterIP":
        for port in spec["ports"]:
            port["nodePort"].absent("may not be used when `type` is 'ClusterIP'")
    node_ports: set[tuple[str, int]] = set()
    ports: set[tuple[str, int]] = set()
    for port in spec["ports"]:
        protocol = port["protocol"].text
        node_port = port["nodePort"]
        if node_port.value:
            if (protocol, node_port.value) in node_ports:
                node_port.duplicate()
            node_ports.add((protocol, node_port.value))
        number = port["port"].value
        if (protocol, number) in ports:
            port.fail(duplicate(port.path, _go_service_port(protocol, number)))
        ports.add((protocol, number))


def _go_service_port(protocol: str, number: int) -> Literal:
    """How Go prints the struct upstream blames for a repeated port."""
    return Literal(
        f'core.ServicePort{{Name:"", Protocol:{quoted(protocol)}, AppProtocol:(*string)(nil), Port:{number}, '
        'TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}'
    )


def _load_balancer(spec: Field, value: Object) -> None:
    balanced = value.get("type") == "LoadBalancer"
    allocate = spec["allocateLoadBalancerNodePorts"]
    if balanced:
        allocate.required()
    elif allocate.value is not None:
        allocate.forbidden("may only be used when `type` is 'LoadBalancer'")
    load_balancer_class = spec["loadBalancerClass"]
    if not balanced:
        load_balancer_class.absent("may only be used when `type` is 'LoadBalancer'")
    load_balancer_class.qualified_name()
    spec["loadBalancerIP"].ip()
    ranges = spec["loadBalancerSourceRanges"]
    if not balanced:
        ranges.absent("may only be used when `type` is 'LoadBalancer'")
    for source in ranges:
        if not is_cidr(source.text.strip()):
            source.invalid(INVALID_CIDR)


def _source_ranges_annotation(annotations: Field, spec: Object) -> None:
    """The older form of `loadBalancerSourceRanges`."""
    text = (annotations.value or {}).get(SOURCE_RANGES_ANNOTATION)
    if text is None:
        return
    place = Field(text, f"{annotations.path}[{SOURCE_RANGES_ANNOTATION}]", annotations.causes)
    if spec.get("type") != "LoadBalancer":
        place.forbidden("may only be used when `type` is 'LoadBalancer'")
    if text.strip() and not all(is_cidr(part.strip()) for part in text.strip().split(",")):
        place.invalid("must be a comma separated list of CIDRs e.g. 192.168.0.0/16,10.0.0.0/8")


def _traffic_policies(spec: Field, value: Object) -> None:
    external, check_port = spec["externalTrafficPolicy"], spec["healthCheckNodePort"]
    if externally_accessible(value):
        external.required().one_of("Cluster", "Local")
    elif external.present:
        external.invalid("may only be set for externally-accessible services")
    if check_port.value and not needs_health_check_node_port(value):
        check_port.invalid(
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        )
    elif check_port.value:
        check_port.port_number()
    internal = spec["internalTrafficPolicy"]
    if value.get("type") != "ExternalName":
        internal.required()
    internal.one_of("Cluster", "Local")
    spec["trafficDistribution"].one_of("PreferClose")


def validate_update(new: Object, old: Object) -> Sequence[Cause]:
    """Addresses, once allocated, stay until the Service stops needing any."""
    field = Field.root(new)
    spec = field["spec"]
    before: Object = old.get("spec") or {}
    after: Object = spec.value or {}
    if (
        needs_cluster_ip(before)
        and needs_cluster_ip(after)
        and not (is_headless(before) and is_headless(after))
    ):
        _cluster_ips_stay(spec, before)
        _primary_family_stays(spec, before)
    if before.get("type") == after.get("type") == "LoadBalancer" and before.get(
        "loadBalancerClass"
    ) != after.get("loadBalancerClass"):
        spec["loadBalancerClass"].invalid(_MAY_NOT_CHANGE)
    checked = needs_health_check_node_port(before) and needs_health_check_node_port(after)
    if checked and before.get("healthCheckNodePort") != after.get("healthCheckNodePort"):
        spec["healthCheckNodePort"].of(after.get("healthCheckNodePort") or 0).invalid(IMMUTABLE)
    return field.causes


def _cluster_ips_stay(spec: Field, before: Object) -> None:
    """The primary address never changes; a secondary one may come, or go with `SingleStack`."""
    old, new = before.get("clusterIPs") or [], spec["clusterIPs"].value or []
    shown = string_list(new or None)

    def blame(position: int, detail: str) -> None:
        Field(shown, f"{spec.path}.clusterIPs[{position}]", spec.causes).invalid(detail)

    if old and not new:
        blame(0, "primary clusterIP can not be unset")
    for position, (was, now) in enumerate(zip(old, new, strict=False)):
        if was != now:
            blame(position, _MAY_NOT_CHANGE)
    if len(old) > len(new) == 1 and spec["ipFamilyPolicy"].value != "SingleStack":
        spec["ipFamilyPolicy"].invalid("must be set to 'SingleStack' when releasing the secondary clusterIP")


def _primary_family_stays(spec: Field, before: Object) -> None:
    old, new = before.get("ipFamilies") or [], spec["ipFamilies"].value or []
    place = Field(string_list(new or None), f"{spec.path}.ipFamilies[0]", spec.causes)
    if old and not new:
        place.invalid("primary ipFamily can not be unset")
    elif old and old[0] != new[0]:
        place.invalid("primary ipFamily can not be changed")


def validate_status(new: Object, old: Object) -> Sequence[Cause]:
    """The load balancer's addresses."""
    field = Field.root(new)
    ingresses = field["status"]["loadBalancer"]["ingress"]
    if len(ingresses) and (new.get("spec") or {}).get("type") != "LoadBalancer":
        ingresses.forbidden("may only be used when `spec.type` is 'LoadBalancer'")
    for ingress in ingresses:
        ingress["ip"].ip()
        ingress["ipMode"].one_of("Proxy", "VIP")
        if ingress["ipMode"].present and not ingress["ip"].present:
            ingress["ipMode"].forbidden("may not be specified when `ip` is not set")
        elif ingress["ip"].present:
            ingress["ipMode"].required("must be specified when `ip` is set")
        hostname = ingress["hostname"]
        hostname.dns_subdomain()
        if hostname.present and hostname.value.replace(".", "").isdigit():
            hostname.invalid("must be a DNS name, not an IP address")
    return field.causes
