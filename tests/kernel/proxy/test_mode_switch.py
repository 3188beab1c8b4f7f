"""A node changes its proxy mode under constant load: no connection is lost, none fails, nothing of the old is left."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.client_fake import FakeApi
from support.client_wait import running, until
from support.proxy import endpoint, service, slice_of
from support.proxy_net import NODE1, PODS, Net
from support.traffic import Way, echo_server, traffic

from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE
from netkit.cluster.node_proxy import NodeProxy
from netkit.cluster.proxy_choice import Choice, Outcome, ProxyFiles, State
from netkit.kernel.iptables import IPTables, installed_variants
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.assembly import assemble
from netkit.proxy.modes import Site
from netkit.proxy.settings import ConntrackSettings, NftablesLayout, ProxyMode, ProxySettings

pytestmark = pytest.mark.root

CLUSTER_IP, NODE_PORT, ECHO = "172.30.0.41", 30001, 7070
SETTINGS = ProxySettings(
    cluster_cidr="10.244.0.0/16", node_address=NODE1, node_port_addresses=(f"{NODE1}/32",), min_sync_period=0.01,
    conntrack=ConntrackSettings(max_per_core=0),
)  # fmt: skip
IPTABLES, NFTABLES, USERSPACE, COMPACT = (
    Choice(ProxyMode.IPTABLES),
    Choice(ProxyMode.NFTABLES),
    Choice(ProxyMode.USERSPACE),
    Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT),
)
_OF_USERSPACE = re.compile(r"KUBE-(PORTALS|NODEPORT-)")
_asked = itertools.count()


@dataclass
class Node:
    """The node whose proxy changes."""

    net: Net
    api: FakeApi
    files: ProxyFiles
    site: Site

    def make(self, choice: Choice) -> ProxyAgent:
        settings = replace(SETTINGS, mode=choice.mode, nftables_layout=choice.layout)
        return assemble(self.api.client(), "node1", settings, self.site, [Family.IPV4])

    def proxy(self, first: Choice) -> NodeProxy:
        return NodeProxy(self.site, self.files, first, self.make)

    async def change(self, choice: Choice) -> Outcome:
        wish = replace(choice, asked=f"wish {next(_asked)}")
        self.files.choose(wish)
        return await self.over(wish)

    async def over(self, wish: Choice) -> Outcome:
        def done() -> Outcome | None:
            outcome = self.files.outcome()
            over = (
                outcome is not None and outcome.state is not State.SWITCHING and outcome.asked == wish.asked
            )
            return outcome if over else None

        outcome = await until(done, 60)
        assert outcome is not None
        return outcome

    async def left_of(self, mode: ProxyMode) -> str:
        """What of a mode's rules there is in the kernel."""
        if mode is not ProxyMode.NFTABLES:
            lines = []
            for variant in installed_variants():
                lines += (await IPTables(self.site.ns, variant).save()).splitlines()
            ours = [line for line in lines if "KUBE" in line]
            userspace = mode is ProxyMode.USERSPACE
            return "\n".join(line for line in ours if bool(_OF_USERSPACE.search(line)) == userspace)
        return run(["nft", "list", "tables"], ns=self.site.ns, check=True, timeout=20).stdout.decode()


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with Net.built(tmp_path / "net") as built:
        yield built


@pytest.fixture
async def node(net: Net, tmp_path: Path) -> AsyncIterator[Node]:
    api = FakeApi()
    client = api.client()
    ports = [{"name": "p80", "port": 80, "nodePort": NODE_PORT}]
    await client.create(SERVICE, service(cluster_ip=CLUSTER_IP, ports=ports, type="NodePort"), "ns1")
    pods = [endpoint(PODS[name][1], PODS[name][0]) for name in ("a1", "b1")]
    slices = slice_of("ns1/svc1", *pods, ports=[{"name": "p80", "port": ECHO}])
    await client.create(ENDPOINT_SLICE, slices, "ns1")
    addresses = [{"type": "InternalIP", "address": NODE1}]
    await client.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "spec": {},
                               "status": {"addresses": addresses}})  # fmt: skip
    site = Site("node1", net.node, tmp_path / "xtables.lock")
    async with AsyncExitStack() as stack:
        for name in ("a1", "b1"):
            await stack.enter_async_context(echo_server(net.spaces[name], PODS[name][1], ECHO))
        yield Node(net, api, ProxyFiles(tmp_path / "state"), site)


def ways(net: Net) -> list[Way]:
    return [
        Way("pod to cluster IP", net.spaces["a2"], CLUSTER_IP, 80),
        Way("node to cluster IP", net.spaces["node1"], CLUSTER_IP, 80),
        Way("outside to NodePort", net.spaces["outside"], NODE1, NODE_PORT),
    ]


@pytest.mark.parametrize(
    "course",
    [
        [IPTABLES, NFTABLES, IPTABLES],
        [NFTABLES, IPTABLES, NFTABLES],
        [NFTABLES, COMPACT, NFTABLES],
        [COMPACT, IPTABLES, COMPACT],
        [IPTABLES, USERSPACE, IPTABLES],
        [NFTABLES, USERSPACE, NFTABLES],
    ],
    ids=lambda course: " to ".join(choice.shown for choice in course),
)
async def test_nothing_is_lost(node: Node, course: list[Choice]) -> None:
    async with running(node.proxy(course[0]).run()):
        outcome = await node.over(course[0])
        assert outcome.state is State.SERVING, outcome
        async with traffic(*ways(node.net)) as told:
            await told.more()
            for before, choice in itertools.pairwise(course):
                outcome = await node.change(choice)
                assert (outcome.state, outcome.mode, outcome.layout) == (
                    State.SERVING,
                    choice.mode,
                    choice.layout,
                )
                if before.mode is not choice.mode:
                    assert "KUBE" not in await node.left_of(before.mode)
                    assert "kube-proxy" not in await node.left_of(before.mode)
                assert await node.left_of(choice.mode)
                await told.more()
        assert told.failures == []


async def test_what_the_kernel_lacks_is_refused_and_nothing_stops(node: Node) -> None:
    async with running(node.proxy(IPTABLES).run()):
        await node.over(IPTABLES)
        async with traffic(*ways(node.net)) as told:
            outcome = await node.change(Choice(ProxyMode.IPVS))
            if outcome.state is State.SERVING:
                pytest.skip("this kernel has IPVS")
            assert (outcome.state, outcome.mode) == (State.FAILED, ProxyMode.IPTABLES)
            assert outcome.hint
            await told.more()
        assert told.failures == []


async def test_an_agent_killed_between_the_modes_ends_with_one(node: Node) -> None:
    """Rules of both stand, as after kill -9 in the middle of a change; the next agent leaves only the chosen one's."""
    for choice in (IPTABLES, NFTABLES):
        agent = node.make(choice)
        async with running(agent.run()):
            async with asyncio.timeout(60):
                await agent.synced()
    assert "KUBE" in await node.left_of(ProxyMode.IPTABLES)
    node.files.choose(NFTABLES)
    async with running(node.proxy(IPTABLES).run()):
        outcome = await node.over(NFTABLES)
        assert outcome.mode is ProxyMode.NFTABLES
        assert await node.left_of(ProxyMode.IPTABLES) == ""
        async with traffic(*ways(node.net)) as told:
            await told.more()
        assert told.failures == []
