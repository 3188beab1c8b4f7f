"""Benchmark of the first connection through a Service: the first, the middle and the last of many, per mode.

    sudo .venv/bin/python tests/bench/proxy_latency.py [--modes M,M] [--services N,N] [--connections N]

A pod connects to a ClusterIP whose only endpoint is another pod of the node; each connection is new. Direct
connections to the endpoint before there is any rule are what the ratios are against: with rules, a direct
connection walks past all of them as well. Microseconds. IPVS, where this kernel has none:

    sudo tests/uml/run --mem 2G --timeout 7200 --rw tests/bench/results -- .venv/bin/python \\
        tests/bench/proxy_latency.py --modes iptables-legacy,ipvs --save proxy_latency_ipvs
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.proxy_modes import MODES, SLOW
from bench.proxy_objects import ENDPOINT_PORT, Mode, cluster_ip, service_objects, space, state_of
from bench.report import Figure, report

from netkit.kernel import netns, sysctl
from netkit.kernel.errors import Unsupported
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.modes import backends

CLIENT, SERVER = "10.244.1.2", "10.244.1.3"
DIRECT, FIRST, MIDDLE, LAST = "direct", "first", "middle", "last"


@contextmanager
def pods(node: Namespace) -> Iterator[tuple[Namespace, Namespace]]:
    """Two pods of the node, client and server, each on a veth of its own."""
    sysctl.write(node, "net.ipv4.icmp_ratelimit", 0)
    _ip(node, "link set lo up", "addr add 192.168.0.2/32 dev lo", "route add 10.96.0.0/12 dev lo")
    with space() as (client, _), space() as (server, _):
        for pod, address in ((client, CLIENT), (server, SERVER)):
            name = f"veth{address.rpartition('.')[2]}"
            _ip(node, f"link add {name} type veth peer name eth0 netns {pod.name}", f"link set {name} up")
            _ip(node, f"addr add 169.254.1.1/32 dev {name}", f"route add {address}/32 dev {name}")
            _ip(
                pod,
                "link set lo up",
                "link set eth0 up",
                f"addr add {address}/32 dev eth0",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1",
            )
        yield client, server


def measure(mode: Mode, services: int, connections: int) -> dict[str, list[float]]:
    """Microseconds of each connection, by which Service it went through."""
    objects = [obj for index in range(services) for obj in service_objects(index, 5)]
    targets = {FIRST: 0, MIDDLE: services // 2, LAST: services - 1}
    for index in targets.values():
        objects[2 * index : 2 * index + 2] = service_objects(index, 1, at=SERVER)
    state = state_of(objects)
    addresses = {name: (cluster_ip(index), 80) for name, index in targets.items()}
    with space() as (node, directory), pods(node) as (client, server):
        (backend,) = backends(mode.settings, mode.site(node, directory), [Family.IPV4])
        loop = asyncio.new_event_loop()
        worker = threading.Thread(target=loop.run_forever, daemon=True)
        worker.start()
        listener = netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((SERVER, ENDPOINT_PORT))
        listener.listen(1024)
        try:
            direct = _connect(client, listener, {DIRECT: (SERVER, ENDPOINT_PORT)}, connections)
            asyncio.run_coroutine_threadsafe(backend.sync(state, None), loop).result()
            return direct | _connect(client, listener, addresses, connections)
        finally:
            asyncio.run_coroutine_threadsafe(backend.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            worker.join()
            loop.close()
            listener.close()


def _connect(
    client: Namespace, listener: socket.socket, addresses: dict[str, tuple[str, int]], connections: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in addresses}
    for number in range(connections + 50):
        for name, address in addresses.items():
            with netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM) as sock:
                started = time.perf_counter()
                sock.connect(address)
                taken = time.perf_counter() - started
                accepted, _ = listener.accept()
                # Reset both ends, so that no port stays occupied.
                for end in (sock, accepted):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                accepted.close()
            if number >= 50:
                found[name].append(taken * 1e6)
    return found


def _ip(space: Namespace, *commands: str) -> None:
    text = "".join(f"{command}\n" for command in commands)
    run(["ip", "-batch", "-"], ns=space, input=text.encode(), check=True)


def _figures(mode: str, services: int, found: dict[str, list[float]]) -> list[Figure]:
    figures = []
    direct = statistics.quantiles(found[DIRECT], n=100)
    for name, values in found.items():
        parts = statistics.quantiles(values, n=100)
        for label, index in (("p50", 49), ("p99", 98)):
            figures.append(
                Figure(
                    f"{services} x {mode}: {name}, {label}",
                    "us",
                    (parts[index],),
                    0.0 if name == DIRECT else direct[index],
                    "" if name == DIRECT else f"direct {label}",
                )
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--services", default="100,1000,10000", help="sizes, separated by commas")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--save", default="proxy_latency", help="name of the saved result")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for text in arguments.services.split(","):
        for name in arguments.modes.split(","):
            if int(text) > SLOW.get(name, 1 << 30):
                continue
            try:
                figures += _figures(name, int(text), measure(Mode(name), int(text), arguments.connections))
            except Unsupported as error:
                print(error, file=sys.stderr)
    report(arguments.save, figures)


if __name__ == "__main__":
    main()
