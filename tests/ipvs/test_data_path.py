"""The IPVS mode with real packets: two nodes, pods, an outside client, and the rules of one node."""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.ipvs import key, load_ipv6, target
from support.kernel import eventually
from support.proxy import Object, endpoint, feed, service, slice_of, state_of
from support.proxy_net import CLOSED, LISTED, NODE1, PODS, REFUSED, SILENT, UNLISTED, Net, Reply

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.ipvs_values import RealServer, Target
from netkit.kernel.process import run
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.requirements import check
from netkit.proxy.listing import differences
from netkit.proxy.settings import IPVSSettings, ProxySettings

VIP, EXTERNAL, BALANCER = "172.30.0.41", "1.2.3.4", "5.6.7.8"
PORT = 80
NODE_PORT = 30001
SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16", node_address=NODE1)


def at(pod: str) -> Object:
    node, address = PODS[pod]
    return endpoint(address, node)


def wanted(**spec) -> Object:
    protocol = spec.pop("protocol", "TCP")
    ports = [{"name": "p", "port": PORT, "nodePort": NODE_PORT, "protocol": protocol}]
    return service(
        "ns1/svc1",
        VIP,
        ports,
        **{"type": "LoadBalancer", "externalIPs": [EXTERNAL], "ingress": [{"ip": BALANCER}], **spec},
    )


def behind(*pods: str, protocol: str = "TCP") -> Object:
    ports = [{"name": "p", "port": 8080, "protocol": protocol}]
    return slice_of("ns1/svc1", *map(at, pods), ports=ports)


class Cluster:
    """The network and the back end of its first node."""

    def __init__(self, net: Net, settings: ProxySettings = SETTINGS, look_seconds: float = 60.0) -> None:
        self.net = net
        iptables = IPTables(net.node, Variant.LEGACY, lock_file=net.directory / "xtables.lock")
        self.drivers = Drivers.of(iptables)
        self.backend = IPVSBackend("node1", settings, self.drivers, look_seconds=look_seconds)
        self.state = state_of()

    async def serve(self, *objects: Object) -> None:
        feed(self.state, *objects)
        await self.backend.sync(self.state, self.state.collect())
        self.state.mark_synced()

    async def no_differences(self) -> None:
        found = differences(await self.backend.wanted(self.state), await self.backend.standing())
        assert found == ()

    def seen(self, caller: str, address: str, port: int = PORT, *, times: int = 6, **how) -> set[str]:
        """Who answers, as `pod` if he sees the caller and `pod!` if he sees somebody else; or the refusal."""
        own = how.get("source") or (PODS[caller][1] if caller in PODS else "192.168.0.100")
        found = set()
        for _ in range(times):
            reply = self.net.call(caller, address, port, **how)
            if isinstance(reply, Reply):
                found.add(reply.pod if reply.seen == own else f"{reply.pod}!")
            else:
                found.add(reply)
        return found


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    directory: Path = tmp_path_factory.mktemp("net")
    load_ipv6()
    with Net.built(directory) as built:
        yield built


@pytest.fixture
async def cluster(net: Net) -> AsyncIterator[Cluster]:
    made = Cluster(net)
    yield made
    await taken_away(made)


def reals_of(cluster: Cluster) -> dict[Target, RealServer]:
    """The real servers of the cluster IP."""
    return {real.target: real for real in cluster.drivers.servers.real_servers(key(f"{VIP}:80"))}


async def taken_away(cluster: Cluster) -> None:
    """Remove everything, and look that nothing is left."""
    await cluster.backend.cleanup()
    cluster.backend.release()
    node = cluster.net.node
    text = run(
        ["sh", "-c", "ipvsadm -Sn; ipset list -n; iptables-legacy-save | grep KUBE; ip link show kube-ipvs0"],
        ns=node,
    ).stdout.decode()
    assert text == "", f"left behind: {text}"


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
    await taken_away(cluster)


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
                now = reals_of(cluster)[leaver]
                assert (now.weight, now.active) == (0, 1)
                assert cluster.seen("a2", VIP, times=3) == {"a1"}, "new connections go elsewhere"
                client.send(b"two")
                assert served.recv(9) == b"two"
                section = (await cluster.backend.standing())[f"{VIP}:80/TCP"]
                assert f"{leaver} weight 0" in section.entries
                await cluster.no_differences()
                linger = b"\1\0\0\0\0\0\0\0"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await eventually(lambda: leaver not in reals_of(cluster), 30)
    assert not watching.done()
    watching.cancel()
    await taken_away(cluster)


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
    await taken_away(cluster)
