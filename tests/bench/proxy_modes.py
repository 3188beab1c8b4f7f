"""Benchmark of the proxy modes: loading everything, and what one change costs, as clusters grow.

    sudo .venv/bin/python tests/bench/proxy_modes.py [--modes M,M] [--services N,N] [--endpoints N] [--runs N]

Every mode and size runs in a process and a namespace of its own. The ratios are against a peer of the same run: the
program iptables-legacy-restore, loading the same Services by itself into empty tables (full load) and with one
endpoint changed (changes). Modes that this kernel lacks are named and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.proxy_objects import Mode, service_objects, space, state_of
from bench.report import Figure, report

from netkit.kernel import netns
from netkit.kernel.errors import Unsupported
from netkit.kernel.iptables import IPTables
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.modes import backends
from netkit.proxy.state import ProxyState

MODES = ("iptables-legacy", "iptables-nft", "nftables", "nftables-compact", "userspace")
SLOW = {"iptables-nft": 1000, "userspace": 1000}
"""Sizes up to which a mode is measured: the nft variant of iptables is quadratic, userspace needs a socket each."""

FULL, ADOPT, MOVED, ADDED, REMOVED = (
    "full load",
    "restart, all stands",
    "one endpoint changed",
    "one Service added",
    "one Service removed",
)
CPU, MEMORY = "full load, CPU", "memory of the process"


class _Peer:
    """iptables-restore loading by itself the documents that the mode iptables made."""

    def __init__(self, driver: IPTables) -> None:
        self.driver = driver
        self.document = ""
        restore = driver.restore

        async def noted(text: str, *, noflush: bool = True, counters: bool = False) -> None:
            self.document = text
            await restore(text, noflush=noflush, counters=counters)

        driver.restore = noted  # type: ignore[method-assign]

    def seconds(self) -> float:
        program = ["iptables-legacy-restore", "-w", "5", "--noflush", "--counters"]
        lines = [line for line in self.document.splitlines(keepends=True) if not line.startswith("-I ")]
        with netns.entered(self.driver.ns):
            started = time.perf_counter()
            subprocess.run(program, input="".join(lines).encode(), check=True)
            return time.perf_counter() - started


async def measure(mode: Mode, services: int, endpoints: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each figure; CPU in ms as well, memory in MB."""
    objects = [obj for index in range(services) for obj in service_objects(index, endpoints)]
    state = state_of(objects)
    found: dict[str, list[float]] = {}
    with space() as (made, directory):
        site = mode.site(made, directory)

        def fresh() -> Backend:
            (backend,) = backends(mode.settings, site, [Family.IPV4])
            return backend

        backend = fresh()
        for _ in range(runs):
            await backend.cleanup()
            backend = fresh()
            before = _cpu()
            await _timed(found, FULL, lambda backend=backend: backend.sync(state, None))  # type: ignore[misc]
            found.setdefault(CPU, []).append((_cpu() - before) * 1e3)
        for _ in range(runs):
            backend = fresh()
            await _timed(found, ADOPT, lambda backend=backend: backend.sync(state, None))  # type: ignore[misc]
        await _changes(found, backend, state, services, endpoints, runs)
        found[MEMORY] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
        await backend.cleanup()
    return found


async def peer(services: int, endpoints: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds iptables-legacy-restore itself needs: everything, and with one endpoint changed."""
    mode = Mode("iptables-legacy")
    state = state_of([obj for index in range(services) for obj in service_objects(index, endpoints)])
    found: dict[str, list[float]] = {FULL: [], MOVED: []}
    with space() as (made, directory):
        (backend,) = backends(mode.settings, mode.site(made, directory), [Family.IPV4])
        driver = _Peer(backend._iptables)  # type: ignore[attr-defined]
        for _ in range(runs):
            await backend.sync(state, None)
            document = driver.document
            await backend.cleanup()
            driver.document = document
            found[FULL].append(driver.seconds() * 1e3)
            await backend.cleanup()
            (backend,) = backends(mode.settings, mode.site(made, directory), [Family.IPV4])
            driver = _Peer(backend._iptables)  # type: ignore[attr-defined]
        await backend.sync(state, None)
        for run in range(runs * 2):
            state.upsert_slice(service_objects(services // 2, endpoints, moved=run % 2 == 0)[1])
            await backend.sync(state, state.collect())
            state.mark_synced()
            found[MOVED].append(driver.seconds() * 1e3)
    return found


async def _changes(
    found: dict[str, list[float]],
    backend: Backend,
    state: ProxyState,
    services: int,
    endpoints: int,
    runs: int,
) -> None:
    async def sync() -> None:
        await backend.sync(state, state.collect())
        state.mark_synced()

    for run in range(runs * 2):
        changed = service_objects(services // 2, endpoints, moved=run % 2 == 0)[1]

        async def move(changed: dict[str, object] = changed) -> None:
            state.upsert_slice(changed)
            await sync()

        await _timed(found, MOVED, move)
    for run in range(runs):
        service, slice_ = service_objects(services + run, endpoints)

        async def add(service: dict[str, object] = service, slice_: dict[str, object] = slice_) -> None:
            state.upsert_service(service)
            state.upsert_slice(slice_)
            await sync()

        async def remove(service: dict = service, slice_: dict = slice_) -> None:  # type: ignore[type-arg]
            for obj, forget in ((service, state.delete_service), (slice_, state.delete_slice)):
                forget(obj["metadata"]["namespace"], obj["metadata"]["name"])
            await sync()

        await _timed(found, ADDED, add)
        await _timed(found, REMOVED, remove)


async def _timed(found: dict[str, list[float]], name: str, what: Callable[[], object]) -> None:
    started = time.perf_counter()
    await what()  # type: ignore[misc]
    found.setdefault(name, []).append((time.perf_counter() - started) * 1e3)


def _cpu() -> float:
    """CPU seconds of this process and the programs it ran."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _apart(*arguments: str) -> dict[str, list[float]]:
    """What a process of its own measured."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    answer: dict[str, list[float]] = json.loads(done.stdout)
    return answer


def _figures(
    mode: str, services: int, found: dict[str, list[float]], bare: dict[str, list[float]]
) -> list[Figure]:
    figures = []
    for name, values in found.items():
        unit = "MB" if name == MEMORY else "ms"
        floor = 0.0
        if name in (FULL, MOVED, ADDED, REMOVED):
            floor = statistics.median(bare[FULL if name == FULL else MOVED])
        figures.append(
            Figure(
                f"{services} x {mode}: {name}",
                unit,
                tuple(values),
                floor,
                "iptables-legacy-restore" if floor else "",
            )
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--services", default="100,1000,5000,10000", help="sizes, separated by commas")
    parser.add_argument("--endpoints", type=int, default=5, help="per Service")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        size = int(arguments.services)
        work = (
            peer(size, arguments.endpoints, arguments.runs)
            if arguments.one == "peer"
            else measure(Mode(arguments.one), size, arguments.endpoints, arguments.runs)
        )
        try:
            print(json.dumps(asyncio.run(work)))
        except Unsupported as error:
            print(error, file=sys.stderr)
            print("{}")
        return
    figures: list[Figure] = []
    for text in arguments.services.split(","):
        rest = ["--services", text, "--endpoints", str(arguments.endpoints), "--runs", str(arguments.runs)]
        bare = _apart("--one", "peer", *rest)
        for name in arguments.modes.split(","):
            if int(text) <= SLOW.get(name, 1 << 30):
                figures += _figures(name, int(text), _apart("--one", name, *rest), bare)
    report("proxy_modes", figures)


if __name__ == "__main__":
    main()
