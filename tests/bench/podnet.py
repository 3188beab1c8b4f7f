"""What the pod network costs: throughput and latency between pods, per mode, beside bare links between namespaces.

sudo .venv/bin/python tests/bench/podnet.py [RUNS]

All ways are measured in turn, run by run, in a machine of their own; two nodes change their mode between. One TCP
connection; the ends are Python processes that do nothing but send and receive.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report
from support.podnet import Net, pod_network

from netkit.kernel import netns
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.podnet.modes import NetworkMode, Setting

HERE = Path(__file__).resolve()
SECONDS, ROUNDS = 1.0, 3000
PORT = 5001
MODES = (NetworkMode.VXLAN, NetworkMode.NATIVE, NetworkMode.WIREGUARD)
VETH, BRIDGE = "bare veth pair", "bridge between two namespaces"
OWN_MACHINE = HERE.parents[1] / "support" / "own_machine.py"


@dataclass(frozen=True)
class Way:
    """From a namespace to an address in another. `setting` is the mode it needs."""

    name: str
    sender: Namespace
    receiver: Namespace
    address: str
    setting: Setting | None = None


def throughput(way: Way) -> float:
    """Gbit/s that arrive within SECONDS, after a start that does not count."""
    with _serving(way, _swallow) as told:
        with netns.socket_in(way.sender, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((way.address, PORT))
            data, end = bytes(1 << 18), time.monotonic() + SECONDS + 0.3
            while time.monotonic() < end:
                sock.sendall(data)
        return float(told.readline())


def latency(way: Way) -> float:
    """Microseconds from a byte to its answer: the median of ROUNDS."""
    with _serving(way, _answer), netns.socket_in(way.sender, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((way.address, PORT))
        taken = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            sock.send(b"x")
            sock.recv(1)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def _swallow(sock: socket.socket, tell: int) -> None:
    room, total, began = bytearray(1 << 18), 0, 0.0
    first = time.monotonic()
    while count := sock.recv_into(room):
        now = time.monotonic()
        if not began and now - first > 0.2:
            began = now
        elif began:
            total += count
            if now - began > SECONDS:
                break
    os.write(tell, f"{total * 8 / max(now - began, 1e-9) / 1e9}\n".encode())
    while sock.recv_into(room):
        pass


def _answer(sock: socket.socket, tell: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while sock.recv(1):
        sock.send(b"x")


@contextmanager
def _serving(way: Way, serve: Callable[[socket.socket, int], None]) -> Iterator[TextIO]:
    """A process of its own at the receiving end; what it tells."""
    listener = netns.socket_in(way.receiver, socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((way.address, PORT))
    listener.listen()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        accepted, _ = listener.accept()
        serve(accepted, writer)
        os._exit(0)
    listener.close()
    os.close(writer)
    try:
        with os.fdopen(reader) as told:
            yield told
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def bare() -> list[Way]:
    """Namespaces joined by one cable, and by a bridge in a third."""
    commands = """
netns add v1
netns add v2
link add x netns v1 type veth peer name x netns v2
netns add b0
netns add b1
netns add b2
-n b0 link add br0 type bridge
-n b0 link set br0 up
link add x netns b1 type veth peer name p1 netns b0
link add x netns b2 type veth peer name p2 netns b0
-n b0 link set p1 master br0 up
-n b0 link set p2 master br0 up
"""
    for command in commands.strip().splitlines():
        run(["ip", *command.split()], check=True)
    for name in ("v", "b"):
        for number in (1, 2):
            run(
                ["ip", "-n", f"{name}{number}", "address", "add", f"192.0.2.{number}/24", "dev", "x"],
                check=True,
            )
            run(["ip", "-n", f"{name}{number}", "link", "set", "x", "up"], check=True)
    return [
        Way(VETH, netns.open_namespace("v1"), netns.open_namespace("v2"), "192.0.2.2"),
        Way(BRIDGE, netns.open_namespace("b1"), netns.open_namespace("b2"), "192.0.2.2"),
    ]


async def ways(net: Net) -> list[Way]:
    (_, a), (near, b), (far, c) = [
        await net.pod(node, name) for node, name in (("node1", "a"), ("node1", "b"), ("node2", "c"))
    ]
    vxlan, native, wireguard = (Setting(mode) for mode in MODES)
    return [
        Way("pods of one node", a, b, near.addresses[0], vxlan),
        Way("pods of two nodes, vxlan", a, c, far.addresses[0], vxlan),
        Way("pods of two nodes, native", a, c, far.addresses[0], native),
        Way("pods of two nodes, wireguard", a, c, far.addresses[0], wireguard),
    ]


async def measure(runs: int) -> list[Figure]:
    found: dict[tuple[str, str], list[float]] = {}
    switched: dict[NetworkMode, list[float]] = {mode: [] for mode in MODES}
    by = ""
    with tempfile.TemporaryDirectory() as place:
        async with pod_network(Path(place)) as net:
            everything = [*bare(), *await ways(net)]
            for number in range(runs + 1):
                for way in everything:
                    if way.setting is not None and way.setting != net.setting:
                        began = time.perf_counter()
                        await net.use(way.setting)
                        by = net.agents["node1"].encryption or by
                        switched[way.setting.mode].append((time.perf_counter() - began) * 1000)
                    for unit, what in (("Gbit/s", throughput), ("us", latency)):
                        value = await asyncio.to_thread(what, way)
                        if number:
                            found.setdefault((unit, way.name), []).append(value)
    figures = []
    for unit, title in (("Gbit/s", "TCP throughput"), ("us", "round trip")):
        floor = statistics.median(found[unit, VETH])
        for (kind, name), values in found.items():
            if kind == unit:
                other = (0.0, "") if name == VETH else (floor, VETH)
                who = f" ({by})" if "wireguard" in name else ""
                figures.append(Figure(f"{title}: {name}{who}", unit, tuple(values), *other))
    figures += [
        Figure(f"two nodes change over to {mode}", "ms", tuple(values)) for mode, values in switched.items()
    ]
    return figures


def main() -> None:
    arguments = sys.argv[1:]
    if "--inside" not in arguments:
        command = [sys.executable, "-P", str(OWN_MACHINE), str(HERE), "--inside", *arguments]
        sys.exit(subprocess.run(command, check=False).returncode)
    runs = int(arguments[1]) if len(arguments) > 1 else 5
    report("podnet", asyncio.run(measure(runs)))


if __name__ == "__main__":
    main()
