"""Pod networks across routers without a cluster: a topology's fabric, a fake API, agents, and BGP daemons if wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from support.client_fake import FakeApi
from support.podnet import CLUSTER_CIDR

from controlplane.resources.catalog import NODE
from netkit.cluster import routing
from netkit.cluster.topology import Machine, Role, Topology
from netkit.cluster.topology_file import find
from netkit.cluster.topology_layout import address_of, fabric, gateway, path_mtu, place, router_ways
from netkit.fabric.build import Fabric, build
from netkit.kernel import bird, file_write, netns
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import Child, fork_recorded
from netkit.kernel.teardown import teardown
from netkit.podnet.agent import PodNetworkAgent
from netkit.podnet.bgp import Session, configuration, sessions
from netkit.podnet.bgp_agent import Announcer
from netkit.podnet.modes import VXLAN, Setting, steps
from netkit.podnet.network import PodRef, Sandbox
from netkit.podnet.router_agent import RouterRoutes
from netkit.podnet.underlay import Underlay

BASE = IPv4Network("172.18.0.0/16")


class Routed:
    """Node k of the topology has the pods 10.244.k.0/24. `routes` is static, bgp or none."""

    def __init__(
        self, directory: Path, topology: Topology, built: Fabric, setting: Setting, routes: str
    ) -> None:
        self.place = directory
        self.topology = topology
        self.fabric = built
        self.setting = setting
        self.routes = routes
        self.api = FakeApi()
        self.agents: dict[str, PodNetworkAgent] = {}
        self.daemons: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opened: list[Namespace] = []

    @property
    def nodes(self) -> tuple[Machine, ...]:
        return self.topology.of(Role.NODE)

    def address(self, machine: str) -> IPv4Address:
        return address_of(self.topology.machine(machine))

    def ns(self, machine: str) -> Namespace:
        return self.fabric.machines[machine].ns

    async def begin(self) -> None:
        """Register the nodes, start what routers need, then the nodes' agents."""
        for number, node in enumerate(self.nodes, 1):
            await self.register(node.name, number)
        if self.routes == "static":
            routers = [
                (router_ways(self.topology, r), self.ns(r.name)) for r in self.topology.of(Role.ROUTER)
            ]
            self._start("routers", RouterRoutes(self.api.client(), routers, CLUSTER_CIDR).run())
        if self.routes == "bgp":
            for name in routing.speakers(self.topology):
                self.start_daemon(name)
        for node in self.nodes:
            await self.start(node)

    async def register(self, name: str, number: int) -> None:
        cidr = f"10.244.{number}.0/24"
        node: dict[str, Any] = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": str(self.address(name))}]},
        }  # fmt: skip
        await self.api.client().create(NODE, node)

    async def start(self, node: Machine) -> None:
        underlay = Underlay(gateway(self.topology, node), path_mtu(self.topology, node), self.routes == "bgp")
        agent = self.agents[node.name] = PodNetworkAgent(
            self.api.client(), node.name, self.ns(node.name), address_of(node), CLUSTER_CIDR,
            self.place / "state" / node.name, Ledger(self.place / "ledger", f"node-{node.name}"),
            setting=self.setting, underlay=underlay,
        )  # fmt: skip
        self._start(node.name, agent.run())
        if self.routes == "bgp":
            announcer = Announcer(
                self.api.client(), routing.speaker(self.topology, node), CLUSTER_CIDR, routing.segments(self.topology),
                self._file(node.name), self.control(node.name),
            )  # fmt: skip
            self._start(f"announcer-{node.name}", announcer.run())
        await agent.ready()

    def start_daemon(self, name: str) -> None:
        speaker = routing.speakers(self.topology)[name]
        if not self._file(name).exists():
            text = configuration(speaker, CLUSTER_CIDR, routing.segments(self.topology))
            file_write.replace(self._file(name), text)

        def main() -> int:
            log = os.open(self.place / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 2)
            return bird.become(self.ns(name), self._file(name), self.control(name))

        self.daemons[name] = fork_recorded(Ledger(self.place / "ledger", "daemons"), f"bgp-{name}", main)

    def sessions(self, name: str) -> list[Session]:
        return sessions(bird.ask(self.control(name), "show protocols all"))

    def control(self, name: str) -> Path:
        return self.place / f"{name}.ctl"

    def _file(self, name: str) -> Path:
        return self.place / f"{name}.conf"

    def _start(self, name: str, work: Any) -> None:
        self._tasks[name] = asyncio.create_task(work)

    async def stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def use(self, setting: Setting) -> None:
        for step in steps(self.setting, setting):
            await asyncio.gather(*(agent.use(step) for agent in self.agents.values()))
            self.setting = step

    async def pod(self, node: str, name: str) -> tuple[Sandbox, Namespace]:
        sandbox = await self.agents[node].network.add(PodRef("default", name, f"{name}-0123456789"))
        ns = netns.open_namespace(sandbox.netns)
        self._opened.append(ns)
        return sandbox, ns

    def change_node(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        self.api.edit(NODE, name, "", change)

    async def close(self) -> None:
        for name in list(self._tasks):
            await self.stop(name)
        for ns in self._opened:
            ns.close()
        self.fabric.close()


def placed(name: str) -> Topology:
    """A ready-made topology, or a file's, with all addresses."""
    return place(find(name), BASE)


@asynccontextmanager
async def routed(
    directory: Path, topology: Topology, *, setting: Setting = VXLAN, routes: str = "static"
) -> AsyncIterator[Routed]:
    """The pod network of a placed topology; taken down at the end."""
    with Ledger(directory / "ledger", "supervisor") as ledger:
        built = build(fabric(topology, "kt", learned=routes == "bgp"), ledger)
    net = Routed(directory, topology, built, setting, routes)
    try:
        await net.begin()
        yield net
    finally:
        await net.close()
        teardown(directory / "ledger")
