"""What a plug-in's ADD gives: interfaces, addresses, routes, DNS - as values, and as the JSON of each version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from netkit.cni.errors import CniError, Code
from netkit.cni.versions import at_least

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interface:
    """`sandbox` is the path of the namespace it is in, "" for the machine's own; `mtu` 0 when unknown."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Ip:
    """An address with its prefix length. `interface` is the number of the interface that has it, None when not told."""

    address: IPv4Interface | IPv6Interface
    gateway: str = ""
    interface: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """`gateway` "" stands for that of the address."""

    target: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """All of it. `dns` as it comes."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Json = field(default_factory=dict)

    def addresses_in(self, sandbox: str, name: str) -> tuple[Ip, ...]:
        """The addresses of the interface `name` in the namespace; those that name no interface count as its own."""
        return tuple(ip for ip in self.ips if ip.interface is None or self._is(ip.interface, sandbox, name))

    def _is(self, number: int, sandbox: str, name: str) -> bool:
        if not 0 <= number < len(self.interfaces):
            return False
        found = self.interfaces[number]
        return found.name == name and found.sandbox in (sandbox, "") and bool(found.sandbox)


def parse(document: object) -> Result:
    """A result of any version from 0.3.0 on. Raises CniError for what is none."""
    if not isinstance(document, Mapping):
        raise CniError(Code.UNDECODABLE, "the result is not a JSON object")
    if "ip4" in document or "ip6" in document:
        raise CniError(Code.INCOMPATIBLE_VERSION, "a result of CNI 0.2.0 or older cannot be used")
    try:
        return Result(
            tuple(_interface(item) for item in document.get("interfaces") or ()),
            tuple(_ip(item) for item in document.get("ips") or ()),
            tuple(
                Route(str(item["dst"]), str(item.get("gw") or "")) for item in document.get("routes") or ()
            ),
            dict(document.get("dns") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CniError(Code.UNDECODABLE, f"the result cannot be understood: {error}") from error


def render(result: Result, version: str) -> dict[str, Any]:
    """The JSON of the version."""
    found: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        found["interfaces"] = [_interface_json(item, version) for item in result.interfaces]
    found["ips"] = [_ip_json(item, version) for item in result.ips]
    if result.routes:
        found["routes"] = [
            {"dst": route.target, **({"gw": route.gateway} if route.gateway else {})}
            for route in result.routes
        ]
    found["dns"] = dict(result.dns)
    return found


def _interface(item: Json) -> Interface:
    return Interface(
        str(item["name"]),
        str(item.get("mac") or ""),
        str(item.get("sandbox") or ""),
        int(item.get("mtu") or 0),
    )


def _ip(item: Json) -> Ip:
    number = item.get("interface")
    return Ip(
        ip_interface(item["address"]), str(item.get("gateway") or ""), None if number is None else int(number)
    )


def _interface_json(item: Interface, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": item.name}
    if item.mac:
        found["mac"] = item.mac
    if item.mtu and at_least(version, "1.1.0"):
        found["mtu"] = item.mtu
    if item.sandbox:
        found["sandbox"] = item.sandbox
    return found


def _ip_json(item: Ip, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not at_least(version, "1.0.0"):
        found["version"] = str(item.address.version)
    found["address"] = str(item.address)
    if item.gateway:
        found["gateway"] = item.gateway
    if item.interface is not None:
        found["interface"] = item.interface
    return found
