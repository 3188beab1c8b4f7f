"""Benchmark of the API server: reads, durable writes, lists, a watch with many followers, and memory.

    .venv/bin/python tests/bench/api.py [--runs N]

Everything goes over TLS and keep-alive between two processes on loopback; no root. Each case is compared with its
floor, taken in turns: aiohttp's bare server in a process of its own that answers the same bytes (`api_servers.py`).
`CPU` rows are what the server's process used for one request, which other load on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.api_client import Connection, load, request
from bench.report import Figure, report

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
CLIENTS = 32
LISTERS = 4
WATCHERS = 100
LISTED = 1000
CONFIG_MAPS = 10_000
TYPE = {"apiVersion": "v1", "kind": "Pod"}


def pod(name: str, node: str = "") -> bytes:
    """A pod as a Deployment makes them."""
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5}
    environment: list[dict[str, Any]] = [
        {"name": f"SETTING_{number}", "value": f"value of setting {number}"} for number in range(8)
    ]
    fields = ("metadata.name", "metadata.namespace", "status.podIP", "spec.nodeName")
    environment += [
        {"name": path.upper().replace(".", "_"), "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for path in fields
    ]
    container = {
        "name": "web",
        "image": "registry.example/shop/frontend:1.27.3",
        "env": environment,
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "frontend-5d4f", "uid": "0" * 36}
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "frontend", "tier": "web", "pod-template-hash": "5d4f"},
            "annotations": {"shop.example/checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "containers": [container],
            **({"nodeName": node} if node else {}),
            "volumes": [{"name": "settings", "configMap": {"name": "frontend"}}],
        },
    }
    return json.dumps(obj).encode()


def running(obj: dict[str, Any]) -> bytes:
    """The pod with the status of one that runs; it is about 3 KB then."""
    now = obj["metadata"]["creationTimestamp"]
    state = {
        "name": "web",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    image = obj["spec"]["containers"][0]["image"]
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    obj["status"] = {
        "phase": "Running",
        "conditions": [{"type": name, "status": "True", "lastTransitionTime": now} for name in types],
        "hostIP": "172.18.0.3",
        "podIP": "10.244.1.17",
        "startTime": now,
        "containerStatuses": [
            {**state, "image": image, "imageID": image, "containerID": f"netkit://{'0' * 64}"}
        ],
    }
    return json.dumps(obj).encode()


@dataclass
class Server:
    """A server's process."""

    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Seconds of processor time it has used: its clock, by the kernel's numbering of clocks."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self) -> float:
        """Megabytes, PSS."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no Pss")


@contextmanager
def server(name: str, directory: Path) -> Iterator[Server]:
    program = Path(__file__).with_name("api_servers.py")
    process = subprocess.Popen(
        [sys.executable, str(program), name, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))
    finally:
        process.communicate(timeout=20)


@contextmanager
def fresh_server() -> Iterator[tuple[Path, Server]]:
    """A control plane over an empty store, and its directory."""
    temporary = tempfile.TemporaryDirectory(prefix="bench-api-")
    with temporary as name, server("control-plane", Path(name)) as ours:
        yield Path(name), ours


def client_tls(directory: Path) -> ssl.SSLContext:
    pki = directory / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    return context


@dataclass
class Case:
    """One kind of request: `ours` and `bare` give the requests of one run to either server."""

    name: str
    unit: str
    clients: int
    count: int
    ours: Callable[[str], Iterator[bytes]]
    bare: bytes
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    bare_rates: list[float] = field(default_factory=list)
    bare_costs: list[float] = field(default_factory=list)

    def figures(self) -> Iterator[Figure]:
        rate, cost = statistics.median(self.bare_rates), statistics.median(self.bare_costs)
        yield Figure(self.name, self.unit, tuple(self.rates), rate, "bare aiohttp")
        yield Figure("  CPU of one", "us", tuple(self.costs), cost, "bare aiohttp")


class Bench:
    """Both servers, and the connections to them."""

    def __init__(self, directory: Path, ours: Server) -> None:
        self.directory = directory
        self.ours = ours
        self.tls = client_tls(directory)
        self._serial = itertools.count()

    async def namespace(self, connection: Connection) -> str:
        """A new one in which pods can be made."""
        name = f"bench-{next(self._serial)}"
        metadata = {"metadata": {"name": name}}
        account = {"metadata": {"name": "default"}}
        await connection.ask(request("POST", "/api/v1/namespaces", json.dumps(metadata).encode()))
        path = f"/api/v1/namespaces/{name}/serviceaccounts"
        await connection.ask(request("POST", path, json.dumps(account).encode()))
        return name

    async def measure(self, target: Server, case: Case, requests: Iterator[bytes]) -> tuple[float, float]:
        """Requests per second, and microseconds of the server's processor time for one."""
        connections = [await Connection.open(target.port, self.tls) for _ in range(case.clients)]
        before = target.cpu()
        seconds = await load(connections, requests)
        used = target.cpu() - before
        for connection in connections:
            connection.close()
        return case.count / seconds, used / case.count * 1e6


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def creates(count: int) -> Callable[[str], Iterator[bytes]]:
    return lambda namespace: (
        request("POST", pods_of(namespace), pod(f"frontend-5d4f-{number:05}")) for number in range(count)
    )


def updates(present: Sequence[dict[str, Any]], count: int) -> Callable[[str], Iterator[bytes]]:
    """Each pod in turn gets another annotation."""

    def requests(namespace: str) -> Iterator[bytes]:
        for number in range(count):
            obj = json.loads(json.dumps(present[number % len(present)]))
            metadata = obj["metadata"]
            metadata["annotations"]["shop.example/run"] = f"{namespace}-{number}"
            del metadata["resourceVersion"]
            path = f"{pods_of(metadata['namespace'])}/{metadata['name']}"
            yield request("PUT", path, json.dumps(obj).encode())

    return requests


def patches(names: Sequence[str], namespace: str, count: int) -> Callable[[str], Iterator[bytes]]:
    """Each pod in turn gets another label by a merge patch."""

    def requests(run: str) -> Iterator[bytes]:
        for number in range(count):
            path = f"{pods_of(namespace)}/{names[number % len(names)]}"
            patch = {"metadata": {"labels": {"run": f"{run}-{number}"}}}
            kind = "application/merge-patch+json"
            yield request("PATCH", path, json.dumps(patch).encode(), content_type=kind)

    return requests


def applies(count: int, changing: bool) -> Callable[[str], Iterator[bytes]]:
    """Server-side applies of 100 Deployments in turn; when `changing` each time with another image."""

    def requests(namespace: str) -> Iterator[bytes]:
        template = json.loads(pod("x"))
        for number in range(count):
            name = f"frontend-{number % 100}"
            spec = {**template["spec"]}
            image = f"registry.example/shop/frontend:{number // 100 if changing else 1}"
            spec["containers"] = [{**spec["containers"][0], "image": image}]
            obj = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "labels": {"app": "frontend"}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "frontend"}},
                    "template": {"metadata": {"labels": {"app": "frontend"}}, "spec": spec},
                },
            }
            path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}?fieldManager=bench&force=true"
            kind = "application/apply-patch+yaml"
            yield request("PATCH", path, json.dumps(obj).encode(), content_type=kind)

    return requests


def same(data: bytes, count: int) -> Callable[[str], Iterator[bytes]]:
    return lambda _: itertools.repeat(data, count)


async def cases(bench: Bench, connection: Connection) -> list[Case]:
    """Fills a namespace to read from, and leaves the answers the floor is to give."""
    namespace = await bench.namespace(connection)
    writers = [await Connection.open(bench.ours.port, bench.tls) for _ in range(CLIENTS)]
    names = [f"frontend-5d4f-{number:05}" for number in range(LISTED)]
    await load(writers, (request("POST", pods_of(namespace), pod(name, "node-1")) for name in names))
    listed = await connection.ask(request("GET", pods_of(namespace)))
    made = zip(names, json.loads(listed)["items"], strict=True)
    await load(
        writers,
        (
            request("PUT", f"{pods_of(namespace)}/{name}/status", running({**TYPE, **obj}))
            for name, obj in made
        ),
    )
    for writer in writers:
        writer.close()
    one = request("GET", f"{pods_of(namespace)}/frontend-5d4f-00000")
    every = request("GET", pods_of(namespace))
    table = request("GET", pods_of(namespace), accept=TABLE)
    listed = await connection.ask(every)
    items = json.loads(listed)["items"]
    stored = await connection.ask(one)
    answers = {
        "get": stored,
        "create": stored,
        "list": listed,
        "table": await connection.ask(table),
        "event": b'{"type":"ADDED","object":' + stored + b"}\n",
    }
    folder = bench.directory / "answers"
    folder.mkdir()
    for name, body in answers.items():
        (folder / name).write_bytes(body)
    bare_write = request("POST", "/create", pod("frontend-5d4f-00000"))
    size = len(stored)
    many, few = f"{CLIENTS} clients", f"{LISTERS} clients"
    return [
        Case(f"GET pod of {size} B, {many}", "/s", CLIENTS, 3000, same(one, 3000), request("GET", "/get")),
        Case("create pod, 1 client", "/s", 1, 300, creates(300), bare_write),
        Case(f"create pod, {many}", "/s", CLIENTS, 800, creates(800), bare_write),
        Case(f"update pod, {many}", "/s", CLIENTS, 800, updates(items, 800), bare_write),
        Case(f"merge patch of pod, {many}", "/s", CLIENTS, 800, patches(names, namespace, 800), bare_write),
        Case(f"server-side apply, {many}", "/s", CLIENTS, 800, applies(800, True), bare_write),
        Case(f"  of nothing new, {many}", "/s", CLIENTS, 800, applies(800, False), bare_write),
        Case(f"LIST {LISTED} pods, {few}", "/s", LISTERS, 80, same(every, 80), request("GET", "/list")),
        Case(f"Table of {LISTED} pods, {few}", "/s", LISTERS, 60, same(table, 60), request("GET", "/table")),
    ]


def commits(directory: Path, value: bytes, count: int = 200) -> float:
    """Durable transactions per second of one such value each, by SQLite alone."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        database = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE records (revision INTEGER PRIMARY KEY, key TEXT, value BLOB)")
        begin = time.perf_counter()
        for number in range(count):
            database.execute(
                "INSERT INTO records VALUES (?, ?, ?)", (number, f"/registry/pods/{number}", value)
            )
        seconds = time.perf_counter() - begin
        database.close()
        return count / seconds


@dataclass
class FanOut:
    """What a number of watchers of the same objects see."""

    middle: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


async def fan_out(
    bench: Bench, target: Server, watch: bytes, writes: Iterator[bytes], result: FanOut
) -> None:
    """40 creates one by one: milliseconds from sending one to each watcher's receipt; then 160 in a burst."""
    delays: list[float] = []
    started, missing = 0.0, 0
    done = asyncio.Event()

    def received(count: int) -> None:
        nonlocal missing
        missing -= count
        delays.append(time.perf_counter() - started)
        if missing <= 0:
            done.set()

    watchers = [await Connection.open(target.port, bench.tls, received) for _ in range(WATCHERS)]
    for watcher in watchers:
        await watcher.ask(watch)
    writers = [await Connection.open(target.port, bench.tls) for _ in range(8)]
    for data in itertools.islice(writes, 40):
        missing = WATCHERS
        done.clear()
        started = time.perf_counter()
        await writers[0].ask(data)
        await asyncio.wait_for(done.wait(), 10)
    quantiles = statistics.quantiles(delays, n=100)
    result.middle.append(quantiles[49] * 1e3)
    result.late.append(quantiles[98] * 1e3)
    burst = list(writes)
    missing = WATCHERS * len(burst)
    done.clear()
    events, used = WATCHERS * len(burst), target.cpu()
    started = time.perf_counter()
    await load(writers, iter(burst))
    await asyncio.wait_for(done.wait(), 30)
    result.rate.append(events / (time.perf_counter() - started))
    result.cost.append((target.cpu() - used) / events * 1e6)
    for connection in (*watchers, *writers):
        connection.close()


async def memory(directory: Path, ours: Server) -> list[Figure]:
    """Of a server that has done nothing before: growth by objects, and by watchers that come and go."""
    bench = Bench(directory, ours)
    connection = await Connection.open(ours.port, bench.tls)
    data = {"data": {"settings.yaml": "log: info\nlisten: 0.0.0.0:8080\n" * 24}}
    path = f"/api/v1/namespaces/{await bench.namespace(connection)}/configmaps"

    def config_maps() -> Iterator[bytes]:
        for number in range(CONFIG_MAPS):
            yield request(
                "POST", path, json.dumps({"metadata": {"name": f"settings-{number}"}, **data}).encode()
            )

    async def come_and_go() -> None:
        watchers = [await Connection.open(ours.port, bench.tls, lambda _: None) for _ in range(WATCHERS)]
        for watcher in watchers:
            await watcher.ask(request("GET", "/api/v1/services?watch=true&resourceVersion=0"))
        for watcher in watchers:
            watcher.close()
        # A connection that comes behind them is served when the server has noticed that they are gone.
        await (await Connection.open(ours.port, bench.tls)).ask(request("GET", "/readyz"))

    empty = ours.memory()
    writers = [await Connection.open(ours.port, bench.tls) for _ in range(CLIENTS)]
    seconds = await load(writers, config_maps())
    for writer in writers:
        writer.close()
    full = ours.memory()
    size = len(await connection.ask(request("GET", f"{path}/settings-0")))
    await come_and_go()
    once = ours.memory()
    for _ in range(3):
        await come_and_go()
    return [
        Figure(f"create ConfigMap of {size} B, {CLIENTS} clients", "/s", (CONFIG_MAPS / seconds,)),
        Figure("memory (PSS) at rest", "MB", (empty,)),
        Figure(f"  more with {CONFIG_MAPS} ConfigMaps of {size} B", "MB", (full - empty,)),
        Figure(f"  more after {WATCHERS} watchers came and went", "MB", (once - full,)),
        Figure(f"  more after {3 * WATCHERS} others did", "MB", (ours.memory() - once,), aim="0"),
    ]


async def watches(bench: Bench, bare: Server, connection: Connection, runs: int) -> list[Figure]:
    ours, floor = FanOut(), FanOut()
    for _ in range(runs):
        namespace = await bench.namespace(connection)
        await fan_out(
            bench, bare, request("GET", "/watch"), itertools.repeat(request("POST", "/", b"{}"), 200), floor
        )
        watch = request("GET", f"{pods_of(namespace)}?watch=true&resourceVersion=0")
        await fan_out(bench, bench.ours, watch, creates(200)(namespace), ours)
    rows = (
        (f"a create to {WATCHERS} watchers, p50 delay", "ms", "middle"),
        ("  p99 delay", "ms", "late"),
        ("  in a burst", "events/s", "rate"),
        ("  CPU of one event", "us", "cost"),
    )
    return [
        Figure(
            what,
            unit,
            tuple(getattr(ours, name)),
            statistics.median(getattr(floor, name)),
            "bare aiohttp",
        )
        for what, unit, name in rows
    ]


async def bench_all(directory: Path, ours: Server, runs: int) -> list[Figure]:
    bench = Bench(directory, ours)
    connection = await Connection.open(ours.port, bench.tls)
    measured = await cases(bench, connection)
    durable = [commits(directory, (directory / "answers" / "get").read_bytes()) for _ in range(runs)]
    figures: list[Figure] = []
    with server("floor", directory) as bare:
        for _ in range(runs):
            for case in measured:
                rate, cost = await bench.measure(bare, case, itertools.repeat(case.bare, case.count))
                case.bare_rates.append(rate)
                case.bare_costs.append(cost)
                requests = case.ours(await bench.namespace(connection))
                rate, cost = await bench.measure(ours, case, requests)
                case.rates.append(rate)
                case.costs.append(cost)
        followed = await watches(bench, bare, connection, runs)
    for case in measured:
        figures += case.figures()
    figures.append(Figure("SQLite alone: durable commits of such a pod", "/s", tuple(durable)))
    figures += followed
    connection.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with fresh_server() as (directory, ours):
        figures = asyncio.run(bench_all(directory, ours, arguments.runs))
    with fresh_server() as (directory, ours):
        figures += asyncio.run(memory(directory, ours))
    report("api", figures)


if __name__ == "__main__":
    main()
