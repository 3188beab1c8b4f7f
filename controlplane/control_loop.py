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
from functools import partial
from pathlib import Path

from controlplane.apiserver.authn.keys import signing_key
from controlplane.apiserver.authn.service_account import legacy_token
from controlplane.client.backoff import Backoff
from controlplane.client.components import Clients
from controlplane.client.informer import Informers
from controlplane.client.known_kinds import DiscoveredKinds
from controlplane.controllers.bootstrap_tokens.cleaner import TokenCleaner
from controlplane.controllers.bootstrap_tokens.signer import BootstrapSigner
from controlplane.controllers.certificates.approving_controller import CertificateApprovingController
from controlplane.controllers.certificates.cleaning_controller import CertificateCleaningController
from controlplane.controllers.certificates.issuing import Signer
from controlplane.controllers.certificates.signing_controller import CertificateSigningController
from controlplane.controllers.clusterrole_aggregation import ClusterRoleAggregationController
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
from controlplane.controllers.policy_status import PolicyStatusController
from controlplane.controllers.replicaset.controller import ReplicaSetController
from controlplane.controllers.replicaset.flavours import REPLICATION_CONTROLLERS
from controlplane.controllers.resource_quota import ResourceQuotaController
from controlplane.controllers.root_ca import RootCaController
from controlplane.controllers.service_account import ServiceAccountController
from controlplane.controllers.service_account_token import ServiceAccountTokenController
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
    long pods stay on an unreachable node is said by their tolerations, which admission fills in. `pki_dir` holds the
    keys that sign certificates and ServiceAccount tokens; without it neither is signed.
    """

    cluster_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    node_monitor_grace: float = 40.0
    pod_gc_quarantine: float = 40.0
    pki_dir: Path | None = None


async def run_controllers(clients: Clients, settings: ControllerSettings, ca_pem: str) -> None:
    """Run everything until cancelled, each controller as itself. `ca_pem` is published to all namespaces."""
    informers = Informers(clients.shared)
    kinds = DiscoveredKinds(clients.shared, informers, [kind for kind in KINDS if "watch" in kind.verbs])
    own = clients.controller
    kinds = DiscoveredKinds(clients.shared, informers, KINDS)
    cluster_cidr = ipaddress.ip_network(settings.cluster_cidr)
    replication = own("replication-controller")
    mirroring = own("endpointslicemirroring-controller")
    nodes = own("node-controller")
    claims, volumes = own("pvc-protection-controller"), own("pv-protection-controller")
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "daemonset": DaemonSetController(own("daemon-set-controller"), informers).run,
        "deployment": DeploymentController(own("deployment-controller"), informers).run,
        "replicaset": ReplicaSetController(own("replicaset-controller"), informers).run,
        "replicationcontroller": ReplicaSetController(replication, informers, REPLICATION_CONTROLLERS).run,
        "statefulset": StatefulSetController(own("statefulset-controller"), informers).run,
        "job": JobController(own("job-controller"), informers).run,
        "cronjob": CronJobController(own("cronjob-controller"), informers).run,
        "ttl after finished": TtlAfterFinishedController(own("ttl-after-finished-controller"), informers).run,
        "disruption": DisruptionController(own("disruption-controller"), informers).run,
        "resource quota": ResourceQuotaController(own("resourcequota-controller"), informers, kinds).run,
        "scheduler": Scheduler(clients.scheduler, informers).run,
        "endpoints": EndpointsController(own("endpoint-controller"), informers).run,
        "endpointslice": EndpointSliceController(own("endpointslice-controller"), informers).run,
        "endpointslicemirroring": EndpointSliceMirroringController(mirroring, informers).run,
        "discovery": kinds.run,
        "namespace": NamespaceController(own("namespace-controller"), informers, kinds).run,
        "node lifecycle": NodeLifecycleController(nodes, informers, settings.node_monitor_grace).run,
        "taint eviction": TaintEvictionController(nodes, informers).run,
        "node ipam": NodeIpamController(nodes, informers, cluster_cidr, settings.node_cidr_mask).run,
        "pod gc": PodGarbageController(
            own("pod-garbage-collector"), informers, settings.pod_gc_quarantine
        ).run,
        "validating admission policy status": PolicyStatusController(
            own("validatingadmissionpolicy-status-controller"), informers, KINDS
        ).run,
        "garbage collector": GarbageCollector(own("generic-garbage-collector"), informers, kinds).run,
        "cluster role aggregation": ClusterRoleAggregationController(
            own("clusterrole-aggregation-controller"), informers
        ).run,
        "service account": ServiceAccountController(own("service-account-controller"), informers).run,
        "service cidr": ServiceCidrController(own("service-cidrs-controller"), informers).run,
        "ip repair": IPAddressRepairController(clients.api_server, informers).run,
        "storage protection": StorageProtectionController(claims, volumes, informers).run,
        "root ca": RootCaController(own("root-ca-cert-publisher"), informers, ca_pem).run,
        "csr approving": CertificateApprovingController(own("certificate-controller"), informers).run,
        "csr cleaner": CertificateCleaningController(own("certificate-controller"), informers).run,
        "token cleaner": TokenCleaner(own("token-cleaner"), informers).run,
        "bootstrap signer": BootstrapSigner(own("bootstrap-signer"), informers).run,
    }
    if settings.pki_dir is not None:
        key = signing_key((settings.pki_dir / "sa.key").read_bytes())
        signer = Signer.load(settings.pki_dir)
        parts["csr signing"] = CertificateSigningController(
            own("certificate-controller"), informers, signer
        ).run
        parts["service account token"] = ServiceAccountTokenController(
            clients.shared, informers, partial(legacy_token, key=key), ca_pem
        ).run
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
