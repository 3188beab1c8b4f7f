"""The Services and endpoints of one address family, and which of them changed since the last good sync.

Fed with objects by the loop, read by back ends. A change costs what it touches: objects are read once,
services are recomputed when they are touched, and values that came out equal count as no change. No I/O, no
rules.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.errors import Object
from controlplane.meta import objects
from controlplane.meta.objects import name, namespace, namespaced_name
from controlplane.meta.timestamps import parse as parse_time
from netkit.proxy.addresses import Family
from netkit.proxy.endpoints import Endpoint, SliceEndpoints, merge_endpoints, slice_endpoints, slice_key
from netkit.proxy.services import ServicePort, ServicePortName, service_ports

log = logging.getLogger(__name__)

LAST_CHANGE_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"

ServiceKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from the last good sync.

    `updated` are service ports that are new or whose values or endpoints differ, `removed` those that are
    gone. `triggered` are the times (Unix seconds) at which pods or Services changed so that slices had to.
    """

    updated: frozenset[ServicePortName]
    removed: frozenset[ServicePortName]
    triggered: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.updated or self.removed)


class ProxyState:
    """State of one family. Objects go in by `upsert_*` and `delete_*`; nothing moves until `collect`."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._services: dict[ServiceKey, tuple[ServicePort, ...]] = {}
        self._slices: dict[tuple[str, str], SliceEndpoints] = {}
        self._slices_of: dict[ServiceKey, dict[str, SliceEndpoints]] = {}
        self._ports: dict[ServicePortName, ServicePort] = {}
        self._names_of: dict[ServiceKey, tuple[ServicePortName, ...]] = {}
        self._endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self._endpoint_count = 0
        self._touched: set[ServiceKey] = set()
        self._unsynced: set[ServicePortName] = set()
        self._triggered: dict[ServiceKey, list[float]] = {}
        self._reported: list[float] = []

    # what goes in

    def upsert_service(self, service: Object) -> None:
        """Take in a new or changed Service."""
        self._set_service((namespace(service), name(service)), service_ports(service, self.family))

    def delete_service(self, service_namespace: str, service_name: str) -> None:
        """Forget a Service; unknown ones are ignored."""
        self._set_service((service_namespace, service_name), ())

    def upsert_slice(self, slice_: Object) -> None:
        """Take in a new or changed EndpointSlice."""
        contents = slice_endpoints(slice_, self.family)
        if self._set_slice(slice_key(slice_), contents) and contents is not None:
            self._note_trigger(contents.service, slice_)

    def delete_slice(self, slice_namespace: str, slice_name: str) -> None:
        """Forget an EndpointSlice; unknown ones are ignored.

        Nothing says when it had to go, so what its service still has to be measured by is forgotten as well.
        """
        key = (slice_namespace, slice_name)
        if key in self._slices:
            self._triggered.pop(self._slices[key].service, None)
        self._set_slice(key, None)

    def _set_service(self, key: ServiceKey, ports: tuple[ServicePort, ...]) -> None:
        if self._services.get(key, ()) == ports:
            return
        if ports:
            self._services[key] = ports
        else:
            del self._services[key]
        self._touched.add(key)

    def _set_slice(self, key: tuple[str, str], contents: SliceEndpoints | None) -> bool:
        """Replace a slice; it may have moved to another service. True if anything differs."""
        old = self._slices.get(key)
        if old == contents:
            return False
        if old is not None:
            del self._slices[key]
            group = self._slices_of[old.service]
            del group[key[1]]
            if not group:
                del self._slices_of[old.service]
            self._touched.add(old.service)
        if contents is not None:
            self._slices[key] = contents
            self._slices_of.setdefault(contents.service, {})[key[1]] = contents
            self._touched.add(contents.service)
        return True

    def _note_trigger(self, service: ServiceKey, slice_: Object) -> None:
        """Keep the time the slice's author wrote down; it is measured by, never acted upon."""
        text = objects.annotations(slice_).get(LAST_CHANGE_ANNOTATION)
        if not text:
            return
        try:
            self._triggered.setdefault(service, []).append(parse_time(text).timestamp())
        except ValueError as error:
            log.info("%s: annotation %s: %s", namespaced_name(slice_), LAST_CHANGE_ANNOTATION, error)

    # what comes out

    @property
    def pending(self) -> bool:
        """Whether objects changed since `collect`, or `collect` found changes that are not synced yet."""
        return bool(self._touched or self._unsynced)

    @property
    def endpoint_count(self) -> int:
        """Endpoints of all service ports, usable or not, as of the last `collect`."""
        return self._endpoint_count

    def ports(self) -> Iterator[ServicePort]:
        """All service ports as of the last `collect`, the oldest Service first."""
        return iter(sorted(self._ports.values(), key=_rank))

    def port(self, port_name: ServicePortName) -> ServicePort | None:
        """One service port as of the last `collect`."""
        return self._ports.get(port_name)

    def endpoints(self, port_name: ServicePortName) -> tuple[Endpoint, ...]:
        """The endpoints of a service port as of the last `collect`, whatever their condition."""
        return self._endpoints.get(port_name, ())

    def collect(self) -> Changes:
        """Bring ports and endpoints up to date and say all that changed since the last `mark_synced`."""
        for key in self._touched:
            self._recompute(key)
        self._touched.clear()
        for moments in self._triggered.values():
            self._reported += moments
        self._triggered.clear()
        updated = frozenset(port_name for port_name in self._unsynced if port_name in self._ports)
        return Changes(updated, frozenset(self._unsynced - updated), tuple(self._reported))

    def mark_synced(self) -> None:
        """What the last `collect` said has reached the kernel; later changes stay unsynced."""
        self._unsynced.clear()
        self._reported.clear()

    def _recompute(self, key: ServiceKey) -> None:
        ports = {port.name: port for port in self._services.get(key, ())}
        for port_name in self._names_of.pop(key, ()):
            if port_name not in ports:
                del self._ports[port_name]
                self._endpoint_count -= len(self._endpoints.pop(port_name, ()))
                self._unsynced.add(port_name)
        if not ports:
            return
        self._names_of[key] = tuple(ports)
        slices = self._slices_of.get(key, {})
        ordered = [slices[slice_name] for slice_name in sorted(slices)]
        for port_name, port in ports.items():
            wanted = (port_name.port, port_name.protocol)
            endpoints = merge_endpoints([found.of(wanted) for found in ordered])
            before = self._endpoints.get(port_name, ())
            if self._ports.get(port_name) == port and before == endpoints:
                continue
            self._ports[port_name] = port
            self._endpoints[port_name] = endpoints
            self._endpoint_count += len(endpoints) - len(before)
            self._unsynced.add(port_name)


_rank = operator.attrgetter("rank")
