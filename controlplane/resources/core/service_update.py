"""What an update of a Service keeps of the old one: allocated values the client left out stay, values the
new type has no use for go (upstream's `patchAllocatedValues`, `normalizeClusterIPs` and
`dropTypeDependentFields`, v1.32). Pure.
"""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.resources.core.service_rules import (
    externally_accessible,
    needs_cluster_ip,
    needs_health_check_node_port,
    needs_node_port,
)


def carry_over(new: Object, old: Object) -> None:
    """Makes a PUT or patch without allocated values mean "as they were". Edits `new` in place."""
    after, before = new.setdefault("spec", {}), old.get("spec") or {}
    _keep_allocated(after, before)
    synchronise_cluster_ips(after, before)
    _drop_useless(after, before)


def _keep_allocated(after: Object, before: Object) -> None:
    if needs_cluster_ip(before) and needs_cluster_ip(after):
        if not after.get("clusterIP"):
            _copy(after, before, "clusterIP")
        if not after.get("clusterIPs") and after.get("clusterIP") == before.get("clusterIP"):
            _copy(after, before, "clusterIPs")
        for name in ("ipFamilyPolicy", "ipFamilies"):
            if not after.get(name):
                _copy(after, before, name)
    if needs_node_port(before) and needs_node_port(after):
        _keep_node_ports(after, before)
    checked = needs_health_check_node_port(before) and needs_health_check_node_port(after)
    if checked and not after.get("healthCheckNodePort"):
        _copy(after, before, "healthCheckNodePort")


def _keep_node_ports(after: Object, before: Object) -> None:
    """A port gets back the node port of the port of its name, unless another port asks for it."""
    used = _node_ports(before) & _node_ports(after)
    by_name = {port.get("name", ""): port.get("nodePort") for port in before.get("ports") or ()}
    for port in after.get("ports") or ():
        known = by_name.get(port.get("name", ""))
        if not port.get("nodePort") and known and known not in used:
            port["nodePort"] = known
            used.add(known)


def synchronise_cluster_ips(after: Object, before: Object) -> None:
    """Makes `clusterIP` and `clusterIPs` agree when a client has set only one of them. `before` is empty on
    create.
    """
    ip, ips = after.get("clusterIP") or "", after.get("clusterIPs") or []
    old_ip, old_ips = before.get("clusterIP") or "", before.get("clusterIPs") or []
    if not before:
        if ip and not ips:
            after["clusterIPs"] = [ip]
        return
    if ip != old_ip:
        if ip and (not ips or ips == old_ips):
            after["clusterIPs"] = [ip]
        elif not ip and ips == old_ips:
            after.pop("clusterIPs", None)
    elif ips != old_ips and not ips:
        after.pop("clusterIP", None)


def _drop_useless(after: Object, before: Object) -> None:
    """Only values the client did not touch are dropped; touched ones are left for validation to refuse."""
    if needs_cluster_ip(before) and not needs_cluster_ip(after):
        if _equal(after, before, "clusterIP") and _equal(after, before, "clusterIPs"):
            _drop(after, "clusterIP", "clusterIPs")
        for name in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if _equal(after, before, name):
                _drop(after, name)
    if needs_node_port(before) and not needs_node_port(after) and _node_ports(after) <= _node_ports(before):
        for port in after.get("ports") or ():
            port.pop("nodePort", None)
    for needs, name in (
        (needs_health_check_node_port, "healthCheckNodePort"),
        (_is_load_balancer, "allocateLoadBalancerNodePorts"),
        (_is_load_balancer, "loadBalancerClass"),
        (externally_accessible, "externalTrafficPolicy"),
    ):
        if needs(before) and not needs(after) and _equal(after, before, name):
            _drop(after, name)


def _is_load_balancer(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer"


def _node_ports(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


def _copy(after: Object, before: Object, name: str) -> None:
    if before.get(name):
        value = before[name]
        after[name] = list(value) if isinstance(value, list) else value


def _equal(after: Object, before: Object, name: str) -> bool:
    return after.get(name) == before.get(name)


def _drop(after: Object, *names: str) -> None:
    for name in names:
        after.pop(name, None)
