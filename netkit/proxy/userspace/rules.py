"""Rules of the userspace mode for one service port, in the words of iptables-save. Pure: values in, text out.

Called by `backend`. Every address of a service port leads to the port on which the proxy listens for it. What arrives
from elsewhere is redirected, which sends it to the address of the interface it came in by; what the node itself
sends gets the node's own address instead, since a redirected packet would go to the loopback address and its answer
come from another. A proxy that listens on the node's own address only has everything sent there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netkit.proxy.addresses import Address, host_port
from netkit.proxy.services import ServicePort
from netkit.proxy.userspace.chains import (
    NODE_PORT_CONTAINER,
    NODE_PORT_HOST,
    NODE_PORT_NON_LOCAL,
    PORTALS_CONTAINER,
    PORTALS_HOST,
)

PortRules = Mapping[str, tuple[str, ...]]
"""The rules of one service port by chain, without the chain's name."""

_NOT_FROM_BRIDGE = "-m physdev ! --physdev-is-in"
_LOCAL = "-m addrtype --dst-type LOCAL"


def render_port(
    port: ServicePort, proxy_port: int, host: Address, *, bound: bool = False, node_port: bool = True
) -> PortRules:
    """The rules of `port`, for which the proxy listens on `proxy_port`; `host` is the node's own address.

    `bound`: it listens there only. `node_port` False leaves the NodePort out, because somebody else has it.
    """
    found: dict[str, dict[str, None]] = {}
    for chain, rule in _rules(port, proxy_port, host, bound, node_port):
        found.setdefault(chain, {})[rule] = None
    return {chain: tuple(rules) for chain, rules in found.items()}


def _rules(
    port: ServicePort, proxy_port: int, host: Address, bound: bool, node_port: bool
) -> Iterator[tuple[str, str]]:
    to_host = f"-j DNAT --to-destination {host_port(host, proxy_port)}"
    to_proxy = to_host if bound else f"-j REDIRECT --to-ports {proxy_port}"
    for address in (port.cluster_ip, *port.load_balancer_ips):
        called = _called(port, port.port, address)
        yield PORTALS_CONTAINER, f"{called} {to_proxy}"
        yield PORTALS_HOST, f"{called} {to_host}"
    for address in port.external_ips:
        # What pods on a bridge send to an external address leaves the cluster, unless the node itself has it.
        called = _called(port, port.port, address)
        yield PORTALS_CONTAINER, f"{called} {_NOT_FROM_BRIDGE} {to_proxy}"
        yield PORTALS_CONTAINER, f"{called} {_LOCAL} {to_proxy}"
        yield PORTALS_HOST, f"{called} {_LOCAL} {to_host}"
    if port.node_port and node_port:
        called = _called(port, port.node_port)
        yield NODE_PORT_CONTAINER, f"{called} {to_proxy}"
        yield NODE_PORT_HOST, f"{called} {to_host}"
        # By now the packet has the proxy's port.
        yield NODE_PORT_NON_LOCAL, f"{_called(port, proxy_port)} -m state --state NEW -j ACCEPT"


def _called(port: ServicePort, number: int, address: Address | None = None) -> str:
    """The match of what is sent to a port, of one address or of any, with the service port's name as comment."""
    protocol = port.protocol.lower()
    to = f"-d {address}/{address.max_prefixlen} " if address else ""
    return f'{to}-p {protocol} -m comment --comment "{port.name.text}" -m {protocol} --dport {number}'
