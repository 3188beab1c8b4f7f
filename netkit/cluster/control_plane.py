"""The control plane's process: API server, controllers and scheduler in one loop.

Run by the keeper. Its sockets are made by the launcher and kept open by the keepers, so that a restart refuses no
connection; its connections to kubelets start on the control plane's machine, on the cluster's segment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from controlplane.apiserver.authz.modes import AuthorizationSettings, Mode
from controlplane.apiserver.authz.webhook import WebhookSettings
from controlplane.apiserver.server import serve_control_plane
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.client.components import Clients
from controlplane.control_loop import ControllerSettings, keep_running, run_controllers
from netkit.cluster.config import AuthorizationConfig
from netkit.cluster.plan import API_PORT, CONTROL_PLANE, Plan
from netkit.cluster.policy import policy
from netkit.cluster.profile import Profile
from netkit.kernel.netns import Namespace, socket_in
from netkit.podnet.direct_agent import DirectRoutes
from netkit.podnet.router_agent import RouterRoutes


def control_plane_settings(plan: Plan, profile: Profile) -> ControlPlaneSettings:
    network, monitor = plan.config.network, plan.config.node_monitor
    return ControlPlaneSettings(
        data_dir=profile.directory,
        pki_dir=profile.pki,
        advertise_address=plan.control_plane,
        advertise_port=API_PORT,
        service_cidrs=(network.service_subnet,),
        node_ports=network.node_ports,
        cluster_domain=network.cluster_domain,
        server_names=(CONTROL_PLANE,),
        not_ready_seconds=monitor.eviction_after,
        unreachable_seconds=monitor.eviction_after,
        disabled_admission=plan.config.admission.disabled,
        enabled_admission=plan.config.admission.enabled,
        authorization=_authorization(plan.config.authorization),
        policy=policy(),
        authentication=plan.config.authentication,
        event_ttl_seconds=plan.config.operation.event_ttl,
        pod_security=plan.config.operation.pod_security,
        operation=plan.config.operation.in_logs(profile.logs),
    )


def _authorization(config: AuthorizationConfig) -> AuthorizationSettings:
    return AuthorizationSettings(
        tuple(Mode(mode) for mode in config.modes),
        config.abac_policy_file,
        WebhookSettings(config.webhook) if config.webhook is not None else None,
    )


def run_control_plane(
    plan: Plan, profile: Profile, sockets: Sequence[socket.socket], namespaces: Mapping[str, Namespace]
) -> int:
    """Be the control plane until killed. `namespaces` by machine name."""
    asyncio.run(_serve(plan, profile, sockets, namespaces))
    return 0


async def _serve(
    plan: Plan, profile: Profile, sockets: Sequence[socket.socket], namespaces: Mapping[str, Namespace]
) -> None:
    network, monitor = plan.config.network, plan.config.node_monitor
    ns = namespaces[CONTROL_PLANE]

    async def dial(host: str, port: int) -> socket.socket:
        sock = socket_in(ns, socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def controllers(clients: Clients, ca_pem: str) -> None:
        settings = ControllerSettings(
            cluster_cidr=str(network.pod_subnet),
            node_cidr_mask=network.node_mask,
            node_monitor_grace=monitor.grace_period,
            pki_dir=profile.pki,
        )
        # What the API server proxies to (pods, Services) is reached through the nodes.
        routes = DirectRoutes(clients.shared, ns, plan.control_plane, routers_know=plan.routers_know)
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_running("routes to pods", routes.run), name="routes to pods")
            if plan.routers_know and not plan.learned:
                pushed = RouterRoutes(
                    clients.shared,
                    [(router, namespaces[router.name]) for router in plan.router_ways()],
                    network.pod_subnet,
                )
                group.create_task(keep_running("routes in routers", pushed.run), name="routes in routers")
            group.create_task(run_controllers(clients, settings, ca_pem), name="controllers")

    await serve_control_plane(control_plane_settings(plan, profile), sockets, dial, controllers)
