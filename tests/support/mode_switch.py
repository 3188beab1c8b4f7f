"""A node whose proxy changes its mode while packets go through it, and what is left of a mode afterwards."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.client_fake import FakeApi
from support.client_wait import until
from support.proxy import endpoint, service, slice_of
from support.proxy_net import NODE1, PODS, Net
from support.traffic import Way, echo_server

from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE
from netkit.cluster.node_proxy import NodeProxy
from netkit.cluster.outcome import State
from netkit.cluster.proxy_choice import Choice, Outcome, ProxyFiles
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.assembly import assemble
from netkit.proxy.modes import Site
from netkit.proxy.settings import ConntrackSettings, ProxyMode, ProxySettings

CLUSTER_IP, NODE_PORT, ECHO = "172.30.0.41", 30001, 7070
ECHOES = ("a1", "b1")
SETTINGS = ProxySettings(
    cluster_cidr="10.244.0.0/16", node_address=NODE1, node_port_addresses=(f"{NODE1}/32",), min_sync_period=0.01,
    conntrack=ConntrackSettings(max_per_core=0),
)  # fmt: skip
OF_USERSPACE = re.compile(r"KUBE-(PORTALS|NODEPORT-)")
_OF_IPVS = "ipvsadm -Sn; ipset list -n; ip -o link show kube-ipvs0 2>/dev/null; true"
_RULES = {
    ProxyMode.IPTABLES: re.compile(
        r"KUBE-(SVC|SVL|SEP|EXT|FW)-|KUBE-(NODEPORTS|EXTERNAL-SERVICES|PROXY-CANARY)"
    ),
    ProxyMode.IPVS: re.compile(r"--match-set KUBE|KUBE-(IPVS|SOURCE-RANGES|LOAD-BALANCER|NODE-PORT)"),
    ProxyMode.USERSPACE: OF_USERSPACE,
}
"""What is of one mode alone; chains of other names are used by several."""
_asked = itertools.count()


@dataclass
class SwitchedNode:
    """The node whose proxy changes: `node1` of the network, with one Service of the pods `ECHOES`, which echo."""

    net: Net
    api: FakeApi
    files: ProxyFiles
    site: Site

    @classmethod
    @asynccontextmanager
    async def made(
        cls, net: Net, directory: Path, variant: Variant | None = None
    ) -> AsyncIterator[SwitchedNode]:
        """`variant`: the implementation of iptables, None for the one that a node would choose."""
        api = FakeApi()
        client = api.client()
        ports = [{"name": "p80", "port": 80, "nodePort": NODE_PORT}]
        await client.create(SERVICE, service(cluster_ip=CLUSTER_IP, ports=ports, type="NodePort"), "ns1")
        pods = [endpoint(PODS[name][1], PODS[name][0]) for name in ECHOES]
        slices = slice_of("ns1/svc1", *pods, ports=[{"name": "p80", "port": ECHO}])
        await client.create(ENDPOINT_SLICE, slices, "ns1")
        addresses = [{"type": "InternalIP", "address": NODE1}]
        await client.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "spec": {},
                                   "status": {"addresses": addresses}})  # fmt: skip
        site = Site("node1", net.node, directory / "xtables.lock", variant)
        async with AsyncExitStack() as stack:
            for name in ECHOES:
                await stack.enter_async_context(echo_server(net.spaces[name], PODS[name][1], ECHO))
            yield cls(net, api, ProxyFiles(directory / "state"), site)

    def make(self, choice: Choice) -> ProxyAgent:
        settings = replace(SETTINGS, mode=choice.mode, nftables_layout=choice.layout)
        return assemble(self.api.client(), "node1", settings, self.site, [Family.IPV4])

    def proxy(self, first: Choice) -> NodeProxy:
        return NodeProxy(self.site, self.files, first, self.make)

    async def change(self, choice: Choice) -> Outcome:
        """Wish for a mode; what came of it."""
        wish = replace(choice, asked=f"wish {next(_asked)}")
        self.files.choose(wish)
        return await self.over(wish)

    async def over(self, wish: Choice) -> Outcome:
        """What came of a wish, as soon as that is known."""

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
        """What there is in the kernel that is of this mode alone; "" for nothing."""
        if mode is ProxyMode.NFTABLES:
            return self._said("nft list tables")
        found = self._said(_OF_IPVS) if mode is ProxyMode.IPVS else ""
        return found + "\n".join(line for line in await self.rules() if _RULES[mode].search(line))

    async def rules(self) -> list[str]:
        """Rules and chains of all modes that write with iptables."""
        lines: list[str] = []
        for variant in [self.site.variant] if self.site.variant else installed_variants():
            lines += (await IPTables(self.site.ns, variant).save()).splitlines()
        return [line for line in lines if "KUBE" in line]

    def _said(self, command: str) -> str:
        return run(["sh", "-c", command], ns=self.site.ns, check=True, timeout=20).stdout.decode()


def ways(net: Net) -> Sequence[Way]:
    """One of each kind of caller."""
    return [
        Way("pod to cluster IP", net.spaces["a2"], CLUSTER_IP, 80),
        Way("node to cluster IP", net.spaces["node1"], CLUSTER_IP, 80),
        Way("outside to NodePort", net.spaces["outside"], NODE1, NODE_PORT),
    ]
