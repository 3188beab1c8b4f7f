"""Benchmark of the proxy modes: loading everything, and what one change costs, as clusters grow.

    sudo .venv/bin/python tests/bench/proxy_modes.py [--modes M,M] [--services N,N] [--endpoints N] [--runs N]

Every mode and size runs in a process and a namespace of its own. The ratios are against floors of the same run (see
`proxy_floors`): the same text through iptables-restore alone, or the same transactions ready made, into empty tables
(full load) and with one endpoint changed (changes). Modes that this kernel lacks are named and left out. IPVS, where
this kernel has none:

    sudo tests/uml/run --mem 2G --timeout 7200 --rw tests/bench/results -- .venv/bin/python \\
        tests/bench/proxy_modes.py --modes iptables-legacy,ipvs --save proxy_modes_ipvs
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
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.proxy_floors import Floor, floor_of
from bench.proxy_objects import Mode, service_objects, space, state_of
from bench.report import Figure, report

from netkit.kernel.errors import Unsupported
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
CHANGES = 4
"""How many times as often as everything else changes are measured."""
AIMS = {
    ("iptables-legacy", 10000, FULL): "2000",
    ("nftables", 10000, FULL): "2000",
    ("nftables", 1000, MOVED): "3",
    ("nftables", 10000, MOVED): "100",
    **{("nftables-compact", size, MOVED): "1" for size in (100, 1000, 5000, 10000)},
}


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
        floor = floor_of(backend)
        await _changes(found, backend, state, services, endpoints, runs)
        found[MEMORY] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
        if floor is not None:
            await _floors(found, floor, backend, state, services, endpoints, runs)
        await backend.cleanup()
    return found


async def _floors(
    found: dict[str, list[float]],
    floor: Floor,
    backend: Backend,
    state: ProxyState,
    services: int,
    endpoints: int,
    runs: int,
) -> None:
    """Have an endpoint go forth and back, and everything loaded; then measure the bare writes of both."""
    floor.written()
    turns = []
    for moved in (True, False):
        state.upsert_slice(service_objects(services // 2, endpoints, moved=moved)[1])
        await backend.sync(state, state.collect())
        state.mark_synced()
        turns.append(floor.written())
    for run in range(runs * CHANGES):
        _add(found, f"{MOVED}, {floor.name}", floor.seconds(turns[run % 2]))
    await backend.cleanup()
    floor.written()
    await backend.sync(state, None)
    writes = floor.written()
    for _ in range(runs):
        await backend.cleanup()
        _add(found, f"{FULL}, {floor.name}", floor.seconds(writes))


def _add(found: dict[str, list[float]], name: str, parts: Mapping[str, float]) -> None:
    """The sum, and the parts where there are several."""
    found.setdefault(name, []).append(sum(parts.values()) * 1e3)
    for part, seconds in parts.items() if len(parts) > 1 else ():
        found.setdefault(f"{name}: {part}", []).append(seconds * 1e3)


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

    for run in range(runs * CHANGES):
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


def _figures(mode: str, services: int, found: dict[str, list[float]]) -> list[Figure]:
    figures = []
    for name, values in found.items():
        floors = [key for key in found if key.startswith(f"{FULL if name == FULL else MOVED}, bare")]
        if name not in (FULL, MOVED, ADDED, REMOVED):
            floors = []
        figures.append(
            Figure(
                f"{services} x {mode}: {name}",
                "MB" if name == MEMORY else "ms",
                tuple(values),
                statistics.median(found[floors[0]]) if floors else 0.0,
                floors[0].rpartition(", ")[2] if floors else "",
                AIMS.get((mode, services, name), ""),
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
    parser.add_argument("--save", default="proxy_modes", help="name of the saved result")
    arguments = parser.parse_args()
    if arguments.one:
        size = int(arguments.services)
        work = measure(Mode(arguments.one), size, arguments.endpoints, arguments.runs)
        try:
            print(json.dumps(asyncio.run(work)))
        except Unsupported as error:
            print(error, file=sys.stderr)
            print("{}")
        return
    figures: list[Figure] = []
    for text in arguments.services.split(","):
        rest = ["--services", text, "--endpoints", str(arguments.endpoints), "--runs", str(arguments.runs)]
        for name in arguments.modes.split(","):
            if int(text) <= SLOW.get(name, 1 << 30):
                figures += _figures(name, int(text), _apart("--one", name, *rest))
    report(arguments.save, figures)


if __name__ == "__main__":
    main()
