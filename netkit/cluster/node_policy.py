"""A node's NetworkPolicies: the agent that writes them, and a pod network that waits for it.

Put together by the node's agent process.
"""

from __future__ import annotations

from ipaddress import ip_address

from controlplane.client.client import Client
from controlplane.client.events import WARNING, EventRecorder
from controlplane.resources.catalog import NODE
from netkit.kernel.netns import Namespace
from netkit.podnet.network import NetworkNotReady
from netkit.podnet.node_pods import NodePods
from netkit.podnet.pod import NO_WISHES, PodRef, RuntimeConfig, Sandbox
from netkit.policy.agent import NotIsolatedYet, PolicyAgent
from netkit.policy.backend import PolicyBackend, node_tables

COMPONENT = "network-policy"


def policy_agent(client: Client, node_name: str, ns: Namespace, events: EventRecorder) -> PolicyAgent:
    """The agent of one node; what users should hear of becomes an Event on its Node."""

    def report(reason: str, message: str) -> None:
        events.event(NODE, {"metadata": {"name": node_name}}, WARNING, reason, message)

    return PolicyAgent(client, node_name, PolicyBackend(node_tables(ns)), report)


class IsolatedPods:
    """The pod network as the kubelet part sees it: a sandbox is ready when its pod's policies are in force.

    No container has started by then, so a pod is isolated from its first instant.
    """

    def __init__(self, network: NodePods, policies: PolicyAgent) -> None:
        self._network = network
        self._policies = policies

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox:
        """The pod's sandbox. Raises what `PodNetwork.add` does, and NetworkNotReady while policies are not in force."""
        sandbox = await self._network.add(pod, host_network, config)
        if not host_network:
            try:
                await self._policies.admit(
                    (pod.namespace, pod.name), pod.uid, tuple(map(ip_address, sandbox.addresses))
                )
            except NotIsolatedYet as error:
                raise NetworkNotReady(str(error)) from error
        return sandbox

    async def remove(self, uid: str) -> None:
        await self._network.remove(uid)

    async def list(self) -> dict[str, Sandbox]:
        return await self._network.list()
