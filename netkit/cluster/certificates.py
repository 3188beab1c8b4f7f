"""The certificates of a cluster's parts: each has its own, named as Kubernetes names them.

Called by the launcher before any part starts. Files lie in the cluster's `pki` directory, readable by root only.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.apiserver.authn.build import check
from controlplane.apiserver.authn.settings import DEFAULTS
from controlplane.apiserver.pki import CertificatePaths, service_account_key
from controlplane.apiserver.server_certificates import prepare_pki
from netkit.cluster.control_plane import control_plane_settings
from netkit.cluster.plan import Plan
from netkit.cluster.policy import NETWORK_POLICY_USER, POD_NETWORK_USER
from netkit.cluster.profile import Profile


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


def certify(plan: Plan, profile: Profile) -> dict[str, NodeCertificates]:
    """Make what is missing, for the control plane and every node; quick when all is there.

    Raises PkiError, OSError, and AuthenticationConfigError for files that authentication cannot be set up by.
    """
    profile.pki.mkdir(mode=0o700, exist_ok=True)
    settings = control_plane_settings(plan, profile)
    authority = prepare_pki(settings).authority
    service_account_key(profile.pki)
    if settings.authentication != DEFAULTS:
        check(settings.authentication, profile.pki, settings.cluster_domain)
    proxy = authority.ensure("kube-proxy", "system:kube-proxy")
    pod_network = authority.ensure("pod-network", POD_NETWORK_USER)
    network_policy = authority.ensure("network-policy", NETWORK_POLICY_USER)
    return {
        name: NodeCertificates(
            agent=authority.ensure(name, f"system:node:{name}", ["system:nodes"]),
            kubelet=authority.ensure(
                f"{name}-kubelet", f"system:node:{name}", (), [name], [address], server=True
            ),
            proxy=proxy,
            pod_network=pod_network,
            network_policy=network_policy,
        )
        for name, address in plan.nodes.items()
    }
