"""Machines that join, leave, move and stand still: all others' kernels follow, and end as after a fresh start."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from support.kernel import own_host, ping, spec_of
from support.podnet import CLUSTER_CIDR, Net
from support.traffic import Way, echo_server, traffic

from controlplane.resources.catalog import NODE
from netkit.fabric import cables
from netkit.fabric.build import build
from netkit.fabric.spec import FabricSpec, InterfaceSpec, MachineSpec, RouteSpec
from netkit.kernel import netns, rtnl
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.teardown import remove_owner, teardown
from netkit.podnet import device
from netkit.podnet.entries import Difference, Entry, Facts, differences, expected
from netkit.podnet.ipam import Leases
from netkit.podnet.modes import NetworkMode, Setting
from netkit.podnet.network import LEASE_FILE
from netkit.podnet.peer import peers, pod_range
from netkit.podnet.standing import standing

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
_PATIENCE = 20.0


@dataclass
class Cluster:
    """A network whose machines come and go. `pods`: name to the node it is on."""

    net: Net
    ledger: Ledger
    pods: dict[str, str] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    @property
    def spec(self) -> FabricSpec:
        return self.net.fabric.spec

    def address(self, node: str) -> IPv4Address:
        return self.net.fabric.machines[node].address.ip

    def nodes(self) -> list[str]:
        return [machine.name for machine in self.spec.machines]

    def machine(self, name: str, place: int) -> MachineSpec:
        segment = self.spec.segment
        interface = InterfaceSpec("lan", IPv4Interface((segment[place], segment.prefixlen)))
        gateway = RouteSpec(IPv4Network("0.0.0.0/0"), self.spec.host_address.ip)
        return MachineSpec(name, (interface,), (gateway,))

    def build(self, spec: FabricSpec) -> None:
        """Agents go on with the handles they have; a machine that is no more loses its own."""
        before, after = self.net.fabric, build(spec, self.ledger)
        machines = {}
        for name, machine in after.machines.items():
            if name in before.machines:
                machine.ns.close()
                machine = replace(machine, ns=before.machines[name].ns)
            machines[name] = machine
        after.switch.close()
        for name in set(before.machines) - set(machines):
            before.machines[name].ns.close()
        self.net.fabric = replace(after, switch=before.switch, machines=machines)

    async def join(self, number: int, place: int) -> None:
        name = f"node{number}"
        self.build(replace(self.spec, machines=(*self.spec.machines, self.machine(name, place))))
        await self.net.register(name, number)
        await self.net.start(name)

    async def leave(self, name: str) -> None:
        if name not in self.stopped:
            await self.net.stop(name)
        self.stopped.discard(name)
        remove_owner(self.net.place / "ledger", f"node-{name}")
        cables.remove(self.net.fabric.switch, name)
        (self.net.place / "state" / name / LEASE_FILE).unlink(missing_ok=True)
        self.build(replace(self.spec, machines=tuple(m for m in self.spec.machines if m.name != name)))
        netns.delete(f"kt.{name}", self.ledger)
        self.net.api.remove(NODE, name)
        self.pods = {pod: node for pod, node in self.pods.items() if node != name}

    async def move(self, name: str, place: int) -> None:
        """Another address, while the pods go on."""
        if name not in self.stopped:
            await self.net.stop(name)
        machines = tuple(
            self.machine(name, place) if machine.name == name else machine for machine in self.spec.machines
        )
        self.build(replace(self.spec, machines=machines))
        if name not in self.stopped:
            await self.net.start(name)

    async def stop(self, name: str) -> None:
        await self.net.stop(name)
        self.stopped.add(name)
        self.build(replace(self.spec, unplugged=frozenset(self.stopped)))

    async def start(self, name: str) -> None:
        self.stopped.discard(name)
        self.build(replace(self.spec, unplugged=frozenset(self.stopped)))
        await self.net.start(name)

    async def pod(self, node: str, name: str) -> None:
        await self.net.pod(node, name, uid=f"uid-{name}")
        self.pods[name] = node

    async def unpod(self, name: str) -> None:
        node = self.pods.pop(name)
        await self.net.agents[node].network.remove(f"uid-{name}")

    def leases(self, node: str) -> Leases:
        return Leases(self.net.place / "state" / node / LEASE_FILE)

    async def look(self, node: str) -> tuple[list[Entry], list[Difference]]:
        """What the node's kernel holds, and where that is wrong."""
        machine = self.net.fabric.machines[node]
        own = self.net.api.get(NODE, node)
        assert own is not None
        own_range = pod_range(own)
        assert own_range is not None
        pods = self.leases(node).all()
        iptables = IPTables(machine.ns)
        facts = Facts(
            node, machine.address.ip, own_range, CLUSTER_CIDR, self.net.agents[node].setting,
            device.uplink(machine.ns, machine.address.ip), peers(self.net.api.all(NODE), node), pods,
            iptables.random_fully,
        )  # fmt: skip
        wanted, refused = expected(facts)
        found = await standing(machine.ns, iptables, CLUSTER_CIDR, [lease.netns for lease in pods])
        return found, differences(wanted, found, refused)

    async def right(self) -> None:
        """Return when nothing is wrong on any node that runs."""
        end = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            wrong = {
                node: found
                for node in self.nodes()
                if node not in self.stopped
                for found in [(await self.look(node))[1]]
                if found
            }
            if not wrong:
                return
            assert asyncio.get_running_loop().time() < end, wrong
            await asyncio.sleep(0.02)

    async def state(self) -> dict[str, list[str]]:
        """All nodes' kernels, with pods' addresses, links and namespaces called by the pods' names."""
        names: dict[str, str] = {}
        for node in self.nodes():
            for lease in self.leases(node).all():
                names[str(lease.address)] = f"address of {lease.name}"
                names[rtnl.mac_of(lease.address)] = f"mac of {lease.name}"
                names[lease.link] = f"link of {lease.name}"
        words = re.compile(r"[0-9a-z.:]+")
        return {
            node: sorted(
                words.sub(lambda word: names.get(word[0], word[0]), f"{entry.kind} {entry.key} {entry.value}")
                for entry in (await self.look(node))[0]
            )
            for node in self.nodes()
        }


@asynccontextmanager
async def cluster(place: Path, setting: Setting) -> AsyncIterator[Cluster]:
    ledger = Ledger(place / "ledger", "supervisor")
    net = Net(place, build(spec_of(), ledger), setting)
    try:
        yield Cluster(net, ledger)
    finally:
        await net.stop_all()
        net.close()
        net.fabric.close()
        teardown(place / "ledger")


async def play(made: Cluster, choice: random.Random, steps: int) -> None:
    """So many changes, each followed by the next without waiting for anybody."""
    free = iter(range(100, 200))
    numbers = iter(range(3, 100))
    for step in range(steps):
        nodes = made.nodes()
        running = [node for node in nodes if node not in made.stopped]
        what = choice.choice(
            ("join", "leave", "move", "stop", "start", "pod", "pod", "pod", "unpod", "restart")
        )
        match what:
            case "join" if len(nodes) < 4:
                await made.join(next(numbers), next(free))
            case "leave" if len(running) > 1:
                await made.leave(choice.choice([node for node in nodes if running != [node]]))
            case "move":
                await made.move(choice.choice(nodes), next(free))
            case "stop" if len(running) > 1:
                await made.stop(choice.choice(running))
            case "start" if made.stopped:
                await made.start(choice.choice(sorted(made.stopped)))
            case "pod":
                await made.pod(choice.choice(running), f"pod-{step}")
            case "unpod" if pods := [pod for pod, node in made.pods.items() if node in running]:
                await made.unpod(choice.choice(pods))
            case "restart":
                node = choice.choice(running)
                await made.net.stop(node)
                await made.net.start(node)
    for node in sorted(made.stopped):
        await made.start(node)


@own_host
@pytest.mark.parametrize("setting", [VXLAN, NATIVE], ids=str)
@pytest.mark.parametrize("seed", [2, 3])
async def test_whatever_came_and_went_all_nodes_end_as_after_a_fresh_start(
    tmp_path: Path, setting: Setting, seed: int
) -> None:
    async with cluster(tmp_path / "played", setting) as made:
        for number in (1, 2):
            await made.join(number, 10 + number)
        await play(made, random.Random(seed), 25)
        await made.right()
        played, pods = await made.state(), dict(made.pods)
        places = {node: int(made.address(node)) - int(made.spec.segment[0]) for node in made.nodes()}
    async with cluster(tmp_path / "fresh", setting) as fresh:
        for node, place in places.items():
            await fresh.join(int(node.removeprefix("node")), place)
        for pod, node in pods.items():
            await fresh.pod(node, pod)
        await fresh.right()
        assert await fresh.state() == played


@own_host
@pytest.mark.parametrize("setting", [VXLAN, NATIVE], ids=str)
async def test_a_node_that_moves_keeps_its_pods_and_is_reached(tmp_path: Path, setting: Setting) -> None:
    async with cluster(tmp_path, setting) as made:
        for number in (1, 2, 3):
            await made.join(number, 10 + number)
        one, one_ns = await made.net.pod("node1", "one")
        two, two_ns = await made.net.pod("node2", "two")
        assert ping(one_ns, two.addresses[0])
        await made.move("node2", 77)
        await made.right()
        assert ping(one_ns, two.addresses[0])
        assert ping(two_ns, one.addresses[0])
        for node in ("node1", "node3"):
            text = "\n".join(f"{entry.key} {entry.value}" for entry in (await made.look(node))[0])
            assert "172.18.0.77" in text
            assert "172.18.0.12" not in text
        # Another one may have the address that became free.
        await made.move("node3", 12)
        await made.right()
        await made.leave("node2")
        await made.right()
        for node in ("node1", "node3"):
            text = "\n".join(f"{entry.key} {entry.value}" for entry in (await made.look(node))[0])
            assert "172.18.0.77" not in text
            assert "10.244.2." not in text


@own_host
async def test_pods_that_stay_lose_nothing_while_nodes_come_and_go(tmp_path: Path) -> None:
    async with cluster(tmp_path, VXLAN) as made:
        for number in (1, 2):
            await made.join(number, 10 + number)
        _, one_ns = await made.net.pod("node1", "one")
        two, two_ns = await made.net.pod("node2", "two")
        target = two.addresses[0]
        async with (
            echo_server(two_ns, target, 7070),
            traffic(Way("pod to pod", one_ns, target, 7070)) as told,
        ):
            for number in range(3, 8):
                await made.join(number, 10 + number)
                guest, _ = await made.net.pod(f"node{number}", f"guest{number}")
                await told.more(5)
                assert await asyncio.to_thread(ping, one_ns, guest.addresses[0])
                await made.leave(f"node{number}")
            await made.right()
            await told.more()
            assert told.failures == []
