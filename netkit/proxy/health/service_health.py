"""Health of Services with external policy Local: which ports balancers probe, and how many endpoints are here.

Fed with the changes of each sync, so that it costs what changed. Pure; `service_servers` listens and answers.
Semantics of kube-proxy 1.36 (`pkg/proxy/healthcheck/service_health.go`): a server per family, each counts its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netkit.proxy.addresses import Address
from netkit.proxy.services import ServicePortName
from netkit.proxy.state import Changes, ProxyState, ServiceKey


@dataclass(frozen=True, slots=True)
class _PortHealth:
    health_port: int
    ready_here: frozenset[Address]


@dataclass(slots=True)
class ServiceHealth:
    """Health ports and local endpoints of one family on the node `node_name`."""

    node_name: str
    _ports: dict[ServiceKey, dict[ServicePortName, _PortHealth]] = field(default_factory=dict)

    def take(self, state: ProxyState, changes: Changes) -> None:
        """Take in what a sync has changed."""
        for name in changes.removed:
            self._forget(name)
        for name in changes.updated:
            port = state.port(name)
            if port is None or not port.health_check_port:
                self._forget(name)
                continue
            here = frozenset(
                endpoint.address
                for endpoint in state.endpoints(name)
                if endpoint.ready and endpoint.node == self.node_name
            )
            group = self._ports.setdefault((name.namespace, name.name), {})
            group[name] = _PortHealth(port.health_check_port, here)

    def ports(self) -> Mapping[ServiceKey, int]:
        """The health port of every Service that has one."""
        return {
            service: next(iter(group.values())).health_port for service, group in self._ports.items() if group
        }

    def local_endpoints(self, service: ServiceKey) -> int:
        """How many ready endpoints of the Service are on this node; one behind several ports counts once."""
        group = self._ports.get(service, {})
        return len(frozenset().union(*(port.ready_here for port in group.values())))

    def _forget(self, name: ServicePortName) -> None:
        service = (name.namespace, name.name)
        group = self._ports.get(service, {})
        group.pop(name, None)
        if not group:
            self._ports.pop(service, None)


def health_body(service: ServiceKey, endpoints: int, *, proxy_healthy: bool) -> str:
    """The document a probe gets, indented as kube-proxy does. Names need no escapes."""
    namespace, name = service
    healthy = "true" if proxy_healthy else "false"
    return (
        "{\n"
        '\t"service": {\n'
        f'\t\t"namespace": "{namespace}",\n'
        f'\t\t"name": "{name}"\n'
        "\t},\n"
        f'\t"localEndpoints": {endpoints},\n'
        f'\t"serviceProxyHealthy": {healthy}\n'
        "}"
    )
