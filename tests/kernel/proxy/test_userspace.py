"""Real connections through the userspace proxy of one node: which endpoints, how often, and how they end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from ipaddress import ip_address
from typing import Any

import pytest
from support.kernel import eventually
from support.proxy import Object, draining, endpoint, feed, service, slice_of, state_of, unready
from support.proxy_net import CLOSED, NODE1, NODE2, POD_PORT, PODS, SILENT, UNLISTED, Net, Reply

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.backend import NodeFacts
from netkit.proxy.listing import differences
from netkit.proxy.modes import Site, remove_leftovers
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState
from netkit.proxy.userspace.backend import UserspaceBackend
from netkit.proxy.userspace.chains import CHAINS

pytestmark = pytest.mark.root

CLUSTER_IP, EXTERNAL_IP, BALANCER, NODE_PORT = "172.30.0.41", "1.2.3.4", "5.6.7.8", 30001
BOUND = {Variant.LEGACY: True, Variant.NFT: False}
"""Whether the proxies listen on the node's own address only: one way with each implementation of iptables."""
SOURCE_RANGES = {"loadBalancerSourceRanges": ["203.0.113.0/25"]}
EVERY: dict[str, Any] = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": NODE_PORT}],
    "externalIPs": [EXTERNAL_IP],
    "ingress": [{"ip": BALANCER}],
}
ADDRESSES = {
    "cluster IP": (CLUSTER_IP, 80),
    "node port": (NODE1, NODE_PORT),
    "external IP": (EXTERNAL_IP, 80),
    "balancer": (BALANCER, 80),
}
PORTS = [{"name": "p80", "port": POD_PORT}]


def pods(*names: str, port: int = POD_PORT, protocol: str = "TCP") -> Object:
    found = [endpoint(PODS[name][1], PODS[name][0]) for name in names]
    return slice_of("ns1/svc1", *found, ports=[{"name": "p80", "port": port, "protocol": protocol}])


class Node:
    """node1 with a userspace proxy of one variant of iptables."""

    def __init__(self, net: Net, variant: Variant) -> None:
        self.net = net
        self.lock_file = net.directory / "xtables.lock"
        self.iptables = IPTables(net.node, variant, lock_file=self.lock_file)

    def backend(self) -> UserspaceBackend:
        settings = ProxySettings(node_address=NODE1 if BOUND[self.iptables.variant] else "")
        backend = UserspaceBackend("node1", settings, self.iptables)
        backend.configure(NodeFacts(addresses=(ip_address(NODE1),)))
        return backend

    @asynccontextmanager
    async def serving(self, *objects: Object) -> AsyncIterator[tuple[UserspaceBackend, ProxyState]]:
        """Proxy these objects; in the end nothing is left of it."""
        backend, state = self.backend(), state_of(*objects)
        try:
            await backend.sync(state, None)
            state.mark_synced()
            yield backend, state
            assert differences(await backend.wanted(state), await backend.standing()) == ()
        finally:
            await backend.cleanup()
            await backend.stop()
        assert await backend.standing() == {}
        assert "KUBE" not in await self.iptables.save()

    async def call(self, caller: str, address: str, port: int, **options: Any) -> Reply | str:
        return await asyncio.to_thread(self.net.call, caller, address, port, **options)

    async def answers(self, count: int, caller: str, address: str, port: int, **options: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(count):
            reply = await self.call(caller, address, port, **options)
            assert isinstance(reply, Reply), reply
            found[reply.pod] += 1
        return found

    def connect(self, caller: str, address: str = CLUSTER_IP, port: int = 80) -> socket.socket:
        """Connected, blocking; the handshake is the kernel's, so this needs no running loop."""
        sock = netns.socket_in(self.net.spaces[caller], socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect((address, port))
        return sock


@pytest.fixture(scope="module", params=list(Variant))
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if request.param not in installed_variants():
        pytest.skip(f"iptables-{request.param} is not installed")
    with Net.built(tmp_path_factory.mktemp("net")) as net:
        # As on any node something needs connection tracking: without a rule that does, the kernel turns it off, and
        # with it the translation of connections that are open.
        tracking = ["-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"]
        run([f"iptables-{request.param}", *tracking], ns=net.node, check=True)
        yield Node(net, request.param)


async def change(backend: UserspaceBackend, state: ProxyState, *objects: Object) -> bool:
    """Take in new objects; whether rules were written."""
    feed(state, *objects)
    report = await backend.sync(state, state.collect())
    state.mark_synced()
    return report.wrote


@pytest.mark.parametrize("caller", ["outside", "a2", "node1"])
@pytest.mark.parametrize("to", ADDRESSES)
async def test_every_address_leads_to_each_endpoint_in_turn(node: Node, caller: str, to: str) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP, **EVERY), pods("a1", "a2", "b1")):
        if (caller, to) == ("node1", "external IP"):
            # The node itself is let through to addresses that it does not have.
            assert await node.call(caller, *ADDRESSES[to], patience=0.3) == SILENT
            return
        assert await node.answers(9, caller, *ADDRESSES[to]) == {"a1": 3, "a2": 3, "b1": 3}


async def test_endpoints_see_the_node(node: Node) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP), pods("b1")):
        assert await node.call("outside", CLUSTER_IP, 80) == Reply("b1", NODE1)
        assert await node.call("a1", CLUSTER_IP, 80) == Reply("b1", NODE1)


async def test_loopback_leads_to_node_ports(node: Node) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP, **EVERY), pods("b1")):
        assert await node.call("node1", "127.0.0.1", NODE_PORT) == Reply("b1", NODE1)


@pytest.mark.parametrize(
    "spec",
    [{"externalTrafficPolicy": "Local"}, {"internalTrafficPolicy": "Local"}, SOURCE_RANGES],
    ids=lambda spec: next(iter(spec)),
)
async def test_policies_and_source_ranges_are_not_known(node: Node, spec: dict[str, Any]) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP, **EVERY, **spec), pods("b1")):
        assert await node.call("outside", *ADDRESSES["balancer"], source=UNLISTED) == Reply("b1", NODE1)
        assert await node.call("a1", CLUSTER_IP, 80) == Reply("b1", NODE1)


async def test_only_ready_endpoints_are_used_and_without_one_a_connection_ends_at_once(node: Node) -> None:
    a1, a2, b1 = (PODS[name][1] for name in ("a1", "a2", "b1"))
    some = slice_of("ns1/svc1", endpoint(a1), unready(a2), draining(b1), ports=PORTS)
    async with node.serving(service(cluster_ip=CLUSTER_IP), some) as (backend, state):
        assert await node.answers(4, "outside", CLUSTER_IP, 80) == {"a1": 4}
        assert not await change(backend, state, slice_of("ns1/svc1", unready(a2), draining(b1), ports=PORTS))
        with closing(await asyncio.to_thread(node.connect, "outside")) as sock:
            assert await asyncio.to_thread(sock.recv, 100) == b""


async def test_shares_are_exact_with_many_connections_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine must not make an endpoint look dead.
    monkeypatch.setattr("netkit.proxy.userspace.tcp.DIAL_SECONDS", (30.0,))
    async with node.serving(service(cluster_ip=CLUSTER_IP), pods("a1", "a2", "b1", "b2")):
        socks = [
            netns.socket_in(node.net.spaces["outside"], socket.AF_INET, socket.SOCK_STREAM)
            for _ in range(200)
        ]
        loop = asyncio.get_running_loop()

        async def ask(sock: socket.socket) -> str:
            with sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, (CLUSTER_IP, 80))
                return (await loop.sock_recv(sock, 100)).decode().split()[0]

        answers = Counter(await asyncio.gather(*(ask(sock) for sock in socks)))
    assert answers == dict.fromkeys(PODS, 50)


async def test_affinity_is_shared_by_all_addresses_and_ends_with_the_endpoint(node: Node) -> None:
    sticky = service(cluster_ip=CLUSTER_IP, **EVERY, sessionAffinity="ClientIP")
    async with node.serving(sticky, pods("a1", "a2", "b1")) as (backend, state):
        found: Counter[str] = Counter()
        for address, port in ADDRESSES.values():
            found += await node.answers(3, "outside", address, port)
        (kept,) = found
        assert set(await node.answers(3, "a2", CLUSTER_IP, 80)) != {kept}
        left = [name for name in ("a1", "a2", "b1") if name != kept]
        assert not await change(backend, state, pods(*left))
        (other,) = await node.answers(3, "outside", CLUSTER_IP, 80)
        assert other in left


async def test_endpoint_that_refuses_is_passed_over(node: Node) -> None:
    nobody = "10.244.1.11"  # a pod, at a port where nothing listens
    mixed = slice_of("ns1/svc1", endpoint(PODS["b1"][1]), ports=PORTS)
    refusing = slice_of("ns1/svc1", endpoint(nobody), suffix="b", ports=[{"name": "p80", "port": 9}])
    async with node.serving(service(cluster_ip=CLUSTER_IP, sessionAffinity="ClientIP"), mixed, refusing):
        assert await node.answers(4, "outside", CLUSTER_IP, 80) == {"b1": 4}


async def test_connection_ends_in_each_direction_on_its_own(node: Node) -> None:
    """The client has said everything; its answer, longer than any buffer, comes after that."""
    space = node.net.spaces["b1"]
    with netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", 7000))
        listener.listen()
        listener.settimeout(10)
        answer = bytes(range(256)) * 20_000

        def serve() -> bytes:
            served, _ = listener.accept()
            with served:
                served.settimeout(10)
                asked = b""
                while data := served.recv(65536):
                    asked += data
                served.sendall(answer)
                return asked

        def ask() -> bytes:
            with node.connect("outside") as sock:
                sock.sendall(b"question" * 100_000)
                sock.shutdown(socket.SHUT_WR)
                found = b""
                while data := sock.recv(65536):
                    found += data
                return found

        async with node.serving(service(cluster_ip=CLUSTER_IP), pods("b1", port=7000)):
            asked, found = await asyncio.gather(asyncio.to_thread(serve), asyncio.to_thread(ask))
    assert asked == b"question" * 100_000
    assert found == answer


@pytest.fixture
def silent(node: Node) -> Iterator[socket.socket]:
    """A listener in pod b1 whose connections stay open, on port 7001."""
    with netns.socket_in(node.net.spaces["b1"], socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", 7001))
        listener.listen()
        listener.settimeout(10)
        yield listener


async def test_open_connections_outlive_their_endpoint_and_their_service(
    node: Node, silent: socket.socket
) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP), pods("b1", port=7001)) as (backend, state):
        with closing(await asyncio.to_thread(node.connect, "outside")) as sock:
            served, _ = await asyncio.to_thread(silent.accept)
            with served:
                await change(backend, state, pods("a1"))
                state.delete_service("ns1", "svc1")
                assert await change(backend, state)
                assert await node.call("outside", CLUSTER_IP, 80, patience=0.3) == SILENT
                await backend.cleanup()
                sock.sendall(b"still here")
                assert await asyncio.to_thread(served.recv, 100) == b"still here"
                await backend.sync(state, None)


async def test_reset_goes_through(node: Node, silent: socket.socket) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP), pods("b1", port=7001)):
        with closing(await asyncio.to_thread(node.connect, "outside")) as sock:
            served, _ = await asyncio.to_thread(silent.accept)
            served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            served.close()
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(sock.recv, 100)


UDP_SERVICE: dict[str, Any] = {
    "type": "NodePort",
    "ports": [{"name": "p80", "port": 53, "protocol": "UDP", "nodePort": NODE_PORT}],
}


@pytest.mark.parametrize(
    ("caller", "address", "port"),
    [
        ("a2", CLUSTER_IP, 53),
        ("outside", NODE1, NODE_PORT),
        ("node1", CLUSTER_IP, 53),
        ("node1", "127.0.0.1", NODE_PORT),
    ],
)
async def test_udp_clients_get_endpoints_in_turn(node: Node, caller: str, address: str, port: int) -> None:
    both = pods("a1", "b1", protocol="UDP")
    async with node.serving(service(cluster_ip=CLUSTER_IP, **UDP_SERVICE), both) as (backend, state):
        assert await node.answers(8, caller, address, port, udp=True) == {"a1": 4, "b1": 4}
        await change(backend, state, pods(protocol="UDP"))
        assert await node.call(caller, address, port, udp=True, patience=0.3) == SILENT


async def test_udp_client_keeps_its_endpoint_until_it_is_idle_or_the_endpoint_goes(node: Node) -> None:
    three = pods("a1", "a2", "b1", protocol="UDP")
    async with node.serving(service(cluster_ip=CLUSTER_IP, **UDP_SERVICE), three) as (backend, state):
        with netns.socket_in(node.net.spaces["outside"], socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((CLUSTER_IP, 53))
            loop = asyncio.get_running_loop()

            async def ask() -> str:
                await loop.sock_sendall(sock, b"?")
                async with asyncio.timeout(60):
                    return (await loop.sock_recv(sock, 100)).decode().split()[0]

            (first,) = {await ask() for _ in range(20)}
            left = [name for name in ("a1", "a2", "b1") if name != first]
            await change(backend, state, pods(*left, protocol="UDP"))
            (second,) = {await ask() for _ in range(20)}
            assert second in left
            # After its idle time it is a new client, whose turn is the next endpoint's.
            (proxy,) = backend._proxies._proxies.values()  # type: ignore[attr-defined]
            await eventually(lambda: not proxy.busy)
            assert await ask() == next(name for name in left if name != second)


async def test_rules_stand_as_wanted_after_changes_and_a_change_of_endpoints_writes_none(node: Node) -> None:
    one = service(cluster_ip=CLUSTER_IP, **EVERY)
    two = service("ns1/two", "172.30.0.42", created="2025-01-01T00:00:00Z")
    three = service("ns1/three", "172.30.0.43", externalIPs=[EXTERNAL_IP], created="2025-06-01T00:00:00Z")
    async with node.serving(one, pods("a1")) as (backend, state):
        for step in (
            (two,),
            (three, pods("a1")),
            (service(cluster_ip=CLUSTER_IP, **{**EVERY, "externalIPs": []}),),
            tuple(service(f"ns1/many{number}", f"172.30.1.{number}") for number in range(1, 30)),
            (one, service("ns1/many7", "172.30.1.200"), service("ns1/many9", "172.30.1.9", ports=[])),
        ):
            assert await change(backend, state, *step)
            assert differences(await backend.wanted(state), await backend.standing()) == ()
        assert not await change(backend, state, pods("b1"))
        for name in ("two", "many3"):
            state.delete_service("ns1", name)
        assert await change(backend, state)
        assert differences(await backend.wanted(state), await backend.standing()) == ()
        assert set(await backend.standing()) >= {f"{table} {chain}" for chain, table in CHAINS.items()}


async def test_another_process_adopts_what_stands(node: Node) -> None:
    objects = service(cluster_ip=CLUSTER_IP, **EVERY), pods("a1", "b1")
    async with node.serving(*objects) as (backend, state):
        before = await backend.standing()
        await backend.stop()
        again = node.backend()
        try:
            assert differences(await again.wanted(state), before) == ()
            report = await again.sync(state, None)
            assert not report.wrote
            assert await backend.standing() == before
            assert await node.answers(4, "outside", NODE1, NODE_PORT) == {"a1": 2, "b1": 2}
        finally:
            await again.stop()


async def test_next_backend_of_the_process_takes_proxies_over_and_another_mode_ends_them(
    node: Node, silent: socket.socket
) -> None:
    objects = service(cluster_ip=CLUSTER_IP, **EVERY), pods("b1", port=7001)
    async with node.serving(*objects) as (backend, state):
        with closing(await asyncio.to_thread(node.connect, "outside")) as sock:
            served, _ = await asyncio.to_thread(silent.accept)
            again = node.backend()
            with served:
                assert not (await again.sync(state, None)).wrote
                state.mark_synced()
                assert not await change(again, state, pods("b1"))
                assert await node.call("outside", NODE1, NODE_PORT) == Reply("b1", NODE1)
                site = Site("node1", node.net.node, node.lock_file, node.iptables.variant)
                await remove_leftovers(site, [Family.IPV4], ProxyMode.NFTABLES)
                assert await backend.standing() == {}
                assert await node.call("outside", NODE1, NODE_PORT) == CLOSED
                sock.sendall(b"still here")
                assert await asyncio.to_thread(served.recv, 100) == b"still here"
                assert (await again.sync(state, None)).wrote
                assert await node.call("outside", NODE1, NODE_PORT) == Reply("b1", NODE1)


def test_ports_of_a_loop_that_is_gone_are_free_for_the_next(node: Node) -> None:
    state = state_of(
        service(cluster_ip=CLUSTER_IP, **EVERY), service("ns1/dns", "172.30.0.42", **UDP_SERVICE)
    )

    async def once() -> bool:
        return (await node.backend().sync(state, None)).wrote

    async def then() -> bool:
        backend = node.backend()
        wrote = (await backend.sync(state, None)).wrote
        await backend.cleanup()
        await backend.stop()
        return wrote

    assert asyncio.run(once())
    assert not asyncio.run(then())


async def test_flushed_and_foreign_rules_are_noticed_and_mended(node: Node) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP), pods("b1")) as (backend, state):
        assert await backend.intact()
        program = f"iptables-{node.iptables.variant}"
        for command in (
            ["-F", "KUBE-PORTALS-CONTAINER"],
            ["-I", "KUBE-PORTALS-HOST", "-j", "RETURN"],
            ["-F", "PREROUTING"],
        ):
            run([program, "-t", "nat", *command], ns=node.net.node, check=True)
            assert not await backend.intact()
            assert (await backend.sync(state, None)).wrote
            assert await backend.intact()
            assert await node.call("outside", CLUSTER_IP, 80) == Reply("b1", NODE1)


async def test_node_port_of_another_program_is_left_to_it(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with netns.socket_in(node.net.node, socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", NODE_PORT))
        other.listen()
        async with node.serving(service(cluster_ip=CLUSTER_IP, **EVERY), pods("b1")) as (backend, state):
            assert f"NodePort {NODE_PORT} is not opened" in caplog.text
            assert await node.call("outside", CLUSTER_IP, 80) == Reply("b1", NODE1)
            with closing(await asyncio.to_thread(node.connect, "outside", NODE1, NODE_PORT)):
                other.accept()[0].close()
            other.close()
            assert (await backend.sync(state, None)).wrote
            assert await node.call("outside", NODE1, NODE_PORT) == Reply("b1", NODE1)


async def test_node_ports_are_held_and_two_services_may_swap_them(node: Node) -> None:
    def on(name: str, address: str, port: int) -> Object:
        return service(name, address, [{"name": "p80", "port": 80, "nodePort": port}], type="NodePort")

    first = on("ns1/svc1", CLUSTER_IP, 30001), on("ns1/two", "172.30.0.42", 30002)
    async with node.serving(*first, pods("b1")) as (backend, state):
        other = netns.socket_in(node.net.node, socket.AF_INET, socket.SOCK_STREAM)
        with other, pytest.raises(OSError, match="in use"):
            other.bind(("0.0.0.0", 30001))
        assert await change(
            backend, state, on("ns1/svc1", CLUSTER_IP, 30002), on("ns1/two", "172.30.0.42", 30001)
        )
        assert await node.call("outside", NODE1, 30002) == Reply("b1", NODE1)


async def test_sctp_is_left_out(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    ports = [{"name": "p80", "port": 80}, {"name": "sctp", "port": 80, "protocol": "SCTP"}]
    async with node.serving(service("ns1/svc1", CLUSTER_IP, ports), pods("b1")) as (backend, state):
        await change(backend, state, service("ns1/svc1", CLUSTER_IP, ports, externalIPs=[EXTERNAL_IP]))
        assert caplog.text.count("SCTP is not proxied") == 1
        assert "sctp" not in await node.iptables.save()
        assert await node.call("outside", CLUSTER_IP, 80) == Reply("b1", NODE1)


async def test_others_nodes_port_is_closed(node: Node) -> None:
    async with node.serving(service(cluster_ip=CLUSTER_IP, **EVERY), pods("a1")):
        assert await node.call("outside", NODE2, NODE_PORT) == CLOSED
