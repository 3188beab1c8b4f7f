"""The processes of a cluster: which there are, and what each runs. Called by the launcher."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netkit.cluster import routing
from netkit.cluster.certificates import NodeCertificates
from netkit.cluster.control_plane import run_control_plane
from netkit.cluster.keeper import Part
from netkit.cluster.log import log_to
from netkit.cluster.node_agent import run_agent, runtime_socket
from netkit.cluster.plan import CONTROL_PLANE, Plan
from netkit.cluster.profile import Profile
from netkit.kernel import bird
from netkit.kernel.netns import Namespace
from netkit.node.runtime.main import run_runtime
from netkit.node.runtime.settings import RuntimeSettings
from netkit.podnet.bgp import configuration
from netkit.podnet.bgp_agent import write


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the API listens: on the machine's loopback and on the cluster's segment."""

    loopback: socket.socket
    segment: socket.socket


def parts(
    plan: Plan,
    profile: Profile,
    certificates: Mapping[str, NodeCertificates],
    sockets: Sockets,
    namespaces: Mapping[str, Namespace],
) -> list[Part]:
    """All parts in the order they are to be started; `namespaces` by machine name."""
    listening = (sockets.loopback, sockets.segment)

    def control_plane() -> int:
        return run_control_plane(plan, profile, listening, namespaces)

    def runtime(name: str) -> int:
        _close(sockets)
        state = profile.node(name)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = (profile.pki, profile.directory)
        run_runtime(RuntimeSettings(name, runtime_socket(profile, name), state, hidden))
        return 0

    def agent(name: str) -> int:
        _close(sockets)
        return run_agent(plan, profile, name, namespaces[name], certificates[name])

    def bgp(name: str) -> int:
        _close(sockets)
        file = routing.configuration_file(profile, name)
        if name not in plan.nodes or not file.exists():
            # A node's agent writes it anew as soon as the pods' range is known.
            topology = plan.topology
            speaker = routing.speaker(topology, topology.machine(name))
            pods, known = plan.config.network.pod_subnet, routing.segments(topology)
            write(file, configuration(speaker, pods, known))
        return bird.become(namespaces[name], file, routing.control_socket(profile, name))

    made = [_part(profile, CONTROL_PLANE, control_plane)]
    if plan.learned:
        speaking = [*(router.name for router in plan.routers), *plan.nodes]
        made = [_part(profile, f"bgp-{name}", lambda name=name: bgp(name)) for name in speaking] + made  # type: ignore[misc]
    for name in plan.nodes:
        made.append(_part(profile, f"runtime-{name}", lambda name=name: runtime(name)))  # type: ignore[misc]
        made.append(_part(profile, f"agent-{name}", lambda name=name: agent(name)))  # type: ignore[misc]
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
