"""The certificates of a cluster's parts: each has its own, named as Kubernetes names them.

Called by the launcher before any part starts. Files lie in the cluster's `pki` directory, readable by root only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from controlplane.apiserver.authn.build import check
from controlplane.apiserver.authn.settings import DEFAULTS
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths, service_account_key
from controlplane.apiserver.server_certificates import prepare_pki
from netkit.cluster.control_plane import control_plane_settings
from netkit.cluster.plan import Plan
from netkit.cluster.policy import NETWORK_POLICY_USER, POD_NETWORK_USER
from netkit.cluster.profile import Profile

_SHARED: Final = {
    "kube-proxy": "system:kube-proxy",
    "pod-network": POD_NETWORK_USER,
    "network-policy": NETWORK_POLICY_USER,
}
"""Files and users of what runs on every node under one name, in the order of `NodeCertificates`."""


@dataclass(frozen=True, slots=True)
class NodeCertificates:
    """One node's identities: its agent as a client of the API, its kubelet server, its proxy, its pod network,
    and what enforces NetworkPolicies.
    """

    agent: CertificatePaths
    kubelet: CertificatePaths
    proxy: CertificatePaths
    pod_network: CertificatePaths
    network_policy: CertificatePaths


def certify(plan: Plan, profile: Profile) -> None:
    """Make what is missing, for the control plane and every node; quick when all is there.

    Raises PkiError, OSError, and AuthenticationConfigError for files that authentication cannot be set up by.
    """
    profile.pki.mkdir(mode=0o700, exist_ok=True)
    settings = control_plane_settings(plan, profile)
    authority = prepare_pki(settings).authority
    service_account_key(profile.pki)
    if settings.authentication != DEFAULTS:
        check(settings.authentication, profile.pki, settings.cluster_domain)
    for stem, user in _SHARED.items():
        authority.ensure(stem, user)
    for name, address in plan.nodes.items():
        _certify_node(authority, name, address)


def certify_nodes(profile: Profile, nodes: Mapping[str, IPv4Address]) -> None:
    """Make these nodes' certificates (name to address) in a cluster that has all others. Raises PkiError, OSError."""
    if nodes:
        authority = CertificateAuthority.load_or_create(profile.pki)
        for name, address in nodes.items():
            _certify_node(authority, name, address)


def node_certificates(profile: Profile, name: str) -> NodeCertificates:
    """Where a node's certificates lie."""

    def paths(stem: str) -> CertificatePaths:
        return CertificatePaths(profile.pki / f"{stem}.crt", profile.pki / f"{stem}.key")

    agent, kubelet = map(paths, _node_stems(name))
    return NodeCertificates(agent, kubelet, *map(paths, _SHARED))


def forget_node(profile: Profile, name: str) -> None:
    """Remove the certificates of a node that is gone."""
    own = node_certificates(profile, name)
    for pair in (own.agent, own.kubelet):
        pair.cert.unlink(missing_ok=True)
        pair.key.unlink(missing_ok=True)


def _certify_node(authority: CertificateAuthority, name: str, address: IPv4Address) -> None:
    agent, kubelet = _node_stems(name)
    authority.ensure(agent, f"system:node:{name}", ["system:nodes"])
    authority.ensure(kubelet, f"system:node:{name}", (), [name], [address], server=True)


def _node_stems(name: str) -> tuple[str, str]:
    return name, f"{name}-kubelet"
