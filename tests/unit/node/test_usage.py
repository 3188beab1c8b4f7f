"""What containers use: measured on real processes, rates of samples, and how the kubelet tells it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import cast

import pytest

from controlplane.apiserver.usage import parse
from netkit.kernel.process_usage import by_mount_namespace, mount_namespace, usage_of
from netkit.node.kubelet.exposition import Kind, Metric, Row, render
from netkit.node.kubelet.summary import (
    MeasuredContainer,
    MeasuredPod,
    container_metrics,
    resource_metrics,
    summary,
)
from netkit.node.runtime.client import RuntimeClient, RuntimeGone
from netkit.node.runtime.meter import Meter, Spent
from netkit.node.runtime.spec import (
    BuiltinConfig,
    ContainerConfig,
    ContainerUsage,
    RuntimeUsage,
    usage_from_json,
)
from netkit.node.usage_history import History, Part, Rate, Sample
from netkit.node.usage_meter import UsageMeter

NANOS = 1_000_000_000


def config(name: str, *, builtin: bool = False) -> ContainerConfig:
    return ContainerConfig(
        id=name, pod_namespace="default", pod_name="p", pod_uid="u", name="c", attempt=0, network="n", hostname="h",
        log_path="/dev/null", builtin=BuiltinConfig("nginx") if builtin else None,
    )  # fmt: skip


@dataclass
class Running:
    config: ContainerConfig
    namespaces: tuple[int, ...] = ()
    handling_nanos: int = 0

    def mount_namespaces(self) -> tuple[int, ...]:
        return self.namespaces


def test_processes_are_measured() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint('x', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = usage_of([process.pid])
        own = by_mount_namespace([mount_namespace(os.getpid())])
        process.communicate(b"\n")
    assert used.cpu_nanos >= 0.15 * NANOS
    assert 1 << 20 < used.rss < 1 << 30
    assert used.processes == 1
    assert process.pid in next(iter(own.values()))
    assert usage_of([process.pid]).processes == 0
    assert by_mount_namespace([]) == {}


def test_the_sum_of_a_container_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program executed in it takes its time along when it ends."""
    meter, container = Meter(), Running(config("a"), (7,))
    seen = []
    for cpu in (100, 900, 300, 400):
        used = usage_of([])
        monkeypatch.setattr("netkit.node.runtime.meter.by_mount_namespace", lambda wanted: {7: [1]})
        monkeypatch.setattr(
            "netkit.node.runtime.meter.usage_of", lambda pids, cpu=cpu, used=used: type(used)(cpu_nanos=cpu)
        )
        seen.append(meter.measure([container]).containers[0].cpu_nanos)
    assert seen == [100, 900, 900, 1000]
    meter.measure([])
    assert meter.measure([container]).containers[0].cpu_nanos == 400


def test_builtin_containers_share_the_runtimes_memory() -> None:
    spent = Spent()
    with spent:
        sum(range(200_000))
    assert spent.nanos > 0
    used = Meter().measure(
        [Running(config("a", builtin=True), (), spent.nanos), Running(config("b", builtin=True))]
    )
    a, b = used.containers
    assert a.memory == b.memory > 1 << 20
    assert (a.cpu_nanos, b.cpu_nanos) == (spent.nanos, 0)
    assert used.own_memory < 2


def test_the_usage_survives_its_socket() -> None:
    import orjson

    used = Meter().measure([Running(config("a", builtin=True))])
    assert usage_from_json(orjson.loads(orjson.dumps(used))) == used


def sample(at: float, **cpu: float) -> Sample:
    containers = {
        name: ContainerUsage(id=name, cpu_nanos=int(nanos * NANOS), memory=1000)
        for name, nanos in cpu.items()
    }
    return Sample(at, containers, {"kubelet": Part(int(at * NANOS / 10), 50)})


def test_rates() -> None:
    history = History()
    assert history.node_rate() is None
    history.add(sample(100, a=10))
    assert history.rate("a", 99.5) is None  # too young
    assert history.rate("a", 80) == Rate(NANOS // 2, 20)  # since it began
    history.add(sample(103, a=10.3))
    assert history.rate("a", 80) == Rate(round(10.3 * NANOS / 23), 23)
    history.add(sample(110, a=14, b=1))
    # The youngest sample that is old enough.
    assert history.rate("a", 80) == Rate(round(3.7 * NANOS / 7), 7)
    assert history.rate("b", 108) == Rate(NANOS // 2, 2)
    assert history.rate("gone", 0) is None
    assert history.node_rate() == Rate(round((3.7 + 1 + 0.7) * NANOS / 7), 7)


def test_the_nodes_sum_keeps_what_has_ended() -> None:
    history = History()
    for each in (sample(100, a=10, b=5), sample(110, b=6), sample(120, b=7)):
        history.add(each)
    assert history.node_cpu_nanos == (10 + 7 + 12) * NANOS
    history.add(Sample(130, {}, {"kubelet": Part(0, 0)}))  # a new runtime and a new kubelet
    assert history.node_cpu_nanos == (10 + 7 + 12) * NANOS


def test_old_samples_go() -> None:
    history = History()
    for at in range(0, 400, 10):
        history.add(sample(at, a=at))
    assert len(history._samples) <= 8
    history.add(sample(10_000, a=400))
    assert history.rate("a", 0) is not None


@dataclass
class Told:
    history: History = field(default_factory=History)
    pods: list[MeasuredPod] = field(default_factory=list)


@pytest.fixture
def told() -> Told:
    history = History()
    history.add(sample(1_700_000_000, a=1))
    history.add(sample(1_700_000_010, a=6))
    usage = ContainerUsage(
        id="a", cpu_nanos=6 * NANOS, memory=3 << 20, shared_memory=1 << 20, faults=9, processes=2
    )
    known = MeasuredContainer("c", 1_699_999_990.0, usage, history.rate("a", 0))
    young = MeasuredContainer("new", 1_700_000_009.0, usage, None)
    pods = [
        MeasuredPod("default", "p", "u1", "2023-11-14T22:13:00Z", [known]),
        MeasuredPod("default", "q", "u2", "2023-11-14T22:13:00Z", [known, young]),
    ]
    return Told(history, pods)


def test_the_summary_is_understood_by_the_api_server(told: Told) -> None:
    found = summary("n1", 1_699_999_000.0, 8 << 30, told.history, told.pods)
    assert found["node"]["nodeName"] == "n1"
    assert found["pods"][0]["podRef"] == {"name": "p", "namespace": "default", "uid": "u1"}
    (container,) = found["pods"][0]["containers"]
    assert container["startTime"] == "2023-11-14T22:13:10Z"
    assert container["cpu"]["usageNanoCores"] == NANOS // 2
    assert container["memory"] == {
        "time": "2023-11-14T22:13:30Z", "usageBytes": 3 << 20, "workingSetBytes": 3 << 20, "rssBytes": 2 << 20,
        "pageFaults": 9, "majorPageFaults": 0,
    }  # fmt: skip
    usage = parse(found)
    assert usage.own is not None
    assert usage.own[0].window == 10
    # A pod with a container that is too young for a rate is left out.
    assert list(usage.pods) == [("default", "p", "u1")]
    assert usage.pods["default", "p", "u1"].containers["c"].cpu_nanos == NANOS // 2


def test_metrics_of_resources_are_prometheus_text(told: Told) -> None:
    lines = render(resource_metrics(told.history, told.pods[:1])).decode().splitlines()
    at = 1_700_000_010_000
    assert f'container_cpu_usage_seconds_total{{container="c",namespace="default",pod="p"}} 6.0 {at}' in lines
    assert f'pod_memory_working_set_bytes{{namespace="default",pod="p"}} 3145728 {at}' in lines
    assert "# TYPE node_cpu_usage_seconds_total counter" in lines
    assert "resource_scrape_error 0" in lines


def test_metrics_of_containers(told: Told) -> None:
    text = render(container_metrics(told.history, told.pods[:1], 4, 8 << 30)).decode()
    labels = 'container="c",id="/kubepods/podu1/a",image="",name="a",namespace="default",pod="p"'
    assert f'container_cpu_usage_seconds_total{{cpu="total",{labels}}} 6.0 1700000010000\n' in text
    assert f"container_processes{{{labels}}} 2 1700000010000\n" in text
    assert "machine_cpu_cores 4\n" in text


def test_labels_are_escaped() -> None:
    text = render([Metric("a", Kind.GAUGE, "h", [Row({"x": 'q"\\\n'}, 1)]), Metric("b", Kind.GAUGE, "h", [])])
    assert text == b'# HELP a h\n# TYPE a gauge\na{x="q\\"\\\\\\n"} 1\n'


class Runtime:
    """Gives or refuses a usage; stands for the runtime's client."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def usage(self) -> RuntimeUsage:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return RuntimeUsage(containers=(), own_cpu_nanos=1, own_memory=2)


async def test_a_fresh_sample_is_not_taken_again() -> None:
    runtime, now = Runtime(), [100.0]
    meter = UsageMeter(cast("RuntimeClient", runtime), lambda: now[0])
    for at, asked in ((100.0, 1), (101.0, 1), (103.0, 2)):
        now[0] = at
        await asyncio.gather(*(meter.refresh() for _ in range(3)))
        assert runtime.asked == asked
    newest = meter.history.newest
    assert newest is not None
    assert newest.parts["runtime"] == Part(1, 2)
    assert newest.parts["kubelet"].memory > 0
    now[0], runtime.error = 200.0, RuntimeGone("down")
    with pytest.raises(RuntimeGone):
        await meter.refresh()
