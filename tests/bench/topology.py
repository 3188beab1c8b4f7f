"""How long routes by BGP take to find another way: from a cut to the first packet that comes through again.

sudo .venv/bin/python tests/bench/topology.py [RUNS]

Two racks with two spines (the ready-made `two-racks`) in a machine of their own. A stream of small datagrams, one per
millisecond, goes from a pod of one rack to a pod of the other, while the spine it crosses is cut off: of both its links
(what its neighbours notice by BFD), or by the death of its daemon (which its neighbours notice by the end of the
connections). The gap that the receiver sees is what counts. Beside it: until a new pod range is known everywhere.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report
from support.kernel import eventually
from support.routed import Routed, placed, routed

from netkit.kernel import netns, rtnl, rtnl_read
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet.bgp import BFD_MILLISECONDS, BFD_MULTIPLIER
from netkit.podnet.modes import NetworkMode, Setting

HERE = Path(__file__).resolve()
OWN_MACHINE = HERE.parents[1] / "support" / "own_machine.py"
PORT, INTERVAL, WATCHED = 7070, 0.001, 6.0
TARGET = IPv4Network("10.244.3.0/24")


def gap(sender: Namespace, receiver: Namespace, address: str, cut: Callable[[], None]) -> float:
    """Seconds for which nothing arrives after `cut`, of a stream that never stops."""
    with (
        netns.socket_in(receiver, socket.AF_INET, socket.SOCK_DGRAM) as listener,
        netns.socket_in(sender, socket.AF_INET, socket.SOCK_DGRAM) as caller,
    ):
        listener.bind((address, PORT))
        listener.setblocking(False)
        # Always the same flow: routers choose one of several ways by its addresses and ports.
        caller.bind(("", PORT))
        caller.connect((address, PORT))
        began, done, last, longest = time.monotonic(), False, time.monotonic(), 0.0
        while (now := time.monotonic()) < began + WATCHED:
            if not done and now > began + 0.5:
                cut()
                done = True
            with suppress(OSError):
                caller.send(b"x")
            time.sleep(INTERVAL)
            while True:
                try:
                    listener.recv(16)
                except BlockingIOError:
                    break
                now = time.monotonic()
                longest, last = max(longest, now - last), now
        return longest


def way_to(net: Routed, router: str) -> rtnl_read.Route | None:
    return next((r for r in rtnl_read.routes(net.ns(router)) if r.target == TARGET), None)


async def both_ways(net: Routed) -> None:
    await eventually(lambda: (route := way_to(net, "tor1")) is not None and len(route.hops) == 2)


async def measure(runs: int) -> list[Figure]:
    links, daemons, ranges = [], [], []
    with tempfile.TemporaryDirectory() as place:
        setting = Setting(NetworkMode.NATIVE)
        async with routed(Path(place), placed("two-racks"), setting=setting, routes="bgp") as net:
            _, sender = await net.pod("node1", "sender")
            sandbox, receiver = await net.pod("node3", "receiver")
            address = sandbox.addresses[0]
            for number in range(runs):
                for spine in ("spine1", "spine2"):
                    await both_ways(net)
                    ports = (spine, f"{spine}.1")

                    def cut(ports: tuple[str, str] = ports) -> None:
                        with Rtnl(net.fabric.switch) as switch:
                            switch.apply(*map(rtnl.link_down, ports))

                    links.append(await asyncio.to_thread(gap, sender, receiver, address, cut))
                    with Rtnl(net.fabric.switch) as switch:
                        switch.apply(*(rtnl.link_up(port) for port in ports))
                    await both_ways(net)
                    daemon = net.daemons[spine]
                    daemons.append(
                        await asyncio.to_thread(
                            gap,
                            sender,
                            receiver,
                            address,
                            lambda d=daemon: d.send_signal(signal.SIGKILL),  # type: ignore[misc]
                        )
                    )
                    daemon.wait()
                    net.start_daemon(spine)
                await both_ways(net)
                ranges.append(await new_range(net, number))
    aim = f"{BFD_MILLISECONDS * BFD_MULTIPLIER / 1000:g} s of BFD and what routes take"
    # Every run cuts each spine once: one of the two carries the stream, the other's cut is none.
    return [
        Figure(
            "a spine's links are cut, gap of a stream across it", "s", tuple(sorted(links)[runs:]), aim=aim
        ),
        Figure("a spine's daemon dies, gap of a stream across it", "s", tuple(sorted(daemons)[runs:])),
        Figure("a node's new pod range is in the routers of the other rack", "s", tuple(ranges)),
    ]


async def new_range(net: Routed, number: int) -> float:
    """Seconds from a Node's new podCIDR to the route in the other rack's router."""
    cidr = f"10.244.{100 + number}.0/24"
    began = time.monotonic()
    net.change_node("node4", lambda node: node["spec"].update(podCIDR=cidr, podCIDRs=[cidr]))
    await eventually(lambda: any(str(route.target) == cidr for route in rtnl_read.routes(net.ns("tor1"))))
    return time.monotonic() - began


def main() -> None:
    arguments = sys.argv[1:]
    if "--inside" not in arguments:
        command = [sys.executable, "-P", str(OWN_MACHINE), str(HERE), "--inside", *arguments]
        sys.exit(subprocess.run(command, check=False).returncode)
    runs = int(arguments[1]) if len(arguments) > 1 else 5
    report("topology", asyncio.run(measure(runs)))


if __name__ == "__main__":
    main()
