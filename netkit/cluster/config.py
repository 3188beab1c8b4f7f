"""A cluster's configuration: what `netkit up` was asked for, checked as a whole before anything is made.

Values come from one YAML file (all fields optional) and the command line's options. Pure: reads no system state
but the file it is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Final

import yaml

from controlplane.apiserver.admission.chain import ORDER as ADMISSION_PLUGINS
from controlplane.apiserver.authn.settings import DEFAULTS, AuthenticationSettings
from netkit.cluster.api_config import authentication
from netkit.cluster.cni_config import CniConfig, attach, cni
from netkit.cluster.errors import ConfigError
from netkit.cluster.fields import Fields
from netkit.cluster.operation_config import OperationConfig, operation
from netkit.cluster.operation_config import check as check_operation
from netkit.cluster.proxy_config import proxy
from netkit.cluster.roster import MAX_NODES
from netkit.cluster.topology import Role, Topology
from netkit.cluster.topology_file import find
from netkit.cluster.topology_file import parse as parse_topology
from netkit.fabric.spec import MIN_MTU
from netkit.podnet.attach import Attach
from netkit.podnet.modes import NetworkMode, Setting
from netkit.podnet.overlay import OVERHEAD
from netkit.proxy.configuration.document import KubeProxyConfiguration
from netkit.proxy.detector import DetectLocalMode

DEFAULT_NAME: Final = "lab"
API_VERSION: Final = "kube-netkit/v1alpha1"
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$")


class RouteSource(StrEnum):
    """`network.routes`: how routers come to know which node has which pods."""

    NONE = "none"
    STATIC = "static"
    BGP = "bgp"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Address ranges and the pod network. `segment` None = the first free /16 of 172.18 to 172.31.

    `mode` is what the cluster begins with. `direct_routing` goes with vxlan: no tunnel between nodes of one link.
    `attach` is how pods hang on their nodes; with external, `cni` says which plug-ins attach them.
    `routes` counts where there are routers. `mtu` is that of the segment where there is no topology.
    """

    mode: NetworkMode = NetworkMode.VXLAN
    direct_routing: bool = False
    attach: Attach = Attach.BRIDGE
    cni: CniConfig | None = None
    routes: RouteSource = RouteSource.STATIC
    pod_subnet: IPv4Network = IPv4Network("10.244.0.0/16")
    node_mask: int = 24
    service_subnet: IPv4Network = IPv4Network("10.96.0.0/12")
    segment: IPv4Network | None = None
    mtu: int = 1500
    cluster_domain: str = "cluster.local"
    node_ports: tuple[int, int] = (30000, 32767)

    @property
    def setting(self) -> Setting:
        """The mode with its options."""
        node_routes = self.cni is not None and self.cni.node_routes
        return Setting(self.mode, self.direct_routing, node_routes=node_routes)


@dataclass(frozen=True, slots=True)
class NodeMonitorConfig:
    """How fast a lost node is noticed and its pods are replaced, in seconds. Defaults are Kubernetes'."""

    lease_duration: float = 40.0
    grace_period: float = 40.0
    eviction_after: int = 300


AUTHORIZATION_MODES = ("AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node")


@dataclass(frozen=True, slots=True)
class AuthorizationConfig:
    """Who decides what users may do, in order. `webhook` is a kubeconfig that names the server to ask."""

    modes: tuple[str, ...] = ("Node", "RBAC")
    abac_policy_file: Path | None = None
    webhook: Path | None = None


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """Admission plug-ins switched off, and on where they are off by default, by Kubernetes' names."""

    disabled: tuple[str, ...] = ()
    enabled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything `up` needs to know. `api_port` 0 = a free port of the loopback.

    `proxy` lacks what differs from node to node. With a topology, `nodes` is how many it has.
    """

    name: str = DEFAULT_NAME
    nodes: int = 3
    api_port: int = 0
    network: NetworkConfig = NetworkConfig()
    proxy: KubeProxyConfiguration = field(default_factory=lambda: proxy(Fields(None, "proxy")))
    node_monitor: NodeMonitorConfig = NodeMonitorConfig()
    admission: AdmissionConfig = AdmissionConfig()
    authorization: AuthorizationConfig = AuthorizationConfig()
    authentication: AuthenticationSettings = DEFAULTS
    operation: OperationConfig = field(default_factory=OperationConfig)
    topology: Topology | None = None

    def node_names(self) -> list[str]:
        if self.topology is not None:
            return [machine.name for machine in self.topology.of(Role.NODE)]
        return [f"node{index}" for index in range(1, self.nodes + 1)]


def check_name(name: str) -> str:
    """The name if it can be one: it becomes part of namespace and link names."""
    if not _NAME.match(name):
        raise ConfigError(
            f"{name!r} cannot be a cluster's name",
            "use up to 20 lower-case letters, digits and dashes, such as lab or blue-2",
        )
    return name


def load(
    path: Path | None, *, name: str | None = None, nodes: int | None = None, topology: str | None = None
) -> ClusterConfig:
    """The configuration in `path` (None = all defaults), with the options laid over it, checked. `topology` is a
    ready-made one's name or a file.

    Raises ConfigError with the path of the field at fault.
    """
    config = parse(_read(path)) if path else ClusterConfig()
    if topology is not None:
        config = _with_topology(config, find(topology))
    if name is not None:
        config = replace(config, name=name)
    if nodes is not None:
        if config.topology is not None:
            raise ConfigError("--nodes: the topology says which nodes there are", "add them to its file")
        config = replace(config, nodes=nodes)
    return check(config)


def _with_topology(config: ClusterConfig, topology: Topology) -> ClusterConfig:
    return replace(config, topology=topology, nodes=len(topology.of(Role.NODE)))


def _read(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{path}: {why}") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', error)}") from None


def parse(document: object) -> ClusterConfig:
    """The configuration a parsed document states; every unknown field and wrong type is an error."""
    top = Fields(document)
    base, network, monitor = ClusterConfig(), NetworkConfig(), NodeMonitorConfig()
    top.text("apiVersion", API_VERSION, (API_VERSION,))
    top.text("kind", "Cluster", ("Cluster",))
    net = top.section("network")
    pod_subnet = net.network("podSubnet", network.pod_subnet)
    service_subnet = net.network("serviceSubnet", network.service_subnet)
    assert pod_subnet is not None
    assert service_subnet is not None
    mode = NetworkMode(net.text("mode", network.mode, tuple(NetworkMode)))
    network = NetworkConfig(
        mode=mode,
        direct_routing=net.flag("directRouting", network.direct_routing),
        attach=attach(net, mode),
        cni=cni(net, mode),
        routes=RouteSource(net.text("routes", network.routes, tuple(RouteSource))),
        pod_subnet=pod_subnet,
        node_mask=net.number("nodeMask", network.node_mask, 16, 29),
        service_subnet=service_subnet,
        segment=net.network("segment", None),
        mtu=net.number("mtu", network.mtu, 1280, 65535),
        cluster_domain=net.text("clusterDomain", network.cluster_domain),
        node_ports=net.ports("nodePortRange", network.node_ports),
    )
    net.finish()
    proxied = proxy(top.section("proxy"))
    section = top.section("nodeMonitor")
    monitor = NodeMonitorConfig(
        lease_duration=section.seconds("leaseDuration", monitor.lease_duration),
        grace_period=section.seconds("gracePeriod", monitor.grace_period),
        eviction_after=int(section.seconds("evictionAfter", monitor.eviction_after)),
    )
    section.finish()
    api = top.section("api")
    port = api.number("port", 0, 0, 65535)
    admission = AdmissionConfig(
        disabled=api.texts("disableAdmissionPlugins", (), ADMISSION_PLUGINS),
        enabled=api.texts("enableAdmissionPlugins", (), ADMISSION_PLUGINS),
    )
    authorization = AuthorizationConfig(
        modes=api.texts("authorizationMode", base.authorization.modes, AUTHORIZATION_MODES),
        abac_policy_file=api.path("abacPolicyFile"),
        webhook=api.path("authorizationWebhook"),
    )
    authenticators = authentication(api)
    operated = operation(api)
    api.finish()
    config = ClusterConfig(
        name=top.text("name", base.name),
        nodes=top.number("nodes", base.nodes, 1, MAX_NODES),
        api_port=port,
        network=network,
        proxy=proxied,
        node_monitor=monitor,
        admission=admission,
        authorization=authorization,
        authentication=authenticators,
        operation=operated,
    )
    if top.has("topology"):
        if "nodes" in top.given:
            raise ConfigError("nodes: the topology says which nodes there are", "leave it out")
        given = top.anything("topology")
        config = _with_topology(config, find(given) if isinstance(given, str) else parse_topology(given))
    top.finish()
    return config


def check(config: ClusterConfig) -> ClusterConfig:
    """The configuration itself when its parts fit together; ConfigError says what does not."""
    check_name(config.name)
    if not 1 <= config.nodes <= MAX_NODES:
        raise ConfigError(f"nodes: {config.nodes} is not between 1 and {MAX_NODES}")
    for plugin in config.admission.disabled:
        if plugin in config.admission.enabled:
            raise ConfigError(f"api.disableAdmissionPlugins: {plugin} is in api.enableAdmissionPlugins too")
    _check_network(config)
    _check_authorization(config.authorization)
    check_operation(config.operation)
    return config


def _check_network(config: ClusterConfig) -> None:
    network = config.network
    if network.direct_routing and network.mode is not NetworkMode.VXLAN:
        raise ConfigError(
            f"network.directRouting: goes with mode vxlan, and the mode is {network.mode}",
            "native has no tunnel to do without, and wireguard never sends in the clear",
        )
    if network.attach is Attach.PTP and config.proxy.detect_local_mode == DetectLocalMode.BRIDGE_INTERFACE:
        raise ConfigError(
            "proxy.detectLocalMode: BridgeInterface needs a bridge, and with network.attach ptp there is none",
            "use ClusterCIDR, NodeCIDR, or InterfaceNamePrefix with the prefix veth",
        )
    mtu = min(_mtu(config.topology)) if config.topology is not None else network.mtu
    if network.mode is NetworkMode.VXLAN and mtu - OVERHEAD < MIN_MTU:
        raise ConfigError(
            f"network.mode: vxlan needs {OVERHEAD} bytes of {mtu}, and leaves pods less than {MIN_MTU}",
            "give links a larger mtu, or use mode native",
        )
    if network.routes is RouteSource.BGP and (config.topology is None or not config.topology.of(Role.ROUTER)):
        raise ConfigError(
            "network.routes: bgp needs routers, and there are none", "name a topology with routers"
        )
    _check_ranges(config)
    if network.service_subnet.prefixlen > 28:
        raise ConfigError(
            f"network.serviceSubnet: {network.service_subnet} is too small, at least a /28 is needed"
        )
    available = 2 ** max(network.node_mask - network.pod_subnet.prefixlen, 0)
    if network.node_mask < network.pod_subnet.prefixlen or available < config.nodes:
        raise ConfigError(
            f"network.podSubnet: {network.pod_subnet} has room for {available if available > 1 else 'not even one'}"
            f" node range(s) of /{network.node_mask}, {config.nodes} needed"
        )


def _mtu(topology: Topology) -> list[int]:
    """Of everything there is."""
    links = [each.link.mtu for machine in topology.machines for each in machine.interfaces if each.link.mtu]
    return [*links, *(segment.mtu for segment in topology.segments)]


def _check_ranges(config: ClusterConfig) -> None:
    """Whether every range is one that can be, and apart from all others."""
    network = config.network
    ranges = {"network.podSubnet": network.pod_subnet, "network.serviceSubnet": network.service_subnet}
    if network.segment is not None:
        ranges["network.segment"] = network.segment
        if network.segment.prefixlen > 23:
            raise ConfigError(f"network.segment: {network.segment} is too small, at least a /23 is needed")
    for number, segment in enumerate(config.topology.segments if config.topology is not None else ()):
        if segment.subnet is not None:
            ranges[f"topology.segments[{number}].subnet"] = segment.subnet
    for (name_a, range_a), (name_b, range_b) in combinations(ranges.items(), 2):
        if range_a.overlaps(range_b):
            raise ConfigError(
                f"{name_a} {range_a} overlaps {name_b} {range_b}", "choose ranges that are apart"
            )
    for name, net in ranges.items():
        if net.is_loopback or net.is_multicast or net.is_link_local or net.network_address == IPv4Address(0):
            raise ConfigError(f"{name}: {net} cannot be used for a cluster")


def _check_authorization(config: AuthorizationConfig) -> None:
    if not config.modes:
        raise ConfigError("api.authorizationMode: at least one mode is needed", "write [Node, RBAC]")
    for mode in config.modes:
        if config.modes.count(mode) > 1:
            raise ConfigError(f"api.authorizationMode: {mode} is given twice")
    for mode, name, path in (
        ("ABAC", "api.abacPolicyFile", config.abac_policy_file),
        ("Webhook", "api.authorizationWebhook", config.webhook),
    ):
        if mode in config.modes and path is None:
            raise ConfigError(f"{name}: is needed with authorizationMode {mode}")
        if mode not in config.modes and path is not None:
            raise ConfigError(
                f"{name}: is given, but {mode} is not in authorizationMode",
                f"add {mode} to api.authorizationMode",
            )
        if path is not None and not path.is_file():
            raise ConfigError(f"{name}: {path} is not a file")
