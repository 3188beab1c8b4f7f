"""What the kubelet API lets look at: health, pods, configuration, usage and metrics. Routes of `server`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import orjson
from aiohttp import web

from controlplane.errors import Object
from controlplane.meta.quantity import Quantity
from netkit import KUBERNETES_VERSION
from netkit.kernel.process_usage import usage_of
from netkit.node.kubelet.exposition import CONTENT_TYPE, Kind, Metric, Row, render
from netkit.node.kubelet.summary import (
    MeasuredContainer,
    MeasuredPod,
    container_metrics,
    resource_metrics,
    summary,
)
from netkit.node.pods import Pods
from netkit.node.settings import NodeSettings
from netkit.node.usage_history import History
from netkit.node.usage_meter import UsageMeter
from netkit.node.worker import PodWorker


class Inspection:
    """The handlers. RuntimeGone and RuntimeRefused are the server's to answer."""

    def __init__(self, settings: NodeSettings, pods: Pods, meter: UsageMeter) -> None:
        self._settings = settings
        self._pods = pods
        self._meter = meter
        self._started_at = time.time()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path in ("/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"):
            router.add_get(path, self._healthz)
        for path, handler in (
            ("/pods", self._list_pods),
            ("/runningpods", self._running_pods),
            ("/configz", self._configz),
            ("/stats/summary", self._summary),
            ("/metrics", self._metrics),
            ("/metrics/cadvisor", self._container_metrics),
            ("/metrics/resource", self._resource_metrics),
        ):
            router.add_get(path, handler)
            router.add_get(f"{path}/", handler)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _list_pods(self, request: web.Request) -> web.StreamResponse:
        return _json(_pod_list(self._pods.all()))

    async def _running_pods(self, request: web.Request) -> web.StreamResponse:
        """What runs, by the runtime's word: no more of a pod than its names and its running containers."""
        found = [_running(worker) for worker in self._pods.workers() if worker.views.running()]
        return _json(_pod_list(found))

    async def _configz(self, request: web.Request) -> web.StreamResponse:
        return _json({"kubeletconfig": _configuration(self._settings)})

    async def _summary(self, request: web.Request) -> web.StreamResponse:
        history = await self._meter.refresh()
        pods = self._measured(history)
        memory = self._capacity("memory")
        return _json(summary(self._settings.node_name, self._started_at, memory, history, pods))

    async def _resource_metrics(self, request: web.Request) -> web.StreamResponse:
        history = await self._meter.refresh()
        return _exposed(resource_metrics(history, self._measured(history)))

    async def _container_metrics(self, request: web.Request) -> web.StreamResponse:
        history = await self._meter.refresh()
        size = self._capacity("cpu"), self._capacity("memory")
        return _exposed(container_metrics(history, self._measured(history), *size))

    def _capacity(self, resource: str) -> int:
        return Quantity.parse(self._settings.capacity.get(resource, "0")).whole()

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return _exposed(self._own_metrics())

    def _measured(self, history: History) -> Sequence[MeasuredPod]:
        newest = history.newest
        usages = newest.containers if newest is not None else {}
        found = []
        for worker in self._pods.workers():
            metadata, records = worker.pod["metadata"], worker.views.running()
            containers = [
                MeasuredContainer(
                    record.name,
                    record.started_at,
                    usages[record.id],
                    history.rate(record.id, record.started_at),
                    record.image,
                )
                for record in records
                if record.id in usages
            ]
            if containers:
                started = (worker.pod.get("status") or {}).get("startTime") or ""
                pod = (metadata["namespace"], metadata["name"], worker.uid, started)
                found.append(MeasuredPod(*pod, containers))
        return found

    def _own_metrics(self) -> Iterator[Metric]:
        workers = self._pods.workers()
        running = [worker for worker in workers if worker.views.running()]
        views = [view for worker in workers for view in worker.views.by_name.values()]
        states = {
            "exited": sum(view.exited is not None for view in views),
            "running": sum(view.running for view in views),
        }
        node = self._settings.node_name
        yield Metric(
            "kubelet_node_name", Kind.GAUGE, "[ALPHA] The node's name. The count is always 1.", [Row({"node": node}, 1)]
        )  # fmt: skip
        yield Metric(
            "kubelet_running_containers", Kind.GAUGE, "[ALPHA] Number of containers currently running",
            [Row({"container_state": state}, count) for state, count in states.items() if count],
        )  # fmt: skip
        yield Metric(
            "kubelet_running_pods", Kind.GAUGE, "[ALPHA] Number of pods that have a running pod sandbox",
            [Row({}, len(running))],
        )  # fmt: skip
        major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
        version = {"git_version": KUBERNETES_VERSION, "major": major, "minor": minor}
        yield Metric(
            "kubernetes_build_info", Kind.GAUGE,
            "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version from which Kubernetes"
            " was built.",
            [Row(version, 1)],
        )  # fmt: skip
        yield Metric(
            "process_cpu_seconds_total", Kind.COUNTER, "Total user and system CPU time spent in seconds.",
            [Row({}, time.process_time())],
        )  # fmt: skip
        yield Metric(
            "process_resident_memory_bytes", Kind.GAUGE, "Resident memory size in bytes.",
            [Row({}, usage_of([os.getpid()]).rss)],
        )  # fmt: skip
        yield Metric(
            "process_start_time_seconds", Kind.GAUGE, "Start time of the process since unix epoch in seconds.",
            [Row({}, self._started_at)],
        )  # fmt: skip


def _running(worker: PodWorker) -> Object:
    metadata = worker.pod["metadata"]
    containers = [{"name": r.name, "image": r.image, "resources": {}} for r in worker.views.running()]
    names = {name: metadata[name] for name in ("name", "namespace", "uid")}
    return {
        "metadata": {**names, "creationTimestamp": None},
        "spec": {"containers": containers},
        "status": {},
    }


def _pod_list(pods: Sequence[Object]) -> Object:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}


def _configuration(settings: NodeSettings) -> Object:
    """What there is of KubeletConfiguration."""
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": True,
        "address": settings.node_address,
        "port": settings.kubelet_port,
        "authentication": {
            "x509": {"clientCAFile": str(settings.tls.client_ca) if settings.tls else ""},
            "webhook": {"enabled": False},
            "anonymous": {"enabled": False},
        },
        "clusterDomain": settings.cluster_domain,
        "clusterDNS": [settings.cluster_dns] if settings.cluster_dns else [],
        "resolvConf": str(settings.resolv_conf),
        "nodeLeaseDurationSeconds": settings.lease_seconds,
        "nodeStatusReportFrequency": f"{settings.status_seconds:g}s",
        "maxPods": int(settings.capacity.get("pods", "110")),
        "containerRuntimeEndpoint": f"unix://{settings.runtime_socket}",
        "registerNode": True,
    }


def _json(body: Object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _exposed(metrics: Iterator[Metric]) -> web.Response:
    return web.Response(body=render(metrics), headers={"Content-Type": CONTENT_TYPE})
