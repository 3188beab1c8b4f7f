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

from controlplane.apiserver.allocation import ip_addresses
from controlplane.apiserver.allocation.cluster_ips import AllocationError, IPAddress, IPNetwork
from controlplane.apiserver.allocation.node_ports import DEFAULT_FIRST, DEFAULT_LAST, NodePorts
from controlplane.apiserver.allocation.ranges import FamilyRanges
from controlplane.errors import Cause, InternalError, Object, already_exists, invalid
from controlplane.meta.objects import dig, name, namespace, namespaced_name
from controlplane.resources.core.service_rules import (
    is_headless,
    needs_cluster_ip,
    needs_health_check_node_port,
    needs_node_port,
)
from controlplane.resources.fieldpath import invalid as invalid_field
from controlplane.resources.kind import Kind
from controlplane.resources.networking.service_cidr import DEFAULT_NAME, IP_ADDRESS, READY, SERVICE_CIDR
from controlplane.store.protocol import Write

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
        self.writes: list[Write] = []

    def commit(self) -> None:
        for step in self.release:
            step()

    def roll_back(self) -> None:
        for step in reversed(self.undo):
            step()


class ServiceAllocator:
    """`networks` in the order of preference, one per IP family; ports `first_port`..`last_port` for nodes.

    ServiceCIDR objects add ranges to those; IPAddress objects, whoever made them, take addresses.
    """

    def __init__(
        self,
        networks: Sequence[IPNetwork],
        first_port: int = DEFAULT_FIRST,
        last_port: int = DEFAULT_LAST,
        rng: random.Random | None = None,
    ) -> None:
        self._networks = tuple(networks)
        self._cidrs: dict[str, tuple[IPNetwork, ...]] = {DEFAULT_NAME: self._networks}
        families = (FamilyRanges([network], rng) for network in networks)
        self._addresses: dict[str, FamilyRanges] = {ranges.family: ranges for ranges in families}
        self._default_family = next(iter(self._addresses))
        self._ports = NodePorts(first_port, last_port, rng)

    def applies_to(self, kind: Kind) -> bool:
        return _is_service(kind) or kind in (IP_ADDRESS, SERVICE_CIDR)

    def rebuild(self, objects: Iterable[Object]) -> Sequence[Write]:
        by_kind: dict[str, list[Object]] = {}
        for obj in objects:
            by_kind.setdefault(obj.get("kind", ""), []).append(obj)
        for ranges in self._addresses.values():
            ranges.clear()
        self._ports.clear()
        self._cidrs = {DEFAULT_NAME: self._networks}
        for service_cidr in by_kind.get(SERVICE_CIDR.kind, ()):
            self.stored(SERVICE_CIDR, service_cidr)
        owners: dict[IPAddress, Object] = {}
        for service in by_kind.get("Service", ()):
            self._take_over(service, owners)
        return [*self._hold_objects(by_kind.get(IP_ADDRESS.kind, ()), owners), *self._missing(owners)]

    def _take_over(self, service: Object, owners: dict[IPAddress, Object]) -> None:
        held = _held(service)
        try:
            for address in held.addresses:
                self._ranges(address).allocate(address)
                owners[address] = service
            for port in held.ports:
                self._ports.allocate(port)
        except AllocationError as fault:
            log.warning("%s: holds what it cannot: %s", namespaced_name(service), fault)

    def _hold_objects(self, objects: Iterable[Object], owners: dict[IPAddress, Object]) -> list[Write]:
        """Take over the IPAddress objects; those of Services that are gone are to be deleted."""
        repairs: list[Write] = []
        for obj in objects:
            address = ipaddress.ip_address(name(obj))
            if ip_addresses.is_managed(obj) and address not in owners:
                repairs.append(ip_addresses.removed(address))
            elif ranges := self._addresses.get(f"IPv{address.version}"):
                ranges.hold(address)
        return repairs

    def _missing(self, owners: dict[IPAddress, Object]) -> list[Write]:
        repairs: list[Write] = []
        for ranges in self._addresses.values():
            for address in ranges.without_object:
                service = owners[address]
                ranges.hold(address)
                repairs.append(ip_addresses.written(address, namespace(service), name(service)))
        return repairs

    def stored(self, kind: Kind, obj: Object) -> None:
        if kind is SERVICE_CIDR:
            usable = not obj["metadata"].get("deletionTimestamp") and _is_ready(obj)
            texts = dig(obj, "spec", "cidrs", default=()) if usable else ()
            self._use(name(obj), tuple(ipaddress.ip_network(text, strict=False) for text in texts))

    def _use(self, service_cidr: str, networks: tuple[IPNetwork, ...]) -> None:
        self._cidrs[service_cidr] = networks
        for family, ranges in self._addresses.items():
            ranges.use(
                network
                for networks in self._cidrs.values()
                for network in networks
                if f"IPv{network.version}" == family
            )

    def reserve(self, kind: Kind, new: Object, old: Object | None) -> _Reservation:
        if kind is IP_ADDRESS:
            return self._reserve_object(new, old)
        reservation = _Reservation()
        if kind is SERVICE_CIDR:
            return reservation
        before = _held(old) if old is not None else _Held()
        try:
            self._families(new)
            if needs_cluster_ip(new["spec"]) and not is_headless(new["spec"]):
                self._allocate_addresses(new, before, reservation)
            if needs_node_port(new["spec"]) or any(port.get("nodePort") for port in _ports(new)):
                self._allocate_ports(new, before, reservation)
            if needs_health_check_node_port(new["spec"]):
                self._allocate_health_check_port(new, before, reservation)
            after = _held(new)
            self._write_objects(new, after.addresses - before.addresses, reservation)
        except BaseException:
            reservation.roll_back()
            raise
        self._give_up(before.addresses - after.addresses, before.ports - after.ports, reservation)
        return reservation

    def _reserve_object(self, new: Object, old: Object | None) -> _Reservation:
        """An IPAddress somebody makes by hand takes its address from the Services."""
        reservation = _Reservation()
        address = ipaddress.ip_address(name(new))
        ranges = self._addresses.get(f"IPv{address.version}")
        if old is None and ranges is not None:
            if not ranges.hold(address):
                raise already_exists(IP_ADDRESS.plural, IP_ADDRESS.group, name(new))
            reservation.undo.append(partial(ranges.let_go, address))
        return reservation

    def _write_objects(
        self, service: Object, addresses: Iterable[IPAddress], reservation: _Reservation
    ) -> None:
        for address in sorted(addresses, key=lambda address: address.version):
            ranges = self._ranges(address)
            if ranges.hold(address):
                reservation.undo.append(partial(ranges.let_go, address))
            reservation.writes.append(ip_addresses.written(address, namespace(service), name(service)))

    def _give_up(
        self, addresses: Iterable[IPAddress], ports: Iterable[int], reservation: _Reservation
    ) -> None:
        """Free these once the write is stored."""
        for address in addresses:
            ranges = self._addresses.get(f"IPv{address.version}")
            if ranges is not None:
                reservation.writes.append(ip_addresses.removed(address))
                reservation.release += [partial(ranges.release, address), partial(ranges.let_go, address)]
        for port in ports:
            reservation.release.append(partial(self._ports.release, port))

    def removal(self, kind: Kind, obj: Object) -> _Reservation:
        reservation = _Reservation()
        if kind is SERVICE_CIDR:
            reservation.release.append(partial(self._forget_cidr, name(obj)))
        elif kind is IP_ADDRESS:
            address = ipaddress.ip_address(name(obj))
            ranges = self._addresses.get(f"IPv{address.version}")
            if ranges is not None:
                reservation.release.append(partial(ranges.let_go, address))
        else:
            held = _held(obj)
            self._give_up(held.addresses, held.ports, reservation)
        return reservation

    def _forget_cidr(self, service_cidr: str) -> None:
        self._use(service_cidr, ())
        del self._cidrs[service_cidr]

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
        pool: FamilyRanges,
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

    def _ranges(self, address: IPAddress) -> FamilyRanges:
        ranges = self._addresses.get(f"IPv{address.version}")
        if ranges is None:
            raise AllocationError(f"IPv{address.version} is not configured on this cluster")
        return ranges


def _is_service(kind: Kind) -> bool:
    return kind.group == "" and kind.plural == "services"


def _is_ready(service_cidr: Object) -> bool:
    """Until somebody says otherwise."""
    conditions = dig(service_cidr, "status", "conditions", default=())
    return all(found.get("status") == "True" for found in conditions if found.get("type") == READY)


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
