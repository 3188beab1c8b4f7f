"""Benchmark of NetworkPolicy on one node: writing many policies and small changes, and what packets pay for them.

    sudo .venv/bin/python tests/bench/policy.py [--policies N,N] [--runs N] [--save NAME]

100 pods of the node and 1,000 of others, with IPv4 and IPv6 addresses and 100 labels between them; each policy selects
one label and lets another one in at two ports, and a block of addresses. Two of the pods are real: the client is let in
by the last of all the server's policies, of which there are as many as policies by labels. What packets pay is compared
with the same pair without any policy, in the same run; without one, nothing tracks connections either.

Writing is split in render (Python), load (the transactions in the kernel) and sync (both, with reading what stands).
A change is timed from the object to the end of the transactions, the median of 20.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.proxy_latency import CLIENT, SERVER, pods
from bench.proxy_objects import space
from bench.report import Figure, report, timed

from netkit.kernel import netns
from netkit.kernel.netns import Namespace
from netkit.policy.backend import PolicyBackend, node_tables
from netkit.policy.model import pod_of, policy_of
from netkit.policy.selection import Selection
from netkit.policy.table import Table

NODE, LABELS, LOCAL, REMOTE = "node1", 100, 100, 1000
PORT, ROUNDS, CONNECTIONS, STREAM_SECONDS = 8080, 2000, 500, 1.0
Obj = dict[str, Any]
Values = dict[str, float]


def pod(number: int, address: str = "") -> Obj:
    """A pod; those below LOCAL are the node's."""
    return {
        "metadata": {
            "namespace": "default",
            "name": f"pod{number}",
            "uid": f"uid{number}",
            "labels": {"app": f"app{number % LABELS}"},
        },
        "spec": {
            "nodeName": NODE if number < LOCAL or address else f"node{2 + number % 20}",
            "containers": [],
        },
        "status": {
            "podIPs": [
                {"ip": address or f"10.245.{number // 250}.{number % 250 + 1}"},
                {"ip": f"fd00:245::{number + 1:x}"},
            ]
        },
    }


def policy(number: int, *ports: int) -> Obj:
    """A policy of the label that its number leads to."""
    peers = [
        {"podSelector": {"matchLabels": {"app": f"app{(number + 7) % LABELS}"}}},
        {"ipBlock": {"cidr": f"172.{16 + number % 16}.0.0/16", "except": [f"172.{16 + number % 16}.7.0/24"]}},
    ]
    rule = {"from": peers, "ports": [{"port": port} for port in ports or (80, 443)]}
    return {
        "metadata": {"namespace": "default", "name": f"policy{number:05}"},
        "spec": {"podSelector": {"matchLabels": {"app": f"app{number % LABELS}"}}, "ingress": [rule]},
    }


def world(policies: int) -> Selection:
    """All pods and policies. The server has the label of policy 0, the client that which its last policy lets in."""
    found = Selection(NODE)
    found.set_namespace("default", {})
    for obj in (*map(pod, range(LOCAL + REMOTE)), pod(5000, SERVER), pod(5007, CLIENT)):
        _put(found, obj)
    last = (policies - 1) // LABELS * LABELS
    for number in range(policies):
        obj = policy(number)
        if number % LABELS == 0 and number != last:
            obj["spec"]["ingress"][0]["from"].pop(0)
        elif number == last:
            obj["spec"]["ingress"][0]["ports"].append({"port": PORT})
        found.set_policy(_key(obj), policy_of(obj))
    return found


def writing(node: Namespace, selection: Selection, policies: int) -> tuple[PolicyBackend, Values]:
    """Milliseconds of writing: from nothing, and of one change each."""
    values: Values = {}
    backend = PolicyBackend(node_tables(node))
    with asyncio.Runner() as runner:

        def sync(*, full: bool = False) -> None:
            changes = selection.collect()
            runner.run(backend.sync(selection, None if full else changes))

        sync(full=True)
        runner.run(backend.cleanup())
        if not policies:
            return backend, values
        drivers = node_tables(node)
        tables = [Table(driver.family, None) for driver in drivers]
        rendered: list[list[bytes]] = []
        values["render"] = timed(lambda: rendered.extend(table.full(selection) for table in tables))
        values["load"] = timed(lambda: [d.commit(m) for d, m in zip(drivers, rendered, strict=True)])
        runner.run(backend.cleanup())
        values["sync of all"] = timed(lambda: sync(full=True))
        values["sync that adopts all"] = timed(lambda: sync(full=True))
        changes: dict[str, Callable[[int], None]] = {
            "a pod of the node added": lambda n: _put(selection, pod(6000 + n, f"10.244.1.{20 + n}")),
            "a pod of another node added": lambda n: _put(selection, pod(7000 + n)),
            "a policy changed": lambda n: _put_policy(selection, policy(1, 80, 8000 + n)),
        }
        for name, change in changes.items():
            taken = []
            for number in range(20):
                started = time.perf_counter()
                change(number)
                sync()
                taken.append(time.perf_counter() - started)
            values[name] = statistics.median(taken)
    return backend, {name: seconds * 1e3 for name, seconds in values.items()}


def traffic(client: Namespace, server: Namespace) -> Values:
    """Microseconds of a new connection and of a byte there and back, Gbit/s of one stream."""
    with netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((SERVER, PORT))
        listener.listen(1024)
        new = []
        for _ in range(CONNECTIONS):
            with netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM) as sock:
                started = time.perf_counter()
                sock.connect((SERVER, PORT))
                new.append(time.perf_counter() - started)
                accepted, _ = listener.accept()
                # Reset both ends, so that no port stays occupied.
                for end in (sock, accepted):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                accepted.close()
        with netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((SERVER, PORT))
            accepted, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with accepted:
                there_and_back = _ping(sock, accepted)
                rate = _stream(sock, accepted)
    return {
        "new connection": statistics.median(new) * 1e6,
        "byte there and back": there_and_back * 1e6,
        "one stream": rate,
    }


def _ping(sock: socket.socket, other: socket.socket) -> float:
    """Both ends are this thread's: nothing but the kernel's way is measured."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        sock.send(b".")
        other.send(other.recv(1))
        sock.recv(1)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _stream(sock: socket.socket, other: socket.socket) -> float:
    received = 0

    def receive() -> None:
        nonlocal received
        buffer = bytearray(1 << 20)
        while count := other.recv_into(buffer):
            received += count

    worker = threading.Thread(target=receive)
    worker.start()
    block, started = bytes(1 << 18), time.perf_counter()
    while time.perf_counter() - started < STREAM_SECONDS:
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    worker.join()
    return received * 8 / (time.perf_counter() - started) / 1e9


def measure(policies: int) -> Values:
    """All figures of one size, in namespaces of its own."""
    with space() as (node, _), pods(node) as (client, server):
        backend, values = writing(node, world(policies), policies)
        try:
            return values | traffic(client, server)
        finally:
            asyncio.run(backend.cleanup())


def figures(found: dict[int, dict[str, list[float]]]) -> list[Figure]:
    made = []
    for policies, by_name in found.items():
        for name, values in by_name.items():
            bare = found[0].get(name) if policies else None
            unit = {"one stream": "Gbit/s", "new connection": "us", "byte there and back": "us"}.get(
                name, "ms"
            )
            made.append(
                Figure(
                    f"{policies} policies: {name}",
                    unit,
                    tuple(values),
                    statistics.median(bare) if bare else 0.0,
                    "no policy" if bare else "",
                )
            )
    return made


def _put(selection: Selection, obj: Obj) -> None:
    selection.set_pod(_key(obj), pod_of(obj))


def _put_policy(selection: Selection, obj: Obj) -> None:
    selection.set_policy(_key(obj), policy_of(obj))


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="100,1000", help="sizes besides 0, separated by commas")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", default="policy", help="name of the saved result")
    given = parser.parse_args(arguments)
    sizes = [0, *map(int, given.policies.split(","))]
    found: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in sizes}
    for _ in range(given.runs):
        for size in sizes:
            for name, value in measure(size).items():
                found[size][name].append(value)
    report(given.save, figures(found))


if __name__ == "__main__":
    main()
