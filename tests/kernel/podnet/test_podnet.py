from __future__ import annotations

import asyncio
import errno
import os
import signal
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from support.kernel import eventually, own_host, ping, source_seen
from support.podnet import CLUSTER_CIDR, Net, pod_network

from controlplane.resources.catalog import NODE
from netkit.kernel import netns, process, rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import HOST
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.rtnl_read import Link
from netkit.podnet import device, paths
from netkit.podnet.address import PoolExhausted
from netkit.podnet.attach import Attach
from netkit.podnet.network import LEASE_FILE, NetworkNotReady, PodNetwork, PodRef
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Devices, Hop, Paths
from netkit.podnet.peer import peers

SEGMENT = IPv4Network("172.18.0.0/16")


def tunnelled(net: Net, node: str) -> Paths:
    """What flannel.1 of the node holds."""
    index = rtnl_read.links(net.ns(node))["flannel.1"].index
    return device.read_paths(net.ns(node), Devices(0, index), CLUSTER_CIDR)


@own_host
async def test_packets_keep_their_source_inside_and_lose_it_outside(tmp_path: Path) -> None:
    async with pod_network(tmp_path) as net:
        (a, a_ns), (b, b_ns), (c, c_ns) = [
            await net.pod(node, name) for node, name in (("node1", "a"), ("node1", "b"), ("node2", "c"))
        ]
        assert [box.addresses for box in (a, b, c)] == [("10.244.1.2",), ("10.244.1.3",), ("10.244.2.2",)]
        assert {box.mtu for box in (a, b, c)} == {1450}

        def seen(*arguments: object) -> str:
            return source_seen(*arguments)  # type: ignore[arg-type]

        # pod to pod: same node, other node, both ways
        assert seen(a_ns, b_ns, "10.244.1.3") == "10.244.1.2"
        assert seen(a_ns, c_ns, "10.244.2.2") == "10.244.1.2"
        assert seen(c_ns, a_ns, "10.244.1.2") == "10.244.2.2"
        # pod to node: its own and the other one, at the node's address and at the gateway
        assert seen(a_ns, net.ns("node1"), "172.18.0.2") == "10.244.1.2"
        assert seen(a_ns, net.ns("node1"), "10.244.1.1") == "10.244.1.2"
        assert seen(a_ns, net.ns("node2"), "172.18.0.3") == "10.244.1.2"
        # node to pod: its own and the other node's
        assert seen(net.ns("node1"), a_ns, "10.244.1.2") == "10.244.1.1"
        assert seen(net.ns("node1"), c_ns, "10.244.2.2") == "10.244.1.0"
        # pod to the world outside
        assert seen(a_ns, net.ns("client"), "172.18.0.4") == "172.18.0.2"
        assert seen(c_ns, net.ns("client"), "172.18.0.4") == "172.18.0.3"
        assert seen(a_ns, HOST, "172.18.0.1") == "172.18.0.2"
        # much data: segmentation and checksums over the tunnel
        assert source_seen(a_ns, c_ns, "10.244.2.2", payload=2_000_000) == "10.244.1.2"


@own_host
@pytest.mark.parametrize("mtu", [1500, 9000])
async def test_full_packets_pass_with_df_and_bigger_ones_do_not(tmp_path: Path, mtu: int) -> None:
    async with pod_network(tmp_path, mtu=mtu) as net:
        _, a_ns = await net.pod("node1", "a")
        await net.pod("node1", "b")
        await net.pod("node2", "c")
        full = mtu - 50 - 28
        for target in ("10.244.1.1", "10.244.1.3", "10.244.2.2", "172.18.0.3", "172.18.0.4"):
            assert ping(a_ns, target, size=full), target
            assert not ping(a_ns, target, size=full + 1, patience=0.2), target
        assert ping(net.ns("node1"), "10.244.2.2", size=full)


@own_host
async def test_services_between_pods_of_one_node_and_of_a_pod_to_itself(tmp_path: Path) -> None:
    """What bridge-nf-call and hairpin are for: a virtual address that leads to a pod behind the same bridge."""
    async with pod_network(tmp_path, nodes=1) as net:
        _, a_ns = await net.pod("node1", "a")
        _, b_ns = await net.pod("node1", "b")
        rules = """*nat
-A PREROUTING -d 10.96.0.10/32 -j DNAT --to-destination 10.244.1.3
-A POSTROUTING -s 10.244.1.3/32 -d 10.244.1.3/32 -j MASQUERADE
COMMIT
"""
        await IPTables(net.ns("node1")).restore(rules)
        assert source_seen(a_ns, b_ns, "10.96.0.10") == "10.244.1.2"
        assert source_seen(b_ns, b_ns, "10.96.0.10") == "10.244.1.1"


@own_host
async def test_a_sandbox_is_made_as_cni_makes_it(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        sandbox, ns = await net.pod("node1", "web", uid="0123456789ab")
        assert sandbox.netns == "kt.default.web.012345"
        inside = rtnl_read.links(ns)
        assert set(inside) == {"lo", "eth0"}
        assert (inside["eth0"].mac, inside["eth0"].mtu, inside["eth0"].up) == (
            "0a:58:0a:f4:01:02",
            1450,
            True,
        )
        assert inside["lo"].up
        assert [str(e.address) for e in rtnl_read.addresses(ns, inside["eth0"].index)] == ["10.244.1.2/24"]
        assert [str(r.via) for r in rtnl_read.routes(ns) if r.target.prefixlen == 0] == ["10.244.1.1"]
        outside = rtnl_read.links(net.ns("node1"))
        port = outside[sandbox.link]
        assert sandbox.link.startswith("veth")
        assert len(sandbox.link) == 12
        assert (port.master, port.hairpin, port.up) == (outside["cni0"].index, True, True)
        assert outside["cni0"].mac == "0a:58:0a:f4:01:01"
        assert outside["flannel.1"].mtu == 1450
        node = net.ns("node1")
        assert sysctl.read(node, "net.bridge.bridge-nf-call-iptables") == "1"
        assert sysctl.read(node, "net.ipv4.ip_forward") == "1"
        assert not [
            e for e in rtnl_read.addresses(node) if e.address.version == 6 and not e.address.is_loopback
        ]
        host = await net.agents["node1"].network.add(
            PodRef("kube-system", "proxy", "u-host"), host_network=True
        )
        assert (host.netns, host.addresses, host.mtu) == ("kt.node1", ("172.18.0.2",), 1500)
        assert set(await net.agents["node1"].network.list()) == {"0123456789ab"}


@own_host
async def test_adding_twice_gives_the_same_and_removing_frees_all(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        network = net.agents["node1"].network
        pod = PodRef("default", "web", "uid-1")
        first = await network.add(pod)
        assert await network.add(pod) == first
        await network.remove("uid-1")
        await network.remove("uid-1")
        assert not netns.exists(first.netns)
        assert await network.list() == {}
        with Rtnl(net.ns("node1")) as links:
            await eventually(lambda: links.link_index(first.link) is None)
        permanent = [n for n in rtnl_read.neighbours(net.ns("node1")) if n.state & rtnl_read.PERMANENT]
        assert [n for n in permanent if str(n.address) == first.addresses[0]] == []
        # At once again: the name may be taken by the dying link, the address is not given soon.
        again = await network.add(pod)
        assert again.netns == first.netns
        assert again.link != first.link
        assert again.addresses == ("10.244.1.3",)
        await network.remove("uid-1")


@own_host
async def test_a_sandbox_that_a_process_keeps_alive_is_cut_off(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        sandbox, _kept_open = await net.pod("node1", "a", uid="uid-a")
        await net.agents["node1"].network.remove("uid-a")
        with Rtnl(net.ns("node1")) as links:
            assert links.link_index(sandbox.link) is not None
            await eventually(lambda: links.link_index(sandbox.link) is None)


@own_host
async def test_many_pods_in_parallel_have_different_addresses(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        network = net.agents["node1"].network
        boxes = await asyncio.gather(
            *(network.add(PodRef("default", f"p{i}", f"{i:06}-u")) for i in range(60))
        )
        assert len({box.addresses[0] for box in boxes}) == 60
        assert len({box.link for box in boxes}) == 60
        with netns.open_namespace(boxes[59].netns) as last:
            assert ping(last, boxes[0].addresses[0])


@own_host
async def test_a_failed_add_leaves_nothing(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        network = net.agents["node1"].network
        process.run(["ip", "netns", "add", "kt.default.web.uid-1x"], check=True)
        with pytest.raises(KernelError) as caught:
            await network.add(PodRef("default", "web", "uid-1x"))
        assert caught.value.is_exists
        assert await network.list() == {}
        process.run(["ip", "netns", "del", "kt.default.web.uid-1x"], check=True)
        # Trouble in the middle: the bridge is gone.
        with Rtnl(net.ns("node1")) as links:
            links.apply(rtnl.link_delete("cni0"))
        with pytest.raises(KernelError) as missing:
            await network.add(PodRef("default", "web", "uid-1x"))
        assert missing.value.errno in (errno.ENODEV, errno.EINVAL)
        assert not netns.exists("kt.default.web.uid-1x")
        assert await network.list() == {}


@own_host
async def test_without_a_range_only_host_network_pods_start(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    network = PodNetwork("kt", HOST, IPv4Address("192.0.2.1"), tmp_path / "state", ledger)
    assert network.gateway is None
    with pytest.raises(NetworkNotReady):
        await network.add(PodRef("default", "web", "u"))
    assert (await network.add(PodRef("default", "web", "u"), host_network=True)).addresses == ("192.0.2.1",)
    await network.close()


@own_host
async def test_a_full_range_says_so_and_recovers(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        net.change_node(
            "node1", lambda n: n["spec"].update(podCIDR="10.244.7.0/29", podCIDRs=["10.244.7.0/29"])
        )
        network = net.agents["node1"].network
        await eventually(lambda: str(network.gateway) == "10.244.7.1")
        for i in range(5):
            await network.add(PodRef("default", f"p{i}", f"uid-{i}"))
        with pytest.raises(PoolExhausted):
            await network.add(PodRef("default", "p5", "uid-5"))
        await network.remove("uid-2")
        assert (await network.add(PodRef("default", "p5", "uid-5"))).addresses == ("10.244.7.4",)


@own_host
@pytest.mark.parametrize("attach", Attach)
async def test_a_restarted_agent_adopts_and_nothing_is_interrupted(tmp_path: Path, attach: Attach) -> None:
    async with pod_network(tmp_path, attach=attach) as net:
        a, a_ns = await net.pod("node1", "a", uid="uid-a")
        gone, _ = await net.pod("node1", "gone", uid="uid-gone")
        await net.pod("node2", "c")
        links = rtnl_read.links(net.ns("node1"))
        await net.stop("node1")
        assert ping(a_ns, "10.244.2.2")
        netns.delete(gone.netns)
        agent = await net.start("node1")
        assert await agent.network.list() == {"uid-a": a}
        after = rtnl_read.links(net.ns("node1"))
        assert {name: link.index for name, link in after.items() if name != gone.link} == {
            name: link.index for name, link in links.items() if name != gone.link
        }
        assert ping(a_ns, "10.244.2.2")
        b, _ = await net.pod("node1", "b")
        assert b.addresses == ("10.244.1.4",)


@own_host
@pytest.mark.parametrize(
    "damage", ["bridge", "tunnel", "entries", "foreign-entries", "rules", "tunnel-parameters"]
)
async def test_a_restarted_agent_repairs(tmp_path: Path, damage: str) -> None:
    async with pod_network(tmp_path) as net:
        _, a_ns = await net.pod("node1", "a")
        await net.pod("node2", "c")
        await net.stop("node1")
        node = net.ns("node1")
        with Rtnl(node) as links:
            index = links.link_index("flannel.1")
            assert index is not None
            gateway = IPv4Address("10.244.9.0")
            wrong = Paths(
                {"0e:f1:00:00:00:09": IPv4Address("172.18.9.9")},
                {gateway: "0e:f1:00:00:00:09"},
                {IPv4Network("10.244.9.0/24"): Hop(gateway, tunnel=True)},
            )
            match damage:
                case "bridge":
                    links.apply(rtnl.link_delete("cni0"))
                case "tunnel":
                    links.apply(rtnl.link_delete("flannel.1"))
                case "entries":
                    standing = tunnelled(net, "node1")
                    links.apply(*paths.changes(standing, Paths(), Devices(0, index)))
                    links.apply(*paths.leftovers(standing, Paths(), Devices(0, index)))
                case "foreign-entries":
                    links.apply(*paths.changes(Paths(), wrong, Devices(0, index)))
                case "rules":
                    process.run(["iptables-legacy", "-t", "nat", "-F"], ns=node, check=True)
                case "tunnel-parameters":
                    links.apply(rtnl.link_delete("flannel.1"))
                    under = links.link_index("eth0")
                    assert under is not None
                    links.apply(rtnl.vxlan("flannel.1", vni=7, local=IPv4Address("172.18.0.2"), device=under))
        await net.start("node1")
        assert ping(a_ns, "10.244.2.2", size=1422)
        assert source_seen(a_ns, net.ns("client"), "172.18.0.4") == "172.18.0.2"
        joined = peers(net.api.all(NODE), "node1")
        assert tunnelled(net, "node1") == Vxlan().wanted(joined, SEGMENT).paths


@own_host
@pytest.mark.parametrize("attach", Attach)
async def test_a_lost_address_file_gives_no_address_twice(tmp_path: Path, attach: Attach) -> None:
    async with pod_network(tmp_path, nodes=1, attach=attach) as net:
        lost, _ = await net.pod("node1", "lost")
        await net.stop("node1")
        (tmp_path / "state" / "node1" / LEASE_FILE).unlink()
        agent = await net.start("node1")
        assert not netns.exists(lost.netns)
        assert await agent.network.list() == {}
        again, ns = await net.pod("node1", "again")
        assert again.addresses == lost.addresses
        assert ping(ns, "10.244.1.1")


@own_host
async def test_packets_pass_a_new_pods_cable_when_it_is_given_out(tmp_path: Path) -> None:
    """The kernel drops what comes before; the first pod of a node has to wait for cni0 as well."""
    async with pod_network(tmp_path, nodes=1) as net:
        links = net.agents["node1"].network._links
        asked: list[str] = []

        def slowly(name: str) -> Link | None:
            found = Rtnl.link(links, name)
            asked.append(name)
            assert found is not None
            return replace(found, forwards=found.forwards and asked.count(name) > 3)

        links.link = slowly  # type: ignore[method-assign]
        made, _ = await net.pod("node1", "a")
        assert min(asked.count(name) for name in (made.link, "cni0")) > 3
        with Rtnl(net.ns("node1")) as others:
            found = [others.link(name) for name in (made.link, "cni0")]
            assert all(link is not None and link.forwards for link in found)
            others.apply(rtnl.link_down("cni0"))
            down = others.link("cni0")
            assert down is not None
            assert not down.forwards


@own_host
async def test_nodes_come_change_and_go(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=3) as net:
        _, a_ns = await net.pod("node1", "a")
        await net.pod("node3", "e")
        for name in ("node1", "node3"):
            await eventually(lambda name=name: len(tunnelled(net, name).routes) == 2)
        assert ping(a_ns, "10.244.3.2")
        node = net.ns("node1")
        assert len(tunnelled(net, "node1").routes) == 2
        rules = IPTables(node)
        assert "-d 172.18.0.4/32" in await rules.save("nat")

        await net.stop("node3")
        net.api.remove(NODE, "node3")
        await eventually(lambda: len(tunnelled(net, "node1").routes) == 1)
        # What the tunnel needed for it goes a moment later.
        await eventually(lambda: len(tunnelled(net, "node1").fdb) == 1)
        assert len(tunnelled(net, "node1").neighbours) == 1
        await eventually(
            lambda: b"-d 172.18.0.4/32" not in process.run(["iptables-legacy-save"], ns=node).stdout
        )

        # A node that comes back at another address (here: the client's machine takes its name).
        await net.register("client", 9)
        await net.start("client")
        for name in ("node1", "client"):
            await eventually(lambda name=name: len(tunnelled(net, name).routes) == 2)
        await net.pod("client", "f")
        assert ping(a_ns, "10.244.9.2")


@own_host
async def test_heartbeats_cost_nothing_and_annotations_are_flannels(tmp_path: Path) -> None:
    async with pod_network(tmp_path) as net:
        own = net.api.get(NODE, "node1")
        assert own is not None
        assert own["metadata"]["annotations"] == Vxlan().annotations(IPv4Address("172.18.0.2"))
        conditions = {c["type"]: (c["status"], c["reason"]) for c in own["status"]["conditions"]}
        assert conditions["NetworkUnavailable"] == ("False", "FlannelIsUp")
        agent = net.agents["node1"]
        await eventually(lambda: not agent._changed.is_set())
        net.change_node("node2", lambda n: n["status"].update(heartbeat="now"))
        net.change_node("node2", lambda n: n["metadata"].setdefault("labels", {}).update(x="y"))
        seen = [item["metadata"].get("labels") for item in agent._nodes.items()]
        await eventually(lambda: [i["metadata"].get("labels") for i in agent._nodes.items()] != seen)
        assert not agent._changed.is_set()


@own_host
async def test_the_agent_goes_on_after_trouble_with_the_api_and_the_kernel(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        node = net.ns("node1")
        net.api.down = True
        net.api.break_watches()
        await net.pod("node1", "a")
        with Rtnl(node) as links:
            links.apply(rtnl.link_delete("flannel.1"))
        net.api.down = False
        await net.register("node2", 2)
        net.change_node(
            "node2",
            lambda n: n["metadata"].update(annotations=Vxlan().annotations(IPv4Address("172.18.0.9"))),
        )
        with Rtnl(node) as links:
            await eventually(lambda: links.link_index("flannel.1"))
            await eventually(
                lambda: links.link_index("flannel.1") and len(tunnelled(net, "node1").routes) == 1
            )


@own_host
@pytest.mark.parametrize("seed", range(4))
async def test_an_agent_killed_while_adding_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    """kill -9 of a process that adds and removes pods; the next one finds a consistent state."""
    async with pod_network(tmp_path, nodes=1) as net:
        await net.stop("node1")
        tell_read, tell_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(_churn(net.fabric, tmp_path, tell_write))
            finally:
                os._exit(0)
        os.close(tell_write)
        for _ in range(10 + 7 * seed):
            await asyncio.to_thread(os.read, tell_read, 1)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)
        os.close(tell_read)
        agent = await net.start("node1")
        standing = await agent.network.list()
        names = {name for name in netns.names() if name.startswith("kt.default.")}
        assert names == {box.netns for box in standing.values()}
        assert len({box.addresses for box in standing.values()}) == len(standing)
        for box in standing.values():
            with netns.open_namespace(box.netns) as ns:
                assert ping(ns, "10.244.1.1")
        more = [await net.pod("node1", f"more{i}") for i in range(3)]
        taken = {box.addresses for box in standing.values()}
        assert not taken & {box.addresses for box, _ in more}


async def _churn(fabric: object, place: Path, tell: int) -> None:
    from netkit.fabric.build import Fabric

    assert isinstance(fabric, Fabric)
    machine = fabric.machines["node1"]
    ledger = Ledger(place / "ledger", "node-node1")
    network = PodNetwork("kt", machine.ns, machine.address.ip, place / "state" / "node1", ledger)
    await network.configure(IPv4Network("10.244.1.0/24"), 1500)
    for number in range(200):
        await network.add(PodRef("default", f"p{number}", f"{number:06}"))
        os.write(tell, b".")
        if number % 3 == 2:
            await network.remove(f"{number - 1:06}")
            os.write(tell, b".")
