"""What a Service needs of the cluster's ranges: addresses by IP family, node ports, the health check's node port.

The one allocator the registry gets (`allocator.Allocator`). Follows upstream's `core/service/storage/alloc.go` (v1.32)
in order, fields and texts. IPv6 needs nothing but a second range.
"""

from __future__ import annotations

import ipaddress
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from controlplane.apiserver.allocation.cluster_ips import AllocationError, ClusterIPs, IPAddress, IPNetwork
from controlplane.apiserver.allocation.node_ports import DEFAULT_FIRST, DEFAULT_LAST, NodePorts
from controlplane.errors import Cause, InternalError, Object, invalid
from controlplane.meta.objects import namespaced_name
from controlplane.resources.core.service_rules import (
    is_headless,
    needs_cluster_ip,
    needs_health_check_node_port,
    needs_node_port,
)
from controlplane.resources.fieldpath import invalid as invalid_field
from controlplane.resources.kind import Kind

HEADLESS = "None"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """The values one Service holds."""

    addresses: set[IPAddress] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)


class _Reservation:
    """See `allocator.Reservation`: each value taken has its undoing."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        self.release: list[Callable[[], None]] = []

    def commit(self) -> None:
        for step in self.release:
            step()

    def roll_back(self) -> None:
        for step in reversed(self.undo):
            step()


class ServiceAllocator:
    """`networks` in the order of preference, one per IP family; ports `first_port`..`last_port` for nodes."""

    def __init__(
        self,
        networks: Sequence[IPNetwork],
        first_port: int = DEFAULT_FIRST,
        last_port: int = DEFAULT_LAST,
        rng: random.Random | None = None,
    ) -> None:
        self._addresses = {pool.family: pool for pool in (ClusterIPs(network, rng) for network in networks)}
        self._default_family = next(iter(self._addresses))
        self._ports = NodePorts(first_port, last_port, rng)

    def applies_to(self, kind: Kind) -> bool:
        return kind.group == "" and kind.plural == "services"

    def rebuild(self, objects: Iterable[Object]) -> None:
        for pool in self._addresses.values():
            pool.clear()
        self._ports.clear()
        for service in objects:
            held = _held(service)
            try:
                for address in held.addresses:
                    self._pool(address).allocate(address)
                for port in held.ports:
                    self._ports.allocate(port)
            except AllocationError as fault:
                log.warning("%s: holds what it cannot: %s", namespaced_name(service), fault)

    def reserve(self, kind: Kind, new: Object, old: Object | None) -> _Reservation:
        reservation = _Reservation()
        before = _held(old) if old is not None else _Held()
        try:
            self._families(new)
            if needs_cluster_ip(new["spec"]) and not is_headless(new["spec"]):
                self._allocate_addresses(new, before, reservation)
            if needs_node_port(new["spec"]) or any(port.get("nodePort") for port in _ports(new)):
                self._allocate_ports(new, before, reservation)
            if needs_health_check_node_port(new["spec"]):
                self._allocate_health_check_port(new, before, reservation)
        except BaseException:
            reservation.roll_back()
            raise
        after = _held(new)
        for address in before.addresses - after.addresses:
            reservation.release.append(partial(self._free_address, address))
        for port in before.ports - after.ports:
            reservation.release.append(partial(self._ports.release, port))
        return reservation

    def release(self, obj: Object) -> None:
        held = _held(obj)
        for address in held.addresses:
            self._free_address(address)
        for port in held.ports:
            self._ports.release(port)

    def _families(self, service: Object) -> None:
        """Fill ipFamilyPolicy and ipFamilies. Raises Invalid for families the cluster has no range of."""
        spec = service["spec"]
        if not needs_cluster_ip(spec):
            return
        causes: list[Cause] = []
        if is_headless(spec):
            spec["clusterIP"], spec["clusterIPs"] = HEADLESS, [HEADLESS]
            if not spec.get("selector"):
                self._free_families(spec)
                return
        addresses = [ip for ip in spec.get("clusterIPs") or () if ip != HEADLESS]
        families = list(spec.get("ipFamilies") or ())
        for position, ip in enumerate(addresses):
            if position >= len(families):
                families.append(_family(ip))
        policy = spec.get("ipFamilyPolicy")
        if policy == "RequireDualStack" and len(self._addresses) < 2:
            causes.append(
                invalid_field(
                    "spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services"
                )
            )
        for position, family in enumerate(families):
            if family not in self._addresses:
                causes.append(
                    invalid_field(f"spec.ipFamilies[{position}]", family, "not configured on this cluster")
                )
        if causes:
            raise invalid("Service", "", service["metadata"].get("name", ""), causes)
        policy = policy or ("SingleStack" if len(families) < 2 else "RequireDualStack")
        families = families or [self._default_family]
        if policy != "SingleStack":
            families += [family for family in self._addresses if family not in families]
        spec["ipFamilyPolicy"], spec["ipFamilies"] = policy, families

    def _free_families(self, spec: Object) -> None:
        """Headless without selector: its endpoints are not ours, so both families are fine on every cluster."""
        spec["ipFamilyPolicy"] = policy = spec.get("ipFamilyPolicy") or "RequireDualStack"
        families = list(spec.get("ipFamilies") or [self._default_family])
        if policy != "SingleStack" and len(families) < 2:
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
        spec["ipFamilies"] = families

    def _allocate_addresses(self, service: Object, before: _Held, reservation: _Reservation) -> None:
        spec = service["spec"]
        given = list(spec.get("clusterIPs") or ())
        if not given and spec.get("clusterIP"):
            given = [spec["clusterIP"]]
        taken: list[str] = []
        for position, family in enumerate(spec["ipFamilies"]):
            pool = self._addresses[family]
            if position < len(given):
                address = ipaddress.ip_address(given[position])
                if address not in before.addresses:
                    self._take_address(service, pool, address, given, reservation)
            else:
                try:
                    address = pool.allocate_next()
                except AllocationError as fault:
                    raise _internal(f"failed to allocate a serviceIP: {fault}") from fault
                reservation.undo.append(partial(pool.release, address))
            taken.append(str(address))
        spec["clusterIP"], spec["clusterIPs"] = taken[0], taken

    def _take_address(
        self,
        service: Object,
        pool: ClusterIPs,
        address: IPAddress,
        given: Sequence[str],
        reservation: _Reservation,
    ) -> None:
        try:
            pool.allocate(address)
        except AllocationError as fault:
            cause = invalid_field("spec.clusterIPs", list(given), f"failed to allocate IP {address}: {fault}")
            raise invalid("Service", "", service["metadata"].get("name", ""), [cause]) from fault
        reservation.undo.append(partial(pool.release, address))

    def _allocate_ports(self, service: Object, before: _Held, reservation: _Reservation) -> None:
        """Ports of one number (TCP and UDP) share a node port, chosen or requested for any of them."""
        ports = _ports(service)
        own = set(before.ports)
        by_number: dict[int, int] = {}
        for position, port in enumerate(ports):
            number, wanted = port["port"], port.get("nodePort") or by_number.get(port["port"], 0)
            if not wanted:
                wanted = next((p["nodePort"] for p in ports if p["port"] == number and p.get("nodePort")), 0)
            if not wanted:
                wanted = self._next_port("a nodePort", reservation)
            elif wanted not in own:
                self._take_port(service, wanted, f"spec.ports[{position}].nodePort", "", reservation)
            own.add(wanted)
            by_number.setdefault(number, wanted)
            port["nodePort"] = wanted

    def _allocate_health_check_port(self, service: Object, before: _Held, reservation: _Reservation) -> None:
        spec = service["spec"]
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            spec["healthCheckNodePort"] = self._next_port("a HealthCheck NodePort", reservation)
        elif wanted not in before.ports:
            text = f"failed to allocate requested HealthCheck NodePort {wanted}: "
            self._take_port(service, wanted, "spec.healthCheckNodePort", text, reservation)

    def _take_port(
        self, service: Object, port: int, path: str, prefix: str, reservation: _Reservation
    ) -> None:
        try:
            self._ports.allocate(port)
        except AllocationError as fault:
            if prefix:
                raise _internal(f"{prefix}{fault}") from fault
            cause = invalid_field(path, port, str(fault))
            raise invalid("Service", "", service["metadata"].get("name", ""), [cause]) from fault
        reservation.undo.append(partial(self._ports.release, port))

    def _next_port(self, what: str, reservation: _Reservation) -> int:
        try:
            port = self._ports.allocate_next()
        except AllocationError as fault:
            raise _internal(f"failed to allocate {what}: {fault}") from fault
        reservation.undo.append(partial(self._ports.release, port))
        return port

    def _pool(self, address: IPAddress) -> ClusterIPs:
        pool = self._addresses.get("IPv4" if address.version == 4 else "IPv6")
        if pool is None:
            raise AllocationError(f"IPv{address.version} is not configured on this cluster")
        return pool

    def _free_address(self, address: IPAddress) -> None:
        pool = self._addresses.get("IPv4" if address.version == 4 else "IPv6")
        if pool is not None:
            pool.release(address)


def _held(service: Object) -> _Held:
    spec = service.get("spec") or {}
    held = _Held()
    if needs_cluster_ip(spec):
        ips = spec.get("clusterIPs") or [spec.get("clusterIP") or HEADLESS]
        held.addresses.update(ipaddress.ip_address(ip) for ip in ips if ip and ip != HEADLESS)
    held.ports.update(port["nodePort"] for port in _ports(service) if port.get("nodePort"))
    if needs_health_check_node_port(spec) and spec.get("healthCheckNodePort"):
        held.ports.add(spec["healthCheckNodePort"])
    return held


def _ports(service: Object) -> Sequence[Object]:
    return (service.get("spec") or {}).get("ports") or ()


def _family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


def _internal(why: str) -> InternalError:
    return InternalError(f"Internal error occurred: {why}")
