"""A small cluster's pod network without a cluster: a fabric, Node objects in a fake API, one agent per node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from support.client_fake import FakeApi
from support.kernel import spec_of

from controlplane.resources.catalog import NODE
from netkit.cni.conflist import Conflist
from netkit.cni.network import ExternalNetwork
from netkit.fabric.build import Fabric, build
from netkit.kernel import netns, wireguard
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.teardown import teardown
from netkit.podnet import device
from netkit.podnet.agent import PodNetworkAgent
from netkit.podnet.attach import Attach
from netkit.podnet.entries import Difference, Entry, Facts, differences, expected
from netkit.podnet.ipam import Leases
from netkit.podnet.modes import VXLAN, Setting, steps
from netkit.podnet.network import LEASE_FILE
from netkit.podnet.peer import peers, pod_range
from netkit.podnet.pod import PodRef, PortMapping, RuntimeConfig, Sandbox
from netkit.podnet.standing import standing
from netkit.podnet.tunnels import PLACE
from netkit.podnet.wireguard import DEVICE
from netkit.podnet.wireguard_key import read_key

CLUSTER_CIDR = IPv4Network("10.244.0.0/16")


class Net:
    """`agents` by node name; `api` is where their Nodes are. Node k is at 172.18.0.(k+1) with pods 10.244.k.0/24."""

    def __init__(
        self, place: Path, fabric: Fabric, setting: Setting = VXLAN, attach: Attach = Attach.BRIDGE,
        conflist: Conflist | None = None, plugins: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.conflist = conflist
        self.plugins = plugins
        self.setting = setting
        self.attach = attach
        self.place = place
        self.fabric = fabric
        self.api = FakeApi()
        self.agents: dict[str, PodNetworkAgent] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opened: list[Namespace] = []

    async def register(self, name: str, number: int) -> None:
        """Make the Node object, with its pod range."""
        cidr = f"10.244.{number}.0/24"
        node: dict[str, Any] = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}, "status": {},
        }  # fmt: skip
        await self.api.client().create(NODE, node)

    async def start(self, name: str) -> PodNetworkAgent:
        """Start the node's agent, and wait until it is ready."""
        machine = self.fabric.machines[name]
        state, ledger = self.place / "state" / name, Ledger(self.place / "ledger", f"node-{name}")
        network = None
        if self.conflist is not None:
            network = ExternalNetwork(
                "kt",
                machine.ns,
                machine.address.ip,
                state,
                ledger,
                self.conflist,
                self.plugins,
                state / "xtables.lock",
            )
        agent = self.agents[name] = PodNetworkAgent(
            self.api.client(), name, machine.ns, machine.address.ip, CLUSTER_CIDR, state, ledger,
            setting=self.setting, attach=self.attach, network=network,
        )  # fmt: skip
        task = self._tasks[name] = asyncio.create_task(agent.run())
        ready = asyncio.create_task(agent.ready())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            task.result()
        return agent

    async def use(self, setting: Setting) -> None:
        """Change all nodes over, in the steps and the order that the command takes."""
        for step in steps(self.setting, setting):
            await asyncio.gather(*(self.agents[name].use(step) for name in self._tasks))
            self.setting = step

    async def stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def stop_all(self) -> None:
        for name in list(self._tasks):
            await self.stop(name)

    async def pod(
        self, node: str, name: str, uid: str = "", ports: tuple[PortMapping, ...] = ()
    ) -> tuple[Sandbox, Namespace]:
        """A new pod on the node; its sandbox and open namespace."""
        pod = PodRef("default", name, uid or f"{name}-0123456789")
        sandbox = await self.agents[node].network.add(pod, config=RuntimeConfig(ports))
        ns = netns.open_namespace(sandbox.netns)
        self._opened.append(ns)
        return sandbox, ns

    def ns(self, machine: str) -> Namespace:
        return self.fabric.machines[machine].ns

    def change_node(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        self.api.edit(NODE, name, "", change)

    def close(self) -> None:
        for ns in self._opened:
            ns.close()


@asynccontextmanager
async def pod_network(
    place: Path, nodes: int = 2, *, mtu: int = 1500, setting: Setting = VXLAN, attach: Attach = Attach.BRIDGE,
    conflist: Conflist | None = None, plugins: tuple[str, ...] = (),
) -> AsyncIterator[Net]:  # fmt: skip
    """A network in the mode with `nodes` nodes that have joined, and a machine `client`; taken down at the end."""
    names = [f"node{number}" for number in range(1, nodes + 1)]
    with Ledger(place / "ledger", "supervisor") as ledger:
        fabric = build(spec_of(*names, "client", mtu=mtu), ledger)
    net = Net(place, fabric, setting, attach, conflist, plugins)
    try:
        for number, name in enumerate(names, 1):
            await net.register(name, number)
        for name in names:
            await net.start(name)
        yield net
    finally:
        await net.stop_all()
        net.close()
        fabric.close()
        teardown(place / "ledger")


async def entries(net: Net, node: str) -> tuple[list[Entry], list[Difference]]:
    """What the node's kernel holds, and where that is wrong."""
    machine = net.fabric.machines[node]
    own = net.api.get(NODE, node)
    assert own is not None
    own_range = pod_range(own)
    assert own_range is not None
    pods = Leases(net.place / "state" / node / LEASE_FILE).all()
    iptables = IPTables(machine.ns)
    key = read_key(net.place / "state" / node)
    facts = Facts(
        node, machine.address.ip, own_range, CLUSTER_CIDR, net.agents[node].setting,
        device.uplink(machine.ns, machine.address.ip), peers(net.api.all(NODE), node), pods, iptables.random_fully,
        net.attach, public_key=key.public if key is not None else "",
    )  # fmt: skip
    wanted, refused = expected(facts)
    carried = wireguard.read(machine.ns, DEVICE, net.place / "state" / node / PLACE)
    found = await standing(
        machine.ns,
        iptables,
        CLUSTER_CIDR,
        [lease.netns for lease in pods],
        net.attach,
        carried[1] if carried is not None else None,
    )
    return found, differences(wanted, found, refused)


async def right(net: Net, node: str) -> None:
    """Return when nothing is wrong on the node."""
    for _ in range(400):
        wrong = (await entries(net, node))[1]
        if not wrong:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(wrong)
