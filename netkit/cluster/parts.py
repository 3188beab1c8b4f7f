"""The processes of a cluster: which there are, and what each runs. Called by the launcher."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netkit.cluster import routing
from netkit.cluster.certificates import node_certificates
from netkit.cluster.control_plane import run_control_plane
from netkit.cluster.keeper import Part
from netkit.cluster.log import log_to
from netkit.cluster.node_agent import run_agent, runtime_socket
from netkit.cluster.plan import CONTROL_PLANE, Plan
from netkit.cluster.profile import Profile
from netkit.cluster.roster import NodeState
from netkit.fabric.shaping import held, hold_back
from netkit.fabric.spec import SWITCH, namespace_name
from netkit.kernel import bird, file_write
from netkit.kernel.netns import Namespace, open_namespace
from netkit.node.runtime.main import run_runtime
from netkit.node.runtime.settings import RuntimeSettings
from netkit.podnet.bgp import configuration


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the API listens: on the machine's loopback and on the cluster's segment."""

    loopback: socket.socket
    segment: socket.socket


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """The labels of a node's parts."""

    agent: str
    runtime: str
    bgp: str


def node_labels(name: str) -> NodeLabels:
    return NodeLabels(f"agent-{name}", f"runtime-{name}", f"bgp-{name}")


def parts(plan: Plan, profile: Profile, sockets: Sockets, staying: Mapping[str, Namespace]) -> list[Part]:
    """All parts there shall be, in the order they are to be started. `staying` are the namespaces of the control plane
    and of routers by name; nodes' are opened by who works in them.
    """
    listening = (sockets.loopback, sockets.segment)

    def control_plane() -> int:
        return run_control_plane(plan, profile, listening, staying)

    def runtime(name: str) -> int:
        _close(sockets)
        state = profile.node(name)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = (profile.pki, profile.directory)
        run_runtime(RuntimeSettings(name, runtime_socket(profile, name), state, hidden))
        return 0

    def agent(name: str) -> int:
        _close(sockets)
        with open_namespace(namespace_name(plan.config.name, name)) as ns:
            return run_agent(plan, profile, name, ns, node_certificates(profile, name))

    def bgp(name: str) -> int:
        _close(sockets)
        file = routing.configuration_file(profile, name)
        if name not in plan.nodes or not file.exists():
            # A node's agent writes it anew as soon as the pods' range is known.
            topology = plan.topology
            speaker = routing.speaker(topology, topology.machine(name))
            pods, known = plan.config.network.pod_subnet, routing.segments(topology)
            file_write.replace(file, configuration(speaker, pods, known))
        with open_namespace(namespace_name(plan.config.name, name)) as ns:
            return bird.become(ns, file, routing.control_socket(profile, name))

    def speaking(name: str) -> Callable[[], int]:
        return lambda: bgp(name)

    def links() -> int:
        _close(sockets)
        with open_namespace(namespace_name(plan.config.name, SWITCH)) as switch:
            hold_back(switch, plan.fabric())

    made = [_part(profile, CONTROL_PLANE, control_plane)]
    if held(plan.fabric()) and not plan.netem:
        made.append(_part(profile, "links", links))
    if plan.learned:
        made = [*(_part(profile, f"bgp-{each.name}", speaking(each.name)) for each in plan.routers), *made]
    for node in plan.current().nodes:
        labels = node_labels(node.name)
        if node.state is NodeState.STOPPED:
            continue
        made.append(_part(profile, labels.runtime, lambda name=node.name: runtime(name)))  # type: ignore[misc]
        if node.state is NodeState.RUNNING:
            if plan.learned:
                made.append(_part(profile, labels.bgp, speaking(node.name)))
            made.append(_part(profile, labels.agent, lambda name=node.name: agent(name)))  # type: ignore[misc]
    return made


def _part(profile: Profile, label: str, main: Callable[[], int]) -> Part:
    def run() -> int:
        log_to(profile.logs / f"{label}.log")
        return main()

    return Part(label, run)


def _close(sockets: Sockets) -> None:
    """Only the control plane and the keepers hold the API's sockets."""
    sockets.loopback.close()
    sockets.segment.close()
