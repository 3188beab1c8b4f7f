"""Benchmark of the proxy's sync in iptables mode: 1000 Services of 5 endpoints, in full, and one endpoint changed.

    sudo .venv/bin/python tests/bench/proxy_sync.py [--services N] [--endpoints N] [--runs N]

Each load is compared with its floor: iptables-restore started by itself with the very same text, in turns with
ours, on tables that hold the rules already (as after a restart). Works in a namespace of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report, timed
from support.proxy import Object, feed, service, slice_of

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.ledger import Ledger
from netkit.proxy.addresses import Family
from netkit.proxy.choice import NodeView
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.iptables.book import RuleBook, Standing
from netkit.proxy.iptables.rules import IPTablesSettings
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16")


def service_objects(index: int, endpoints: int, *, moved: bool = False) -> tuple[Object, Object]:
    """One Service and its slice; `moved`: its first endpoint has another address."""
    name = f"ns{index % 20}/svc-{index}"
    serials = range(index * endpoints, (index + 1) * endpoints)
    addresses = [f"10.244.{serial // 250 % 250}.{serial % 250 + 2}" for serial in serials]
    if moved:
        addresses[0] = "10.244.251.7"
    ports = [{"name": "http", "port": 8080}]
    cluster_ip = f"10.{96 + index // 62500}.{index // 250 % 250}.{index % 250 + 1}"
    return service(name, cluster_ip, [{"name": "http", "port": 80}]), slice_of(name, *addresses, ports=ports)


def state_of(objects: list[Object]) -> ProxyState:
    state = ProxyState(Family.IPV4)
    feed(state, *objects)
    state.collect()
    state.mark_synced()
    return state


class TimedIPTables(IPTables):
    """The driver, noting the last document and how long its load took."""

    text = ""
    took = 0.0

    async def restore(self, text: str, *, noflush: bool = True, counters: bool = False) -> None:
        started = time.perf_counter()
        await super().restore(text, noflush=noflush, counters=counters)
        self.text, self.took = text, time.perf_counter() - started


def floor(space: netns.Namespace, program: str, text: str) -> float:
    """Seconds of the bare program. Jumps are in place already, and must not come twice."""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("-I "))
    with netns.entered(space):
        return timed(
            lambda: subprocess.run(
                [program, "-w", "5", "--noflush", "--counters"], input=lines.encode(), check=True
            )
        )


async def full_syncs(iptables: TimedIPTables, program: str, state: ProxyState, runs: int) -> Iterator[Figure]:
    """A restarted agent (nothing rendered yet), and the hourly full sync (everything is)."""
    figures = []
    for name, keep in (("restart", False), ("again", True)):
        backend = IPTablesBackend("bench", SETTINGS, iptables)
        await backend.sync(state, None)
        ours, bare = [], []
        for _ in range(runs):
            if not keep:
                backend = IPTablesBackend("bench", SETTINGS, iptables)
            started = time.perf_counter()
            await backend.sync(state, None)
            ours.append(time.perf_counter() - started)
            bare.append(floor(iptables.ns, program, iptables.text))
        figures.append(figure(f"{iptables.variant}: full sync, {name}", ours, bare))
    return iter(figures)


async def one_endpoint(
    iptables: TimedIPTables, program: str, state: ProxyState, services: int, endpoints: int, runs: int
) -> Iterator[Figure]:
    """One endpoint of one Service moves, there and back again."""
    backend = IPTablesBackend("bench", SETTINGS, iptables)
    await backend.sync(state, None)
    ours, bare, pure = [], [], []
    for run in range(runs * 2):
        _, changed = service_objects(services // 2, endpoints, moved=run % 2 == 0)
        started = time.perf_counter()
        state.upsert_slice(changed)
        await backend.sync(state, state.collect())
        ours.append(time.perf_counter() - started)
        pure.append(ours[-1] - iptables.took)
        state.mark_synced()
        # A document can be loaded twice: the chain it deletes is declared, thus made, first.
        bare.append(floor(iptables.ns, program, iptables.text))
    variant = iptables.variant
    return iter(
        [
            figure(f"{variant}: one endpoint, state and render", pure),
            figure(f"{variant}: one endpoint, sync", ours, bare),
        ]
    )


async def unchanged(iptables: TimedIPTables, state: ProxyState, runs: int) -> Figure:
    backend = IPTablesBackend("bench", SETTINGS, iptables)
    await backend.sync(state, None)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        written = (await backend.sync(state, state.collect())).wrote
        times.append(time.perf_counter() - started)
        assert not written
    return figure(f"{iptables.variant}: nothing changed, sync", times)


def figure(name: str, seconds: list[float], bare: list[float] | None = None) -> Figure:
    milliseconds = tuple(value * 1e3 for value in seconds)
    if bare is None:
        return Figure(name, "ms", milliseconds)
    return Figure(name, "ms", milliseconds, statistics.median(bare) * 1e3, "bare restore")


@contextmanager
def driver(variant: Variant) -> Iterator[TimedIPTables]:
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(Path(directory), "bench")
        name = f"nkbench{os.getpid()}-{variant}"
        with netns.create(name, ledger) as space:
            try:
                yield TimedIPTables(space, variant, lock_file=Path(directory) / "lock")
            finally:
                netns.delete(name, ledger)


async def bench(services: int, endpoints: int, runs: int) -> list[Figure]:
    objects = [obj for index in range(services) for obj in service_objects(index, endpoints)]
    state = state_of(objects)
    rules = IPTablesSettings(detector=SETTINGS.detector(Family.IPV4))
    figures = [
        figure("objects to state", [timed(lambda: state_of(objects)) for _ in range(runs)]),
        figure(
            "render full",
            [
                timed(lambda: RuleBook(Family.IPV4, rules, NodeView("bench")).full(state, Standing()))
                for _ in range(runs)
            ],
        ),
    ]
    for variant, program in installed_variants().items():
        with driver(variant) as iptables:
            figures += await full_syncs(iptables, program, state, runs)
            figures += await one_endpoint(iptables, program, state, services, endpoints, runs)
            figures.append(await unchanged(iptables, state, runs))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=5, help="per Service")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    figures = asyncio.run(bench(arguments.services, arguments.endpoints, arguments.runs))
    report(f"proxy_sync_{arguments.services}x{arguments.endpoints}", figures)


if __name__ == "__main__":
    main()
