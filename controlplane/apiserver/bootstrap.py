"""What every cluster has from the start: the objects of `seeds`, and the Service `kubernetes` that leads to the API
server.

Called once after the registry has started, and again on every start: existing objects are brought up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from controlplane.apiserver.registry import LOOPBACK_USER, Registry, WriteOptions
from controlplane.apiserver.seeds import seeds
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from controlplane.resources.kind import Kind

API_SERVICE = "kubernetes"
API_SERVICE_PORT = 443

_OPTIONS = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)


async def bootstrap(
    registry: Registry,
    service_ip: IPv4Address | IPv6Address,
    endpoints: Sequence[IPv4Address | IPv6Address],
    port: int,
    service_cidrs: Sequence[IPv4Network | IPv6Network] = (),
) -> None:
    """Make sure of all of it.

    `service_ip` is the first address of the Service range; `endpoints` and `port` are where pods reach the API
    server. Without endpoints the Service has none. `service_cidrs` are the ranges Services get their addresses from.
    """
    await registry.plant(seeds(registry.kinds, service_cidrs, now()))
    await asyncio.gather(
        _ensure(registry, SERVICE, "default", _service(service_ip, port), ()),
        _ensure(registry, ENDPOINTS, "default", _endpoints(endpoints, port), ("subsets",)),
        _ensure(registry, ENDPOINT_SLICE, "default", _slice(endpoints, port), ("endpoints", "ports")),
    )


async def _ensure(
    registry: Registry, kind: Kind, namespace: str, wanted: Object, fields: Sequence[str]
) -> None:
    """Create it, or set `fields` of what is there to what is wanted."""
    name = wanted["metadata"]["name"]
    while True:
        try:
            present = await registry.get(kind, namespace, name)
        except NotFound:
            try:
                await registry.create(
                    kind, namespace, {**wanted, "metadata": {**wanted["metadata"]}}, _OPTIONS
                )
            except AlreadyExists:
                continue
            return
        if not fields:
            return
        updated = {key: value for key, value in present.object.items() if key not in fields}
        updated.update((key, wanted[key]) for key in fields if key in wanted)
        try:
            await registry.update(kind, namespace, name, updated, _OPTIONS)
        except (Conflict, NotFound):
            continue
        return


def _service(service_ip: IPv4Address | IPv6Address, port: int) -> Object:
    return {
        "metadata": {
            "name": API_SERVICE,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": str(service_ip),
            "clusterIPs": [str(service_ip)],
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": API_SERVICE_PORT, "targetPort": port}],
        },
    }


def _endpoints(endpoints: Sequence[IPv4Address | IPv6Address], port: int) -> Object:
    obj: Object = {
        "metadata": {"name": API_SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}
    }
    if endpoints:
        obj["subsets"] = [
            {
                "addresses": [{"ip": str(address)} for address in endpoints],
                "ports": [{"name": "https", "protocol": "TCP", "port": port}],
            }
        ]
    return obj


def _slice(endpoints: Sequence[IPv4Address | IPv6Address], port: int) -> Object:
    version = endpoints[0].version if endpoints else 4
    return {
        "metadata": {"name": API_SERVICE, "labels": {"kubernetes.io/service-name": API_SERVICE}},
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}} for address in endpoints],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    }
