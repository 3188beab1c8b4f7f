"""A node's agent process: the kubelet's part, the pod network, its policies and kube-proxy, each with its own identity.

Run by the keeper, one process per node. All its connections to the API start inside the node's namespace, as a real
node's do: a node that is cut off is cut off.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from controlplane.apiserver.pki import CertificatePaths
from controlplane.client.client import Client
from controlplane.client.events import EventRecorder
from controlplane.client.https import HttpsTransport
from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit import VERSION
from netkit.cluster import routing
from netkit.cluster.certificates import NodeCertificates
from netkit.cluster.network_choice import ChoiceFile, OutcomeFile
from netkit.cluster.node_network import NodeNetwork
from netkit.cluster.node_policy import COMPONENT, IsolatedPods, policy_agent
from netkit.cluster.node_proxy import node_proxy
from netkit.cluster.plan import KUBELET_PORT, Plan
from netkit.cluster.profile import Profile
from netkit.cluster.proxy_choice import ProxyFiles
from netkit.cni.network import ExternalNetwork
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace, socket_in
from netkit.node.agent import NodeAgent
from netkit.node.settings import KubeletTls, NodeSettings
from netkit.podnet.agent import PodNetworkAgent
from netkit.podnet.bgp_agent import Announcer
from netkit.proxy.modes import Site


def runtime_socket(profile: Profile, name: str) -> Path:
    """Where a node's runtime listens."""
    return profile.run / f"{name}.sock"


def run_agent(plan: Plan, profile: Profile, name: str, ns: Namespace, certificates: NodeCertificates) -> int:
    """Be the agent of node `name` until killed; a part that fails ends the process, and the keeper starts it again."""
    asyncio.run(_run(plan, profile, name, ns, certificates))
    return 0


async def _run(
    plan: Plan, profile: Profile, name: str, ns: Namespace, certificates: NodeCertificates
) -> None:
    state = profile.node(name)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    ledger = Ledger(profile.ledger, name)
    lock_file = state / "xtables.lock"
    iptables = IPTables(ns, lock_file=lock_file)
    kubelet = _client(plan, profile, ns, certificates.agent, "kubelet")
    proxy = _client(plan, profile, ns, certificates.proxy, "kube-proxy")
    network = _client(plan, profile, ns, certificates.pod_network, "pod-network")
    isolation = _client(plan, profile, ns, certificates.network_policy, COMPONENT)
    config = plan.config
    mode = NodeNetwork(ChoiceFile(profile.directory), OutcomeFile(state), config.network.setting)
    others = config.network.cni
    external = None
    if others is not None:
        external = ExternalNetwork(
            config.name, ns, plan.nodes[name], state, ledger, others.conflist, others.path, lock_file
        )
    pods = PodNetworkAgent(
        network,
        name,
        ns,
        plan.nodes[name],
        config.network.pod_subnet,
        state,
        ledger,
        cluster=config.name,
        iptables=iptables,
        setting=mode.choice().setting,
        attach=config.network.attach,
        network=external,
        underlay=plan.underlay(name),
    )

    async def all_nodes() -> list[Object]:
        # A kubelet sees its own node only.
        return (await network.list(NODE)).items

    settings = _node_settings(plan, profile, name, ns, certificates)
    # Those who enforce policies may write nothing, so the node itself tells of what it cannot do.
    events = EventRecorder(kubelet, COMPONENT, name)
    policies = policy_agent(isolation, name, ns, events)
    node = NodeAgent(settings, kubelet, IsolatedPods(pods.network, policies), ledger, all_nodes)
    site = Site(name, ns, lock_file)
    rules = node_proxy(proxy, site, config, str(plan.nodes[name]), ProxyFiles(state))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pods.run(), name="pod network")
            group.create_task(mode.run(pods), name="pod network's mode")
            if plan.learned:
                group.create_task(_announcer(plan, profile, name, network).run(), name="BGP")
            group.create_task(rules.run(), name="proxy")
            group.create_task(policies.run(), name="policies")
            group.create_task(node.run(), name="kubelet")
    finally:
        await events.close()
        await isolation.close()
        await kubelet.close()
        await proxy.close()
        await network.close()


def _announcer(plan: Plan, profile: Profile, name: str, client: Client) -> Announcer:
    topology = plan.topology
    return Announcer(
        client,
        routing.speaker(topology, topology.machine(name)),
        plan.config.network.pod_subnet,
        routing.segments(topology),
        routing.configuration_file(profile, name),
        routing.control_socket(profile, name),
    )


def _client(plan: Plan, profile: Profile, ns: Namespace, paths: CertificatePaths, agent: str) -> Client:
    def make(family: int, kind: int, protocol: int) -> socket.socket:
        return socket_in(ns, family, kind, protocol)

    transport = HttpsTransport(
        plan.inside_server,
        ca=profile.pki / "ca.crt",
        certificate=paths.cert,
        key=paths.key,
        socket_factory=make,
    )
    return Client(transport, f"{agent}/{VERSION}")


def _node_settings(
    plan: Plan, profile: Profile, name: str, ns: Namespace, certificates: NodeCertificates
) -> NodeSettings:
    config = plan.config
    return NodeSettings(
        cluster=config.name,
        node_name=name,
        node_address=str(plan.nodes[name]),
        node_ns=ns,
        state_dir=profile.node(name),
        runtime_socket=runtime_socket(profile, name),
        image_file=profile.images,
        cluster_domain=config.network.cluster_domain,
        cluster_dns=str(plan.cluster_dns),
        lease_seconds=max(1, round(config.node_monitor.lease_duration)),
        tls=KubeletTls(certificates.kubelet.cert, certificates.kubelet.key, profile.pki / "ca.crt"),
        kubelet_port=KUBELET_PORT,
        labels=plan.node_labels(name),
    )
