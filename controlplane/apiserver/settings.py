"""What one control plane must be told. Made by `netkit.cluster` and by tests; read by the composition."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from controlplane.apiserver.admission.pod_security import PodSecurityConfiguration
from controlplane.apiserver.authn.settings import DEFAULTS, AuthenticationSettings
from controlplane.apiserver.authz.modes import AuthorizationSettings
from controlplane.apiserver.operation import OperationSettings
from controlplane.errors import Object

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_DEFAULT_AUTHORIZATION = AuthorizationSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneSettings:
    """What one control plane must be told.

    `data_dir` holds the store, `pki_dir` the certificates. `advertise_address` and `advertise_port` are where pods
    reach the API server behind the Service `kubernetes`; without an address that Service has no endpoints.
    `service_cidrs` in the order of preference, one per IP family; `node_ports` first and last, both included.
    `server_names` are further names and addresses that clients call the server by. `event_ttl_seconds`: how long an
    Event lives after its last write. `not_ready_seconds` and `unreachable_seconds`: how long pods stay on a node that
    is lost. `pod_security` is what the admission plug-in of that name does where namespaces say nothing. `operation`
    are limits and the audit log. `disabled_admission` and `enabled_admission` are names of admission plug-ins
    (`admission.chain.ORDER`).
    `authorization` says which authorizers are asked; `policy` are roles and bindings of the cluster's own parts beside
    Kubernetes' defaults.
    """

    data_dir: Path
    pki_dir: Path
    advertise_address: IPAddress | None = None
    advertise_port: int = 6443
    service_cidrs: tuple[IPNetwork, ...] = (IPv4Network("10.96.0.0/12"),)
    node_ports: tuple[int, int] = (30000, 32767)
    cluster_domain: str = "cluster.local"
    server_names: tuple[str, ...] = ()
    authentication: AuthenticationSettings = DEFAULTS
    authorization: AuthorizationSettings = _DEFAULT_AUTHORIZATION
    policy: tuple[Object, ...] = ()
    event_ttl_seconds: float = 3600.0
    not_ready_seconds: int = 300
    unreachable_seconds: int = 300
    disabled_admission: tuple[str, ...] = ()
    enabled_admission: tuple[str, ...] = ()
    pod_security: PodSecurityConfiguration = field(default_factory=PodSecurityConfiguration)
    operation: OperationSettings = field(default_factory=OperationSettings)

    @property
    def api_service_ip(self) -> IPAddress:
        """The ClusterIP of `default/kubernetes`: the first address of the first Service range."""
        return self.service_cidrs[0].network_address + 1
