"""Series about parts of the server beside its requests: storage, watches, decisions about users, controllers' queues,
aggregated servers. Read when asked; the parts themselves only count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from controlplane.apiserver.aggregation.registrations import Registrations
from controlplane.apiserver.metrics.series import Counter, Description, Gauge, Labels, Series
from controlplane.client.workqueue import NAMED_QUEUES

_NAME = ("name",)


def counted(name: str, text: str, labels: Sequence[str], values: Mapping[Labels, float]) -> Counter:
    counter = Counter(Description(name, text, labels))
    counter.values.update(values)
    return counter


def storage_series(file: Path) -> Sequence[Series]:
    """`file` is the store's; what was not yet merged into it counts as well."""

    def size() -> Mapping[Labels, float]:
        files = [path for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]
        return {("etcd-0",): float(sum(path.stat().st_size for path in files))}

    text = "[STABLE] Bytes of the store's file."
    return (Gauge(Description("apiserver_storage_size_bytes", text, ("storage_cluster_id",)), size),)


def watch_series(events: Mapping[Labels, float]) -> Series:
    """`events` by group, version and kind."""
    text = "[ALPHA] Events sent to watchers."
    return counted("apiserver_watch_events_total", text, ("group", "version", "kind"), events)


def aggregator_series(registrations: Registrations) -> Sequence[Series]:
    def unavailable() -> Mapping[Labels, float]:
        return {(one.name,): float(not one.is_available) for one in registrations.all().values()}

    text = "[ALPHA] Whether an aggregated server cannot be asked now."
    return (Gauge(Description("aggregator_unavailable_apiservice", text, _NAME), unavailable),)


def queue_series() -> Sequence[Series]:
    """The queues of the controllers in this process."""
    queues = sorted(NAMED_QUEUES, key=lambda queue: queue.name)
    depth: dict[Labels, float] = {}
    adds: dict[Labels, float] = {}
    retries: dict[Labels, float] = {}
    for queue in queues:
        labels = (queue.name,)
        depth[labels] = depth.get(labels, 0.0) + queue.depth
        adds[labels] = adds.get(labels, 0.0) + queue.adds
        retries[labels] = retries.get(labels, 0.0) + queue.retries
    return (
        Gauge(Description("workqueue_depth", "[ALPHA] Keys that wait.", _NAME), lambda: depth),
        counted("workqueue_adds_total", "[ALPHA] Keys added.", _NAME, adds),
        counted("workqueue_retries_total", "[ALPHA] Keys that come again after a failure.", _NAME, retries),
    )
