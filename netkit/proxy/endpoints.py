"""What a proxy needs to know of endpoints: frozen `Endpoint` values made from EndpointSlices.

Pure. Which of them a connection may reach is decided in `choice`, never here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.errors import Object
from controlplane.meta.objects import labels, name, namespace
from netkit.proxy.addresses import Address, Family, host_port, read_address
from netkit.proxy.services import HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL, Protocol, protocol_named

SERVICE_NAME_LABEL = "kubernetes.io/service-name"

_NO_HINTS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind a service port.

    `ready` already tells what `publishNotReadyAddresses` asks for: the slice's author decides it. `node` is
    empty when the slice names none; such an endpoint is local nowhere.
    """

    address: Address
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()
    target: str = field(compare=False, default="")
    """`address:port` as rules and comments write it. Whoever knows it already may give it."""

    def __post_init__(self) -> None:
        if not self.target:
            object.__setattr__(self, "target", host_port(self.address, self.port))

    @property
    def host(self) -> str:
        """The address as rules write it."""
        return self.target.rpartition(":")[0].strip("[]")

    @property
    def draining(self) -> bool:
        """Shutting down, but still answering: used only when nothing is ready."""
        return not self.ready and self.serving and self.terminating

    @property
    def usable(self) -> bool:
        return self.ready or self.draining


PortKey = tuple[str, Protocol]
"""Name and protocol of a port, which must both match between Service and slice."""


@dataclass(frozen=True, slots=True)
class SliceEndpoints:
    """The endpoints of one slice, by port."""

    service: tuple[str, str]
    ports: tuple[tuple[PortKey, tuple[Endpoint, ...]], ...]

    def of(self, key: PortKey) -> tuple[Endpoint, ...]:
        return tuple(endpoint for found, group in self.ports if found == key for endpoint in group)


def slice_endpoints(slice_: Object, family: Family) -> SliceEndpoints | None:
    """The contents of an EndpointSlice, or None when a proxy of this family has no use for it.

    That is: another address type, no service name label, or a label that gives it to another proxy.
    """
    found = labels(slice_)
    service = found.get(SERVICE_NAME_LABEL)
    if not service or SERVICE_PROXY_NAME_LABEL in found or HEADLESS_LABEL in found:
        return None
    if slice_.get("addressType") != family:
        return None
    members = [
        (*found_address, item)
        for item in slice_.get("endpoints") or ()
        if (found_address := _first_address(item, family)) is not None
    ]
    ports = tuple(
        ((port["name"], protocol), tuple(_endpoint(*member, port["port"]) for member in members))
        for port in slice_.get("ports") or ()
        if port.get("name") is not None
        and port.get("port")
        and (protocol := protocol_named(port.get("protocol"))) is not None
    )
    return SliceEndpoints((namespace(slice_), service), ports)


def slice_key(slice_: Object) -> tuple[str, str]:
    """Namespace and name of the slice."""
    return (namespace(slice_), name(slice_))


def merge_endpoints(groups: Iterable[Iterable[Endpoint]]) -> tuple[Endpoint, ...]:
    """The endpoints of all slices of one port, each address and port once, ordered by their text.

    While a controller moves an endpoint from one slice to another it is in both; the entry that is not
    terminating wins, else the first.
    """
    found: dict[str, Endpoint] = {}
    for group in groups:
        for endpoint in group:
            known = found.get(endpoint.target)
            if known is None or (known.terminating and not endpoint.terminating):
                found[endpoint.target] = endpoint
    return tuple([found[target] for target in sorted(found)])


def _first_address(item: Object, family: Family) -> tuple[Address, str] | None:
    """Only the first address of an endpoint is used; the API requires all of them to be equivalent."""
    texts = item.get("addresses")
    if not texts:
        return None
    try:
        found = read_address(texts[0])
    except ValueError:
        return None
    return found if found[0].version == family.version else None


def _endpoint(address: Address, host: str, item: Object, port: int) -> Endpoint:
    conditions = item.get("conditions") or {}
    hints = item.get("hints")
    return Endpoint(
        address,
        port,
        conditions.get("ready") is not False,
        conditions.get("serving") is not False,
        conditions.get("terminating") is True,
        item.get("nodeName") or "",
        _hinted(hints, "forZones") if hints else _NO_HINTS,
        _hinted(hints, "forNodes") if hints else _NO_HINTS,
        f"[{host}]:{port}" if address.version == 6 else f"{host}:{port}",
    )


def _hinted(hints: Object, to: str) -> frozenset[str]:
    return frozenset([hint["name"] for hint in hints.get(to) or ()])
