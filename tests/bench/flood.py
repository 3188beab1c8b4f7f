"""What one client's flood costs the others: 200 connections that list without end, beside one that asks for one object.

    PYTHONPATH=. python tests/bench/flood.py [--seconds 4] [--connections 200] [--seats 100 200 600]

Each figure is the time of a GET in milliseconds: of a user in the flooder's own priority level, and of the scheduler,
which has another; alone first, then beside the flood. Server, flood and victim are processes of their own, over TLS
with client certificates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from api_servers import no_kubelet
from report import Figure, report

from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.pki import CertificateAuthority
from controlplane.apiserver.server import serve_control_plane
from controlplane.apiserver.settings import ControlPlaneSettings

MAPS = "/api/v1/namespaces/default/configmaps"
_OBJECTS = 200
_USERS = {"bob": "bob", "ann": "ann", "scheduler": "system:kube-scheduler"}


def serve(directory: Path, seats: int) -> None:
    settings = ControlPlaneSettings(
        data_dir=directory / "data",
        pki_dir=directory / "pki",
        operation=OperationSettings(max_requests_inflight=seats),
    )
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def ready() -> None:
        print(sock.getsockname()[1], flush=True)

    asyncio.run(serve_control_plane(settings, [sock], no_kubelet, on_ready=ready))


def session_of(directory: Path, stem: str, connections: int) -> aiohttp.ClientSession:
    tls = ssl.create_default_context(cafile=directory / "pki" / "ca.crt")
    tls.load_cert_chain(directory / "pki" / f"{stem}.crt", directory / "pki" / f"{stem}.key")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=connections))


async def flood(directory: Path, url: str, connections: int) -> None:
    """Until killed; says once that it runs, and its counts of answers by code at the end of each second."""
    counts: dict[int, int] = {}

    async def one(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(url + MAPS) as answer:
                await answer.read()
                counts[answer.status] = counts.get(answer.status, 0) + 1

    async with session_of(directory, "bob", connections) as session, asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one(session))
        while True:
            await asyncio.sleep(1)
            print(json.dumps(counts), flush=True)


async def victim(directory: Path, url: str, stem: str, seconds: float) -> list[float]:
    """Milliseconds of each GET, one after the other."""
    times = []
    async with session_of(directory, stem, 1) as session:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            async with session.get(f"{url}{MAPS}/map-7") as answer:
                await answer.read()
                answer.raise_for_status()
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.005)
    return times


async def fill(directory: Path, url: str) -> None:
    async with session_of(directory, "admin", 8) as session:
        binding = {
            "metadata": {"name": "people"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "people"}],
        }
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        async with session.post(url + path, json=binding) as answer:
            answer.raise_for_status()
        for number in range(_OBJECTS):
            obj = {"metadata": {"name": f"map-{number}"}, "data": {"text": "x" * 200}}
            async with session.post(url + MAPS, json=obj) as answer:
                answer.raise_for_status()


def child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


async def measure(directory: Path, seats: int, seconds: float, connections: int) -> list[Figure]:
    server = child("serve", str(directory), str(seats))
    assert server.stdout is not None
    figures = []
    try:
        url = f"https://127.0.0.1:{int(server.stdout.readline())}"
        await fill(directory, url)
        alone = {stem: await victim(directory, url, stem, seconds) for stem in ("ann", "scheduler")}
        flooder = child("flood", str(directory), url, str(connections))
        assert flooder.stdout is not None
        try:
            flooder.stdout.readline()
            for stem, times in alone.items():
                beside = await victim(directory, url, stem, seconds)
                for name, part in (("p50", 0.5), ("p99", 0.99)):
                    figures.append(
                        Figure(
                            f"{stem}, {name}, {seats} seats",
                            "ms",
                            (percentile(beside, part),),
                            percentile(times, part),
                            "alone",
                        )
                    )
        finally:
            flooder.terminate()
            counts = [json.loads(line) for line in flooder.stdout.read().splitlines() if line.endswith("}")]
        span = max(len(counts) - 1, 1)
        total = {int(code): number for code, number in counts[-1].items()}
        print(
            f"{seats} seats: the flood was answered {total}, {sum(total.values()) / (span + 2):.0f} per second"
        )
    finally:
        server.terminate()
        server.wait()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seats", type=int, nargs="*", default=[50, 200, 600])
    options = parser.parse_args()
    figures = []
    for seats in options.seats:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            authority = CertificateAuthority.load_or_create(directory / "pki")
            for stem, user in _USERS.items():
                authority.ensure(stem, user, ["people"])
            figures += asyncio.run(measure(directory, seats, options.seconds, options.connections))
    report("flood", figures)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", place, count]:
            serve(Path(place), int(count))
        case ["flood", place, address, count]:
            asyncio.run(flood(Path(place), address, int(count)))
        case _:
            main()
