"""The kernel is what it should be: compared entry by entry, put right at once, and the same as after a fresh start."""

from __future__ import annotations

import asyncio
import base64
import logging
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kernel import eventually, own_host, source_seen
from support.podnet import CLUSTER_CIDR, Net, entries, pod_network, right

from controlplane.resources.catalog import NODE
from netkit.kernel import netns, process, rtnl, rtnl_read
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import tunnel_watch
from netkit.podnet.attach import Attach
from netkit.podnet.entries import Entry, Kind, Problem
from netkit.podnet.modes import NetworkMode, Setting, backend
from netkit.podnet.pod import PodRef

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
WIREGUARD = Setting(NetworkMode.WIREGUARD)
OPENED = Setting(NetworkMode.VXLAN, both=NetworkMode.WIREGUARD)


@own_host
@pytest.mark.parametrize("attach", Attach)
@pytest.mark.parametrize("setting", [VXLAN, DIRECT, NATIVE, WIREGUARD, OPENED], ids=str)
async def test_a_node_that_works_is_as_it_should_be(tmp_path: Path, setting: Setting, attach: Attach) -> None:
    async with pod_network(tmp_path, nodes=3, setting=setting, attach=attach) as net:
        for node in ("node1", "node2", "node3"):
            await net.pod(node, f"on-{node}")
        for node in ("node1", "node2", "node3"):
            await right(net, node)
            found, _ = await entries(net, node)
            assert {entry.kind for entry in found} >= {Kind.DEVICE, Kind.ROUTE, Kind.RULE, Kind.SETTING}


BREAK = {
    "route": ("ip route del 10.244.2.0/24", Kind.ROUTE, Problem.MISSING),
    "other way": ("ip route replace 10.244.2.0/24 via 172.18.0.1 dev eth0", Kind.ROUTE, Problem.WRONG),
    "foreign route": ("ip route add 10.244.99.0/24 via 172.18.0.1 dev eth0", Kind.ROUTE, Problem.NOT_OURS),
    "fdb": (
        "bridge fdb replace 0e:f1:ac:12:00:03 dev flannel.1 dst 172.18.0.9 self",
        Kind.FDB,
        Problem.WRONG,
    ),
    "no fdb": ("bridge fdb del 0e:f1:ac:12:00:03 dev flannel.1", Kind.FDB, Problem.MISSING),
    "neighbour": ("ip neigh del 10.244.2.0 dev flannel.1", Kind.NEIGHBOUR, Problem.MISSING),
    "mtu": ("ip link set cni0 mtu 1400", Kind.DEVICE, Problem.WRONG),
    "bridge": ("ip link del cni0", Kind.DEVICE, Problem.MISSING),
    "tunnel": ("ip link del flannel.1", Kind.DEVICE, Problem.MISSING),
}
UNSEEN = {
    "rule": ("iptables-legacy -t nat -D FLANNEL-POSTRTG 1", Kind.RULE, Problem.MISSING),
    "setting": ("sysctl -qw net.ipv4.ip_forward=0", Kind.SETTING, Problem.WRONG),
    "address": ("ip address add 10.244.1.77/32 dev cni0", Kind.ADDRESS, Problem.NOT_OURS),
}


@own_host
@pytest.mark.parametrize("what", [*BREAK, *UNSEEN])
async def test_what_somebody_breaks_is_named_and_put_right(tmp_path: Path, what: str) -> None:
    command, kind, problem = (BREAK | UNSEEN)[what]
    async with pod_network(tmp_path) as net:
        await net.pod("node1", "a")
        await net.pod("node2", "c")
        await right(net, "node1")
        # Nobody repairs: it is named.
        await net.stop("node1")
        process.run(command.split(), ns=net.ns("node1"), check=True)
        wrong = (await entries(net, "node1"))[1]
        assert (kind, problem) in [(item.kind, item.problem) for item in wrong], wrong
        assert all(item.purpose for item in wrong)
        # A new agent repairs it, and again at once when it is broken under its hands.
        await net.start("node1")
        await right(net, "node1")
        if what in BREAK:
            process.run(command.split(), ns=net.ns("node1"), check=True)
            await right(net, "node1")


BREAK_ENCRYPTED = {
    "device": ("ip link del flannel-wg", Kind.DEVICE, Problem.MISSING),
    "down": ("ip link set flannel-wg down", Kind.DEVICE, Problem.WRONG),
    "mtu": ("ip link set flannel-wg mtu 1300", Kind.DEVICE, Problem.WRONG),
    "route": ("ip route del 10.244.0.0/16", Kind.ROUTE, Problem.MISSING),
    "in the clear": ("ip route add 10.244.2.0/24 via 172.18.0.3 dev eth0", Kind.ROUTE, Problem.NOT_OURS),
}


@own_host
@pytest.mark.parametrize("what", BREAK_ENCRYPTED)
async def test_what_somebody_breaks_of_an_encrypted_tunnel_is_named_and_put_right(
    tmp_path: Path, what: str
) -> None:
    command, kind, problem = BREAK_ENCRYPTED[what]
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        _, pod = await net.pod("node1", "a")
        _, far = await net.pod("node2", "c")
        await right(net, "node1")
        await net.stop("node1")
        process.run(command.split(), ns=net.ns("node1"), check=True)
        wrong = (await entries(net, "node1"))[1]
        assert (kind, problem) in [(item.kind, item.problem) for item in wrong], wrong
        assert all(item.purpose for item in wrong)
        await net.start("node1")
        await right(net, "node1")
        process.run(command.split(), ns=net.ns("node1"), check=True)
        await right(net, "node1")
        assert await asyncio.to_thread(source_seen, far, pod, "10.244.1.2") == "10.244.2.2"


BREAK_CABLE = {
    "route": ("ip route del 10.244.1.2/32", Kind.ROUTE, Problem.MISSING),
    "other way": ("ip route replace 10.244.1.2/32 via 172.18.0.1 dev eth0", Kind.ROUTE, Problem.WRONG),
    "own range": ("ip route del unreachable 10.244.1.0/24", Kind.ROUTE, Problem.MISSING),
    "neighbour": ("ip neigh del 10.244.1.2 dev {cable}", Kind.NEIGHBOUR, Problem.MISSING),
    "mtu": ("ip link set {cable} mtu 1400", Kind.DEVICE, Problem.WRONG),
    "down": ("ip link set {cable} down", Kind.DEVICE, Problem.WRONG),
}
UNSEEN_CABLE = {
    "mac": ("ip link set {cable} address 0a:58:00:00:00:01", Kind.DEVICE, Problem.WRONG),
    "address": ("ip address del 10.244.1.1/32 dev {cable}", Kind.ADDRESS, Problem.MISSING),
    "foreign address": ("ip address add 10.244.1.77/32 dev {cable}", Kind.ADDRESS, Problem.NOT_OURS),
}


@own_host
@pytest.mark.parametrize("what", [*BREAK_CABLE, *UNSEEN_CABLE])
async def test_what_somebody_breaks_of_a_cable_is_named_and_put_right(tmp_path: Path, what: str) -> None:
    command, kind, problem = (BREAK_CABLE | UNSEEN_CABLE)[what]
    async with pod_network(tmp_path, attach=Attach.PTP) as net:
        sandbox, pod = await net.pod("node1", "a")
        _, far = await net.pod("node2", "c")
        broken = command.format(cable=sandbox.link).split()
        await right(net, "node1")
        await net.stop("node1")
        process.run(broken, ns=net.ns("node1"), check=True)
        wrong = (await entries(net, "node1"))[1]
        assert (kind, problem) in [(item.kind, item.problem) for item in wrong], wrong
        await net.start("node1")
        await right(net, "node1")
        if what in BREAK_CABLE:
            process.run(broken, ns=net.ns("node1"), check=True)
            await right(net, "node1")
        assert await asyncio.to_thread(source_seen, far, pod, "10.244.1.2") == "10.244.2.2"


@own_host
async def test_pods_that_come_and_go_are_nobodys_trespass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "netkit.podnet")
    async with pod_network(tmp_path, nodes=1, attach=Attach.PTP) as net:
        agent = net.agents["node1"]
        for turn in range(2):
            # No pod has another's uid, of which its link's name is made: the kernel tells of the old link's end later.
            pods = [PodRef("default", f"p{number}", f"uid-{turn}-{number}") for number in range(15)]
            await asyncio.gather(*(agent.network.add(pod) for pod in pods))
            await right(net, "node1")
            for pod in pods:
                await agent.network.remove(pod.uid)
            routes = {str(route.target) for route in rtnl_read.routes(net.ns("node1"))}
            assert routes == {"172.18.0.0/16", "0.0.0.0/0"}
        links = lambda: [name for name in rtnl_read.links(net.ns("node1")) if name.startswith("veth")]  # noqa: E731
        await eventually(lambda: not links())
        # The loop has heard of all that when it has repaired what somebody else did.
        process.run(["ip", "route", "del", "unreachable", "10.244.1.0/24"], ns=net.ns("node1"), check=True)
        await right(net, "node1")
    assert caplog.text.count("somebody changed") == 1


@own_host
async def test_a_tunnel_that_somebody_makes_in_native_mode_is_removed(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1, setting=NATIVE) as net:
        with Rtnl(net.ns("node1")) as links:
            index = links.link_index("eth0")
            assert index is not None
            links.apply(rtnl.vxlan("flannel.1", vni=1, local=IPv4Address("172.18.0.2"), device=index))
            await eventually(lambda: links.link_index("flannel.1") is None)


Step = tuple[Any, ...]
NUMBERS = st.integers(2, 5)
STEPS = st.one_of(
    st.tuples(st.just("join"), NUMBERS, st.sampled_from((VXLAN, NATIVE))),
    st.tuples(st.just("leave"), NUMBERS),
    st.tuples(st.just("move"), NUMBERS, st.integers(20, 25)),
    st.tuples(st.just("use"), st.sampled_from((VXLAN, DIRECT, NATIVE, WIREGUARD))),
    st.tuples(st.just("pod"), st.integers(1, 4)),
    st.tuples(st.just("unpod"), st.integers(1, 4)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("break"), st.sampled_from(sorted(BREAK))),
)


async def play(place: Path, attach: Attach, plan: list[Step]) -> None:
    """Play the plan on a node, and then begin afresh with what is left: the kernel must be the same."""
    async with pod_network(place, nodes=1, attach=attach) as net:
        for step in plan:
            await take(net, *step)
        await right(net, "node1")
        played, _ = await entries(net, "node1")
        await net.stop("node1")
        with Rtnl(net.ns("node1")) as links:
            present = rtnl_read.links(net.ns("node1"))
            for name in ("flannel.1", "flannel-wg", "cni0"):
                if name in present:
                    links.apply(rtnl.link_delete(name))
            for route in rtnl_read.routes(net.ns("node1")):
                if route.target.subnet_of(CLUSTER_CIDR):
                    links.apply(rtnl.route_delete(route.target, route.index))
        process.run(["iptables-legacy", "-t", "nat", "-F"], ns=net.ns("node1"), check=True)
        await net.start("node1")
        await right(net, "node1")
        fresh, _ = await entries(net, "node1")
        assert _sorted(played) == _sorted(fresh)


async def take(net: Net, kind: str, *what: Any) -> None:
    agent = net.agents["node1"]
    match kind, *what:
        case "join", number, setting:
            if net.api.get(NODE, f"node{number}") is None:
                await net.register(f"node{number}", number)
            _publish(net, number, IPv4Address(f"172.18.0.{number + 1}"), setting)
        case "leave", number:
            if net.api.get(NODE, f"node{number}") is not None:
                net.api.remove(NODE, f"node{number}")
        case "move", number, place:
            if net.api.get(NODE, f"node{number}") is not None:
                _publish(net, number, IPv4Address(f"172.18.0.{place}"), VXLAN)
        case "use", setting:
            await net.use(setting)
        case "pod", number:
            await net.pod("node1", f"p{number}", uid=f"uid-{number}")
        case "unpod", number:
            await agent.network.remove(f"uid-{number}")
        case "restart":
            await net.stop("node1")
            await net.start("node1")
        case "break", name:
            process.run(BREAK[name][0].split(), ns=net.ns("node1"))


def _publish(net: Net, number: int, address: IPv4Address, setting: Setting) -> None:
    # Whatever it sends, it can receive.
    key = base64.b64encode(bytes([number]) * 32).decode()
    notes = backend(Setting(setting.mode, both=NetworkMode.WIREGUARD)).annotations(address, key)
    change: Callable[[dict[str, Any]], Any] = lambda n: n["metadata"].update(annotations=notes)  # noqa: E731
    net.change_node(f"node{number}", change)


def _sorted(found: list[Entry]) -> list[str]:
    return sorted(f"{entry.kind} {entry.key} {entry.value}" for entry in found)


@own_host
def test_whatever_happens_the_kernel_ends_as_after_a_fresh_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other nodes are but objects, and never answer.
    monkeypatch.setattr(tunnel_watch, "_SESSION_SECONDS", 0.01)

    @settings(
        max_examples=16,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.sampled_from(Attach), st.lists(STEPS, min_size=3, max_size=10))
    def plays(attach: Attach, plan: list[Step]) -> None:
        asyncio.run(play(Path(tempfile.mkdtemp(dir=tmp_path)), attach, plan))

    plays()
    assert netns.names() == []
