"""Which proxies a command looks into, and what it needs for that: the API's objects, settings, the node's kernel.

A proxy is either that of a node of a cluster made here, or one that runs alone against some cluster. What it goes by
is asked of itself (`/configz`), so that it is true for any mode and after any switch. Used by `proxy_inspection`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.client import kubeconfig
from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import labels, name
from controlplane.resources import catalog
from netkit import VERSION
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.proxy_choice import ProxyFiles
from netkit.kernel.netns import HOST, Namespace, open_namespace, socket_in
from netkit.proxy.addresses import Address, Family, parse_address
from netkit.proxy.agent import node_facts, service_cidrs
from netkit.proxy.backend import Backend, NodeFacts
from netkit.proxy.configuration.apply import proxy_settings
from netkit.proxy.configuration.decode import decode
from netkit.proxy.configuration.defaults import METRICS_PORT, for_linux, with_defaults
from netkit.proxy.configuration.document import API_VERSION, KIND, KubeProxyConfiguration
from netkit.proxy.configuration.validation import validated
from netkit.proxy.modes import Site, backends
from netkit.proxy.services import HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

_API_SECONDS = 10.0
_PROXY_SECONDS = 3.0
_OUTSIDE = {Family.IPV4: parse_address("203.0.113.1"), Family.IPV6: parse_address("2001:db8::1")}


@dataclass(frozen=True, slots=True)
class Alone:
    """A proxy that is no part of a cluster made here.

    `netns` empty is the machine's own namespace; `config` its configuration file and `mode` its mode, for a proxy that
    does not run (or does not say).
    """

    kubeconfig: Path
    netns: str = ""
    config: Path | None = None
    mode: ProxyMode | None = None


@dataclass(frozen=True, slots=True)
class Objects:
    """What the API holds, all at about one moment."""

    services: Sequence[Object]
    slices: Sequence[Object]
    nodes: Sequence[Object]
    ranges: Sequence[Object] = ()

    def state(self, family: Family) -> ProxyState:
        """The Services and endpoints as a proxy of the family sees them."""
        state = ProxyState(family)
        for service in self.services:
            if _is_ours(service):
                state.upsert_service(service)
        for item in self.slices:
            if _is_ours(item):
                state.upsert_slice(item)
        state.collect()
        return state

    def node(self, wanted: str) -> Object | None:
        return next((node for node in self.nodes if name(node) == wanted), None)


def _is_ours(obj: Object) -> bool:
    found = labels(obj)
    return SERVICE_PROXY_NAME_LABEL not in found and HEADLESS_LABEL not in found


@dataclass(frozen=True, slots=True)
class Inspected:
    """The proxy of one node. `facts` is what its Node says; `settings` what it goes by."""

    node: str
    settings: ProxySettings
    facts: NodeFacts
    site: Site
    families: tuple[Family, ...]

    def backends(self) -> list[Backend]:
        """Its back ends, ready to be asked what they want and what stands. Raises Unsupported."""
        found = backends(self.settings, self.site, self.families)
        for backend in found:
            backend.configure(self.facts)
        return found


class Inspection:
    """One cluster as the commands see it: a client of its API, and where its nodes' proxies are.

    `outside` is the address of a machine outside the cluster, for questions that name none.
    """

    def __init__(
        self, client: Client, profile: Profile | None, alone: Alone | None, machines: ClusterFacts | None
    ) -> None:
        self.client = client
        self._profile = profile
        self._alone = alone
        self._facts = machines

    def outside(self, family: Family) -> tuple[str, Address]:
        """Name and address of a machine outside the cluster."""
        client = self._facts.machine("client") if self._facts else None
        if client is not None and client.address and family is Family.IPV4:
            return client.name, parse_address(client.address)
        return "", _OUTSIDE[family]

    async def objects(self) -> Objects:
        """Services, slices and Nodes. Raises ClusterError when the API does not answer, StatusError."""
        try:
            async with asyncio.timeout(_API_SECONDS):
                services, slices, nodes = [
                    (await self.client.list(kind)).items
                    for kind in (catalog.SERVICE, catalog.ENDPOINT_SLICE, catalog.NODE)
                ]
                ranges = await self._ranges()
        except (TimeoutError, ConnectionFailed) as error:
            where = f"cluster {self._profile.name}" if self._profile else "the kubeconfig's cluster"
            raise ClusterError(f"the API server of {where} does not answer: {error}") from error
        return Objects(services, slices, nodes, ranges)

    async def _ranges(self) -> Sequence[Object]:
        """The ServiceCIDRs. A cluster older than Kubernetes 1.33 has none to show."""
        try:
            return (await self.client.list(catalog.SERVICE_CIDR)).items
        except NotFound:
            return ()

    def node_names(self, objects: Objects) -> list[str]:
        """The nodes whose kernels can be looked into, in order."""
        if self._alone is not None:
            return [name(node) for node in objects.nodes]
        assert self._facts is not None
        known = {name(node) for node in objects.nodes}
        return [machine.name for machine in self._facts.machines if machine.name in known]

    def inspected(self, wanted: str, objects: Objects) -> Inspected:
        """The proxy of one node. Raises ClusterError for an unknown node."""
        node = objects.node(wanted)
        if node is None:
            names = self.node_names(objects)
            raise ClusterError(
                f"there is no node {wanted}",
                f"there are: {', '.join(names)}" if names else "there are no nodes",
            )
        site = self._site(wanted)
        facts = replace(node_facts(node), service_cidrs=service_cidrs(objects.ranges))
        settings = self._settings(wanted, site.ns, facts)
        families = tuple(
            family for family in Family if any(item.version == family.version for item in facts.addresses)
        )
        return Inspected(wanted, settings, facts, site, families or (Family.IPV4,))

    def _site(self, node: str) -> Site:
        if self._alone is not None:
            return Site(node, open_namespace(self._alone.netns) if self._alone.netns else HOST)
        assert self._facts is not None
        assert self._profile is not None
        machine = self._facts.machine(node)
        if machine is None:
            raise ClusterError(f"node {node} is not a machine of cluster {self._facts.name}")
        return Site(node, open_namespace(machine.namespace), self._profile.node(node) / "xtables.lock")

    def _settings(self, node: str, ns: Namespace, facts: NodeFacts) -> ProxySettings:
        """What the proxy goes by: its file if one is given, else what it says itself, else what is known of it."""
        alone = self._alone
        if alone is not None and alone.config is not None:
            configuration: KubeProxyConfiguration | None = _read(alone.config)
        else:
            configuration = _running_configuration(ns)
        if alone is not None and alone.mode is not None:
            configuration = replace(configuration or KubeProxyConfiguration(), mode=str(alone.mode))
        if configuration is not None:
            return proxy_settings(validated(for_linux(with_defaults(configuration))), facts.addresses)
        if self._facts is not None and self._profile is not None:
            return _last_known(self._profile, self._facts, node)
        raise ClusterError(
            f"the proxy of {node} does not say how it is configured",
            f"it answers at 127.0.0.1:{METRICS_PORT}/configz while it runs; else give --mode or --config",
        )


@asynccontextmanager
async def inspection(profile: str, alone: Alone | None) -> AsyncIterator[Inspection]:
    """The cluster `profile`, or the one that a proxy alone works for. Raises ClusterError, KubeconfigError."""
    if alone is not None:
        client = Client(kubeconfig.load(alone.kubeconfig).transport(), f"netkit/{VERSION}")
        found = Inspection(client, None, alone, None)
    else:
        cluster = Profile(profile)
        facts = cluster.facts()
        client = admin_client(cluster, facts.server)
        found = Inspection(client, cluster, None, facts)
    try:
        yield found
    finally:
        await client.close()


def _last_known(profile: Profile, facts: ClusterFacts, node: str) -> ProxySettings:
    """What a node's proxy went by when it last said something, as far as the cluster's files tell."""
    machine = facts.machine(node)
    settings = ProxySettings(
        cluster_cidr=facts.pod_subnet, node_address=machine.address if machine is not None else ""
    )
    outcome = ProxyFiles(profile.node(node)).outcome()
    if outcome is None:
        return settings
    return replace(settings, mode=outcome.mode, nftables_layout=outcome.layout)


def _read(path: Path) -> KubeProxyConfiguration:
    try:
        return decode(path.read_bytes()).configuration
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from None


def _running_configuration(ns: Namespace) -> KubeProxyConfiguration | None:
    """What the proxy in a namespace says at /configz; None when nobody answers there."""
    connection = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=_PROXY_SECONDS)
    connection.sock = socket_in(ns, socket.AF_INET, socket.SOCK_STREAM)
    connection.sock.settimeout(_PROXY_SECONDS)
    try:
        connection.sock.connect(("127.0.0.1", METRICS_PORT))
        connection.request("GET", "/configz")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            return None
        document = json.loads(answer.read()).get("kubeproxy.config.k8s.io")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if not isinstance(document, dict):
        return None
    text = json.dumps({"apiVersion": API_VERSION, "kind": KIND, **document})
    return decode(text.encode()).configuration
