"""What the node's containers use, as `/stats/summary` and `/metrics/resource` say it. Pure.

Names, help texts and fields are kubelet's (v1.32). There are no cgroups here: the working set is what lies in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.errors import Object
from netkit.node.kubelet.exposition import Kind, Metric, Row
from netkit.node.lifecycle.records import time_text
from netkit.node.runtime.spec import ContainerUsage
from netkit.node.usage_history import History, Rate, Sample


@dataclass(frozen=True, slots=True)
class MeasuredContainer:
    """A running container: times in seconds since the epoch."""

    name: str
    started_at: float
    usage: ContainerUsage
    rate: Rate | None
    image: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredPod:
    namespace: str
    name: str
    uid: str
    start_time: str
    containers: Sequence[MeasuredContainer]


def summary(
    node_name: str, started_at: float, capacity: int, history: History, pods: Sequence[MeasuredPod]
) -> Object:
    """The body of `/stats/summary`. `capacity` is the node's memory in bytes; `history` has a sample."""
    sample = history.newest
    assert sample is not None
    at = time_text(sample.at)
    node: Object = {
        "nodeName": node_name,
        "systemContainers": [
            {
                "name": name,
                "startTime": time_text(started_at),
                "cpu": {"time": at, "usageCoreNanoSeconds": part.cpu_nanos},
                "memory": _memory(at, part.memory, part.memory),
            }
            for name, part in sample.parts.items()
        ],
        "startTime": time_text(started_at),
        "cpu": _cpu(at, history.node_cpu_nanos, history.node_rate()),
        "memory": {
            "availableBytes": max(capacity - sample.memory, 0),
            **_memory(
                at, sample.memory, sample.memory - sum(c.shared_memory for c in sample.containers.values())
            ),
        },
    }
    return {"node": node, "pods": [_pod(at, pod) for pod in pods]}


def _pod(at: str, pod: MeasuredPod) -> Object:
    containers = [_container(at, container) for container in pod.containers]
    rates = [container.rate for container in pod.containers if container.rate is not None]
    total = Rate(sum(r.nano_cores for r in rates), max(r.window for r in rates)) if rates else None
    usages = [container.usage for container in pod.containers]
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.start_time,
        "containers": containers,
        "cpu": _cpu(at, sum(usage.cpu_nanos for usage in usages), total),
        "memory": _memory(
            at,
            sum(usage.memory for usage in usages),
            sum(usage.memory - usage.shared_memory for usage in usages),
        ),
        "process_stats": {"process_count": sum(usage.processes for usage in usages)},
    }


def _container(at: str, container: MeasuredContainer) -> Object:
    usage = container.usage
    memory = _memory(at, usage.memory, usage.memory - usage.shared_memory)
    return {
        "name": container.name,
        "startTime": time_text(container.started_at),
        "cpu": _cpu(at, usage.cpu_nanos, container.rate),
        "memory": {**memory, "pageFaults": usage.faults, "majorPageFaults": usage.major_faults},
    }


def _cpu(at: str, nanos: int, rate: Rate | None) -> Object:
    """`windowSeconds` is not kubelet's: over what time the rate was taken, for who passes it on."""
    found: Object = {"time": at, "usageCoreNanoSeconds": nanos}
    if rate is not None:
        found |= {"usageNanoCores": rate.nano_cores, "windowSeconds": round(rate.window, 3)}
    return found


def _memory(at: str, used: int, private: int) -> Object:
    return {"time": at, "usageBytes": used, "workingSetBytes": used, "rssBytes": max(private, 0)}


def resource_metrics(history: History, pods: Sequence[MeasuredPod]) -> Iterator[Metric]:
    """The families of `/metrics/resource`, in the order of their names."""
    sample = history.newest
    assert sample is not None
    at = round(sample.at * 1000)
    containers = [
        ({"container": container.name, "namespace": pod.namespace, "pod": pod.name}, container)
        for pod in pods
        for container in pod.containers
    ]
    yield Metric(
        "container_cpu_usage_seconds_total", Kind.COUNTER,
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        [Row(labels, each.usage.cpu_nanos / 1e9, at) for labels, each in containers],
    )  # fmt: skip
    yield Metric(
        "container_memory_working_set_bytes", Kind.GAUGE,
        "[STABLE] Current working set of the container in bytes",
        [Row(labels, each.usage.memory, at) for labels, each in containers],
    )  # fmt: skip
    yield Metric(
        "container_start_time_seconds", Kind.GAUGE,
        "[STABLE] Start time of the container since unix epoch in seconds",
        [Row(labels, each.started_at) for labels, each in containers],
    )  # fmt: skip
    yield from _node_and_pods(history, sample, at, pods)
    yield Metric(
        "resource_scrape_error", Kind.GAUGE,
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", [Row({}, 0)],
    )  # fmt: skip


def container_metrics(
    history: History, pods: Sequence[MeasuredPod], cores: int, memory: int
) -> Iterator[Metric]:
    """The families of `/metrics/cadvisor` there is something to say of. `cores` and `memory` are the node's."""
    sample = history.newest
    assert sample is not None
    at = round(sample.at * 1000)
    containers = [
        (
            {
                "container": container.name,
                "id": f"/kubepods/pod{pod.uid}/{container.usage.id}",
                "image": container.image,
                "name": container.usage.id,
                "namespace": pod.namespace,
                "pod": pod.name,
            },
            container,
        )
        for pod in pods
        for container in pod.containers
    ]
    yield Metric(
        "container_cpu_usage_seconds_total", Kind.COUNTER, "Cumulative cpu time consumed in seconds.",
        [Row({"cpu": "total", **labels}, each.usage.cpu_nanos / 1e9, at) for labels, each in containers],
    )  # fmt: skip
    yield Metric(
        "container_memory_rss", Kind.GAUGE, "Size of RSS in bytes.",
        [Row(labels, max(each.usage.memory - each.usage.shared_memory, 0), at) for labels, each in containers],
    )  # fmt: skip
    for name, text in (
        ("usage", "Current memory usage in bytes, including all memory regardless of when it was accessed"),
        ("working_set", "Current working set in bytes."),
    ):
        rows = [Row(labels, each.usage.memory, at) for labels, each in containers]
        yield Metric(f"container_memory_{name}_bytes", Kind.GAUGE, text, rows)
    yield Metric(
        "container_processes", Kind.GAUGE, "Number of processes running inside the container.",
        [Row(labels, each.usage.processes, at) for labels, each in containers],
    )  # fmt: skip
    yield Metric(
        "container_start_time_seconds", Kind.GAUGE, "Start time of the container since unix epoch in seconds.",
        [Row(labels, each.started_at, at) for labels, each in containers],
    )  # fmt: skip
    yield Metric("machine_cpu_cores", Kind.GAUGE, "Number of logical CPU cores.", [Row({}, cores)])
    yield Metric(
        "machine_memory_bytes", Kind.GAUGE, "Amount of memory installed on the machine.", [Row({}, memory)]
    )


def _node_and_pods(
    history: History, sample: Sample, at: int, pods: Sequence[MeasuredPod]
) -> Iterator[Metric]:
    yield Metric(
        "node_cpu_usage_seconds_total", Kind.COUNTER,
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        [Row({}, history.node_cpu_nanos / 1e9, at)],
    )  # fmt: skip
    yield Metric(
        "node_memory_working_set_bytes", Kind.GAUGE, "[STABLE] Current working set of the node in bytes",
        [Row({}, sample.memory, at)],
    )  # fmt: skip
    labelled = [({"namespace": pod.namespace, "pod": pod.name}, pod.containers) for pod in pods]
    yield Metric(
        "pod_cpu_usage_seconds_total", Kind.COUNTER,
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        [Row(labels, sum(c.usage.cpu_nanos for c in each) / 1e9, at) for labels, each in labelled],
    )  # fmt: skip
    yield Metric(
        "pod_memory_working_set_bytes", Kind.GAUGE, "[STABLE] Current working set of the pod in bytes",
        [Row(labels, sum(c.usage.memory for c in each), at) for labels, each in labelled],
    )  # fmt: skip
