"""All controllers and the scheduler in one task group, over one set of informers.

Called by whoever runs the control plane. A controller that crashes is started again with a growing delay; the
others do not notice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.known_kinds import DiscoveredKinds
from controlplane.controllers.cronjob.controller import CronJobController
from controlplane.controllers.daemonset.controller import DaemonSetController
from controlplane.controllers.deployment.controller import DeploymentController
from controlplane.controllers.disruption.controller import DisruptionController
from controlplane.controllers.endpoints.endpoints_controller import EndpointsController
from controlplane.controllers.endpoints.mirroring_controller import EndpointSliceMirroringController
from controlplane.controllers.endpoints.slice_controller import EndpointSliceController
from controlplane.controllers.garbage_collector import GarbageCollector
from controlplane.controllers.job.controller import JobController
from controlplane.controllers.namespace import NamespaceController
from controlplane.controllers.node_ipam import NodeIpamController
from controlplane.controllers.node_lifecycle.controller import NodeLifecycleController
from controlplane.controllers.pod_gc import PodGarbageController
from controlplane.controllers.replicaset.controller import ReplicaSetController
from controlplane.controllers.replicaset.flavours import REPLICATION_CONTROLLERS
from controlplane.controllers.resource_quota import ResourceQuotaController
from controlplane.controllers.root_ca import RootCaController
from controlplane.controllers.service_account import ServiceAccountController
from controlplane.controllers.service_cidr import IPAddressRepairController, ServiceCidrController
from controlplane.controllers.statefulset.controller import StatefulSetController
from controlplane.controllers.storage_protection import StorageProtectionController
from controlplane.controllers.taint_eviction import TaintEvictionController
from controlplane.controllers.ttl_after_finished import TtlAfterFinishedController
from controlplane.resources.catalog import KINDS
from controlplane.scheduler.scheduler import Scheduler

log = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 0.1
_LONGEST_RESTART_SECONDS = 30.0
_STABLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Choices of one cluster. Times in seconds.

    `cluster_cidr` is cut into ranges of prefix length `node_cidr_mask`, one per node. A node without a sign
    of life for `node_monitor_grace` is unreachable; a deleted node's pods go after `pod_gc_quarantine`. How
    long pods stay on an unreachable node is said by their tolerations, which admission fills in.
    """

    cluster_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    node_monitor_grace: float = 40.0
    pod_gc_quarantine: float = 40.0


async def run_controllers(client: Client, settings: ControllerSettings, ca_pem: str) -> None:
    """Run everything until cancelled. `ca_pem` is published to all namespaces."""
    informers = Informers(client)
    kinds = DiscoveredKinds(client, informers, KINDS)
    cluster_cidr = ipaddress.ip_network(settings.cluster_cidr)
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "daemonset": DaemonSetController(client, informers).run,
        "deployment": DeploymentController(client, informers).run,
        "replicaset": ReplicaSetController(client, informers).run,
        "replicationcontroller": ReplicaSetController(client, informers, REPLICATION_CONTROLLERS).run,
        "statefulset": StatefulSetController(client, informers).run,
        "job": JobController(client, informers).run,
        "cronjob": CronJobController(client, informers).run,
        "ttl after finished": TtlAfterFinishedController(client, informers).run,
        "disruption": DisruptionController(client, informers).run,
        "resource quota": ResourceQuotaController(client, informers, kinds).run,
        "scheduler": Scheduler(client.named("kube-scheduler"), informers).run,
        "endpoints": EndpointsController(client, informers).run,
        "endpointslice": EndpointSliceController(client, informers).run,
        "endpointslicemirroring": EndpointSliceMirroringController(client, informers).run,
        "discovery": kinds.run,
        "namespace": NamespaceController(client, informers, kinds).run,
        "node lifecycle": NodeLifecycleController(client, informers, settings.node_monitor_grace).run,
        "taint eviction": TaintEvictionController(client, informers).run,
        "node ipam": NodeIpamController(client, informers, cluster_cidr, settings.node_cidr_mask).run,
        "pod gc": PodGarbageController(client, informers, settings.pod_gc_quarantine).run,
        "garbage collector": GarbageCollector(client, informers, kinds).run,
        "service account": ServiceAccountController(client, informers).run,
        "service cidr": ServiceCidrController(client, informers).run,
        "ip repair": IPAddressRepairController(client, informers).run,
        "storage protection": StorageProtectionController(client, informers).run,
        "root ca": RootCaController(client, informers, ca_pem).run,
    }
    async with asyncio.TaskGroup() as group:
        group.create_task(informers.run(), name="informers")
        for name, run in parts.items():
            group.create_task(keep_running(name, run), name=name)


async def keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Call `run` again whenever it ends by an exception, waiting a little longer each time."""
    backoff = Backoff(_FIRST_RESTART_SECONDS, _LONGEST_RESTART_SECONDS)
    while True:
        started = time.monotonic()
        try:
            await run()
        except Exception:
            if time.monotonic() - started > _STABLE_SECONDS:
                backoff.reset()
            delay = backoff.next()
            log.exception("%s: crashed, starting again in %.1f s", name, delay)
            await asyncio.sleep(delay)
        else:
            return
