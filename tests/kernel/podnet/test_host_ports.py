"""Ports of a node that lead to pods, in the kernel: who reaches them, as whom, and that nothing stale stays."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from support.kernel import own_host
from support.packets import PATIENCE, forwarded
from support.podnet import Net, pod_network, right

from netkit.kernel import netns, process
from netkit.kernel.conntrack import Conntrack
from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.ledger import Ledger
from netkit.kernel.teardown import teardown
from netkit.podnet.attach import Attach
from netkit.podnet.entries import rule_entries
from netkit.podnet.host_port import Forwarded, is_ours, rules
from netkit.podnet.host_port_rules import HostPortRules
from netkit.podnet.pod import PodRef, PortMapping, RuntimeConfig

NODE1, POD = "172.18.0.2", "10.244.1.2"


def _sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


needs_sctp = pytest.mark.skipif(not _sctp(), reason="this kernel has no SCTP")
PROTOCOLS = ["tcp", "udp", pytest.param("sctp", marks=needs_sctp)]


async def seen(net: Net, protocol: str, caller: netns.Namespace, server: netns.Namespace, target: str) -> str:
    try:
        return await asyncio.to_thread(forwarded, protocol, caller, server, (POD, 80), (target, 8080))
    except OSError as error:
        return repr(error)


@own_host
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attach", Attach)
async def test_a_host_port_is_reached_by_everybody(tmp_path: Path, attach: Attach, protocol: str) -> None:
    async with pod_network(tmp_path, attach=attach) as net:
        _, web = await net.pod("node1", "web", ports=(PortMapping(8080, 80, protocol),))
        _, near = await net.pod("node1", "near")
        _, far = await net.pod("node2", "far")
        node1, node2, client = net.ns("node1"), net.ns("node2"), net.ns("client")
        found = {
            "outside": await seen(net, protocol, client, web, NODE1),
            "other node": await seen(net, protocol, node2, web, NODE1),
            "pod of other node": await seen(net, protocol, far, web, NODE1),
            "node": await seen(net, protocol, node1, web, NODE1),
            "node's localhost": await seen(net, protocol, node1, web, "127.0.0.1"),
            "neighbour": await seen(net, protocol, near, web, NODE1),
            "neighbour by its gateway": await seen(net, protocol, near, web, "10.244.1.1"),
            "itself": await seen(net, protocol, web, web, NODE1),
        }
        # portmap takes all of cni0's range for neighbours whose answers might miss the node.
        neighbour = "10.244.1.1" if attach is Attach.BRIDGE else "10.244.1.3"
        assert found == {
            "outside": "172.18.0.4",
            "other node": "172.18.0.3",
            "pod of other node": "10.244.2.2",
            "node": NODE1,
            "node's localhost": "10.244.1.1",
            "neighbour": neighbour,
            "neighbour by its gateway": neighbour,
            "itself": "10.244.1.1",
        }
        await right(net, "node1")


@own_host
async def test_a_host_address_is_heeded(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        ports = (PortMapping(8080, 80, host_ip="127.0.0.1"), PortMapping(8081, 80, host_ip="0.0.0.0"))
        _, web = await net.pod("node1", "web", ports=ports)
        node, client = net.ns("node1"), net.ns("client")
        assert await seen(net, "tcp", node, web, "127.0.0.1") == "10.244.1.1"
        assert "ConnectionRefused" in await seen(net, "tcp", client, web, NODE1)
        assert (
            await asyncio.to_thread(forwarded, "tcp", client, web, (POD, 80), (NODE1, 8081)) == "172.18.0.3"
        )
        await right(net, "node1")


def chains(net: Net, node: str) -> list[str]:
    saved = process.run(["iptables-legacy-save", "-t", "nat"], ns=net.ns(node), check=True).stdout.decode()
    found = [line.split()[0][1:] for line in saved.splitlines() if line.startswith(":")]
    return [chain for chain in found if is_ours(chain)]


@own_host
@pytest.mark.parametrize("attach", Attach)
async def test_rules_go_with_their_pod_and_survive_the_agent(tmp_path: Path, attach: Attach) -> None:
    async with pod_network(tmp_path, nodes=1, attach=attach) as net:
        _, web = await net.pod("node1", "web", uid="uid-web", ports=(PortMapping(8080, 80),))
        await net.pod("node1", "other", uid="uid-other", ports=(PortMapping(9090, 80),))
        assert len(chains(net, "node1")) == 5
        # The next agent finds the rules of pods that it did not make, and what was broken meanwhile.
        await net.stop("node1")
        process.run(
            ["iptables-legacy", "-t", "nat", "-F", "CNI-HOSTPORT-DNAT"], ns=net.ns("node1"), check=True
        )
        assert "ConnectionRefused" in await seen(net, "tcp", net.ns("client"), web, NODE1)
        await net.start("node1")
        assert await seen(net, "tcp", net.ns("client"), web, NODE1) == "172.18.0.3"
        await right(net, "node1")
        network = net.agents["node1"].network
        await network.remove("uid-web")
        assert len(chains(net, "node1")) == 4
        assert "ConnectionRefused" in await seen(net, "tcp", net.ns("client"), web, NODE1)
        await right(net, "node1")
        await network.remove("uid-other")
        assert chains(net, "node1") == []
        saved = process.run(["iptables-legacy-save"], ns=net.ns("node1"), check=True).stdout.decode()
        assert "CNI" not in saved
        await right(net, "node1")


@own_host
async def test_a_pod_whose_rules_are_refused_leaves_nothing(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        network = net.agents["node1"].network
        bad = RuntimeConfig((PortMapping(8080, 80, host_ip="not an address"),))
        with pytest.raises(Exception, match="Bad argument"):
            await network.add(PodRef("default", "web", "uid-web"), config=bad)
        assert await network.list() == {}
        assert chains(net, "node1") == []
        await right(net, "node1")


@own_host
async def test_datagrams_that_flowed_before_come_to_the_pod(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=1) as net:
        node, client = net.ns("node1"), net.ns("client")
        with netns.socket_in(client, socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.settimeout(PATIENCE)
            caller.bind(("0.0.0.0", 5000))
            with netns.socket_in(node, socket.AF_INET, socket.SOCK_DGRAM) as before:
                before.settimeout(PATIENCE)
                before.bind((NODE1, 8080))
                caller.sendto(b"one", (NODE1, 8080))
                assert before.recv(10) == b"one"
            _, web = await net.pod("node1", "web", uid="u", ports=(PortMapping(8080, 80, "udp"),))
            with netns.socket_in(web, socket.AF_INET, socket.SOCK_DGRAM) as served:
                served.settimeout(PATIENCE)
                served.bind((POD, 80))
                caller.sendto(b"two", (NODE1, 8080))
                assert served.recv(10) == b"two"
            await net.agents["node1"].network.remove("u")
            assert Conntrack(node).dump(4, socket.IPPROTO_UDP) == []


@own_host
@pytest.mark.parametrize("variant", Variant)
async def test_both_iptables_hold_the_rules_as_they_are_compared(tmp_path: Path, variant: Variant) -> None:
    ports = (PortMapping(8080, 80), PortMapping(8081, 80, host_ip="172.18.0.2"), PortMapping(53, 53, "udp"))
    pods = [
        Forwarded(PodRef("default", name, f"uid-{name}"), IPv4Interface(f"10.244.1.{n}/24"), ports, "lo")
        for n, name in enumerate(("web", "dns"), 2)
    ]
    with Ledger(tmp_path / "ledger", "test") as ledger, netns.create("kt.rules", ledger) as ns:
        driver = IPTables(ns, variant, lock_file=tmp_path / "lock")
        keeper = HostPortRules(ns, driver)
        for wanted in (pods, pods[:1], []):
            await keeper.apply(wanted)
            saved = [line for line in (await driver.save("nat")).splitlines() if line.startswith("-A")]
            jumps = [entry.key.removeprefix("nat ") for entry in rule_entries("nat", saved)]
            assert sorted(jumps) == sorted(saved)
            inner = [line for line in saved if is_ours(line.split()[1])]
            assert sorted(inner) == sorted(rules(wanted))
            assert len(saved) - len(inner) == (3 if wanted else 0)
    teardown(tmp_path / "ledger")
