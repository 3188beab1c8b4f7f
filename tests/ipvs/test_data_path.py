"""The IPVS mode with real packets: two nodes, pods, an outside client, and the rules of one node."""

from __future__ import annotations

import asyncio
import collections
import shlex
import socket
from collections.abc import AsyncIterator

import pytest
from support.ipvs import target
from support.ipvs_cluster import BALANCER, EXTERNAL, NODE_PORT, PORT, VIP, Cluster, at, behind, wanted
from support.kernel import eventually
from support.proxy import service, slice_of
from support.proxy_net import CLOSED, LISTED, NODE1, PODS, REFUSED, SILENT, UNLISTED, Net, Reply

from netkit.kernel import netns
from netkit.kernel.process import run
from netkit.proxy.ipvs.requirements import check
from netkit.proxy.settings import IPVSSettings, ProxySettings


@pytest.fixture
async def cluster(net: Net) -> AsyncIterator[Cluster]:
    made = Cluster(net)
    yield made
    await made.taken_away()


async def test_policy_cluster(cluster: Cluster) -> None:
    await cluster.serve(wanted(), behind("a1", "b1"))
    both, rewritten = {"a1", "b1"}, {"a1!", "b1!"}
    assert cluster.seen("a2", VIP) == both
    assert cluster.seen("node1", VIP) == rewritten
    assert cluster.seen("outside", VIP) == rewritten
    for address, port in ((EXTERNAL, PORT), (BALANCER, PORT), (NODE1, NODE_PORT)):
        assert cluster.seen("outside", address, port) == rewritten
        assert cluster.seen("a2", address, port) == rewritten
        assert cluster.seen("node1", address, port) == rewritten
    assert cluster.seen("a1", VIP) == {"a1!", "b1"}, "who reaches himself is masqueraded"
    await cluster.no_differences()


async def test_policy_local(cluster: Cluster) -> None:
    await cluster.serve(wanted(externalTrafficPolicy="Local"), behind("a1", "b1"))
    for address, port in ((EXTERNAL, PORT), (BALANCER, PORT), (NODE1, NODE_PORT)):
        assert cluster.seen("outside", address, port, times=4) == {"a1"}
        assert cluster.seen("a2", address, port, times=4) == {"a1"}, "one virtual server for everybody"
    assert cluster.seen("a2", VIP) == {"a1", "b1"}
    await cluster.serve(behind("b1"))
    assert cluster.seen("a2", BALANCER, times=3) == {"b1"}, "without anybody here pods get the others"


async def test_internal_policy_local(cluster: Cluster) -> None:
    inner = service("ns1/svc1", VIP, [{"name": "p", "port": PORT}], internalTrafficPolicy="Local")
    await cluster.serve(inner, behind("a1", "b1"))
    assert cluster.seen("a2", VIP, times=4) == {"a1"}
    await cluster.serve(behind("b1"))
    assert cluster.seen("a2", VIP, times=2, patience=1) <= {REFUSED, CLOSED}


async def test_nobody_and_undeclared_ports_are_refused(cluster: Cluster) -> None:
    await cluster.serve(wanted(), behind())
    for address, port in ((VIP, PORT), (EXTERNAL, PORT), (BALANCER, PORT), (NODE1, NODE_PORT)):
        assert cluster.seen("outside", address, port, times=1) <= {REFUSED, CLOSED}
    await cluster.serve(behind("a1"))
    for address in (VIP, EXTERNAL, BALANCER):
        assert cluster.seen("outside", address, 81, times=1) == {REFUSED}


async def test_source_ranges(cluster: Cluster) -> None:
    await cluster.serve(wanted(loadBalancerSourceRanges=["203.0.113.0/25"]), behind("a1", "b1"))
    assert cluster.seen("outside", BALANCER, source=LISTED) == {"a1!", "b1!"}
    assert cluster.seen("outside", BALANCER, source=UNLISTED, times=1, patience=1) == {SILENT}
    assert cluster.seen("node1", BALANCER, times=1, patience=1) == {SILENT}
    assert cluster.seen("outside", EXTERNAL, source=UNLISTED, times=2) <= {"a1!", "b1!"}
    await cluster.serve(wanted(loadBalancerSourceRanges=["192.168.0.0/24"]))
    assert cluster.seen("node1", BALANCER) == {"a1!", "b1!"}
    await cluster.no_differences()


async def test_udp(cluster: Cluster) -> None:
    await cluster.serve(wanted(protocol="UDP"), behind("a1", "b1", protocol="UDP"))
    assert cluster.seen("a2", VIP, udp=True) == {"a1", "b1"}
    assert cluster.seen("outside", NODE1, NODE_PORT, udp=True) == {"a1!", "b1!"}
    await cluster.serve(behind("b1", protocol="UDP"))
    assert cluster.seen("a2", VIP, udp=True, times=3) == {"b1"}
    await cluster.no_differences()


async def test_affinity(cluster: Cluster) -> None:
    await cluster.serve(wanted(sessionAffinity="ClientIP"), behind("a1", "b1", "b2"))
    assert len(cluster.seen("a2", VIP, times=8)) == 1
    await cluster.no_differences()


async def test_round_robin_gives_everybody_his_share(cluster: Cluster) -> None:
    await cluster.serve(wanted(), behind("a1", "b1", "b2"))
    counted = collections.Counter(
        reply.pod for _ in range(60) if isinstance(reply := cluster.net.call("a2", VIP, PORT), Reply)
    )
    assert counted == {"a1": 20, "b1": 20, "b2": 20}


async def test_node_ports_on_chosen_addresses(net: Net) -> None:
    chosen = ProxySettings(cluster_cidr="10.244.0.0/16", node_port_addresses=("169.254.0.0/16", "10.0.0.0/8"))
    cluster = Cluster(net, chosen)
    await cluster.serve(wanted(), behind("a1"))
    assert cluster.seen("outside", NODE1, NODE_PORT, times=1) == {CLOSED}
    await cluster.taken_away()


async def test_rules_of_others_behind_ours_are_not_asked(cluster: Cluster) -> None:
    """What the last rules of KUBE-SERVICES are for, and nothing else shows."""
    await cluster.serve(wanted(), behind("a1"))
    node, nat = cluster.net.node, ("iptables-legacy", "-t", "nat")
    others = ("PREROUTING", "-p", "tcp", "--dport", str(PORT), "-j", "DNAT", "--to-destination", "192.0.2.1")
    run([*nat, "-A", *others], ns=node, check=True)
    try:
        for name, address in (("CLUSTER-IP", VIP), ("LOAD-BALANCER", BALANCER), ("EXTERNAL-IP", EXTERNAL)):
            assert cluster.seen("outside", address, times=1) == {"a1!"}
            for rule in run([*nat, "-S", "KUBE-SERVICES"], ns=node, check=True).stdout.decode().splitlines():
                if f"--match-set KUBE-{name} " in rule and rule.endswith("-j ACCEPT"):
                    run([*nat, "-D", *shlex.split(rule)[1:]], ns=node, check=True)
            assert cluster.seen("outside", address, times=1, patience=1) == {SILENT}
    finally:
        run([*nat, "-D", *others], ns=node, check=True)


async def test_a_full_sync_adopts_what_stands(cluster: Cluster) -> None:
    await cluster.serve(wanted(loadBalancerSourceRanges=["203.0.113.0/25"]), behind("a1", "b1"))
    assert not (await cluster.backend.sync(cluster.state, None)).wrote
    again = Cluster(cluster.net)
    again.state = cluster.state
    assert not (await again.backend.sync(again.state, None)).wrote
    assert await again.backend.intact()
    again.backend.release()


@pytest.mark.parametrize(
    "harm",
    [
        "ipvsadm -C",
        "ipvsadm -d -t 172.30.0.41:80 -r 10.244.1.11:8080",
        "ip link del kube-ipvs0",
        "ip addr del 172.30.0.41/32 dev kube-ipvs0",
        "ipset flush KUBE-CLUSTER-IP",
        "iptables-legacy -t nat -F KUBE-SERVICES",
        "iptables-legacy -D INPUT 1",
    ],
)
async def test_harm_is_found_and_mended(cluster: Cluster, harm: str) -> None:
    await cluster.serve(wanted(), behind("a1", "b1"))
    assert await cluster.backend.intact()
    run(harm.split(), ns=cluster.net.node, check=True)
    if "kube-ipvs0" in harm:
        assert "kube-ipvs0" in await asyncio.wait_for(cluster.backend.disturbed(), 10)
    assert not await cluster.backend.intact()
    await cluster.backend.sync(cluster.state, None)
    assert await cluster.backend.intact()
    assert cluster.seen("outside", VIP) == {"a1!", "b1!"}
    await cluster.no_differences()


async def test_a_live_connection_outlives_its_endpoint(net: Net) -> None:
    cluster = Cluster(net, look_seconds=0.2)
    await cluster.serve(wanted(), behind("a1"))
    watching = asyncio.create_task(cluster.backend.disturbed())
    with netns.socket_in(net.spaces["b1"], socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((PODS["b1"][1], 9090))
        listener.listen()
        listener.settimeout(5)
        ports = [{"name": "p", "port": 9090, "protocol": "TCP"}]
        await cluster.serve(slice_of("ns1/svc1", at("b1"), ports=ports))
        with netns.socket_in(net.spaces["a2"], socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((VIP, PORT))
            served, _ = listener.accept()
            with served:
                served.settimeout(5)
                client.send(b"one")
                assert served.recv(9) == b"one"
                await cluster.serve(behind("a1"))
                leaver = target(f"{PODS['b1'][1]}:9090")
                now = cluster.reals()[leaver]
                assert (now.weight, now.active) == (0, 1)
                assert cluster.seen("a2", VIP, times=3) == {"a1"}, "new connections go elsewhere"
                client.send(b"two")
                assert served.recv(9) == b"two"
                section = (await cluster.backend.standing())[f"{VIP}:80/TCP"]
                assert f"{leaver} weight 0" in section.entries
                await cluster.no_differences()
                linger = b"\1\0\0\0\0\0\0\0"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await eventually(lambda: leaver not in cluster.reals(), 30)
    assert not watching.done()
    watching.cancel()
    await cluster.taken_away()


async def test_who_comes_back_keeps_his_connections(cluster: Cluster) -> None:
    await cluster.serve(wanted(), behind("a1", "b1"))
    assert cluster.seen("a2", VIP) == {"a1", "b1"}
    await cluster.serve(behind("a1"))
    assert cluster.seen("a2", VIP, times=3) == {"a1"}
    await cluster.serve(behind("a1", "b1"))
    assert cluster.seen("a2", VIP) == {"a1", "b1"}
    await cluster.no_differences()


async def test_the_kernel_has_all_that_is_needed(net: Net) -> None:
    cluster = Cluster(net, ProxySettings(ipvs=IPVSSettings("mh")))
    check(cluster.drivers, "mh")
    await cluster.taken_away()
