"""The mode wireguard, with a real wireguard-go: what is on the wire, keys that change, nodes and programs that go."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from support.kernel import eventually, own_host
from support.packets import PROTOCOLS, Stream
from support.podnet import Net, pod_network
from support.traffic import Way, echo_server, traffic

from controlplane.resources.catalog import NODE
from netkit.kernel import netns, process, rtnl_read, wireguard
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.ledger import Entry, Ledger, read_all
from netkit.kernel.netns import Namespace
from netkit.kernel.wireguard_values import USERSPACE, Change, Peer, State
from netkit.podnet import tunnels
from netkit.podnet.agent import RouteNowhere
from netkit.podnet.modes import NetworkMode, Setting
from netkit.podnet.peer import peers
from netkit.podnet.wireguard_key import KEY_FILE, own_key, read_key

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
WIREGUARD = Setting(NetworkMode.WIREGUARD)
OPENED = Setting(NetworkMode.VXLAN, both=NetworkMode.WIREGUARD)
_SO_RCVBUFFORCE = 33
MARK = b"what nobody but the two of them may read"

pytestmark = pytest.mark.skipif(
    not os.path.exists("/usr/bin/wireguard-go"), reason="the package wireguard-go is not installed"
)


def state(net: Net, node: str) -> State:
    """What the node's device is set to; nothing while nobody carries it."""
    found = wireguard.read(net.ns(node), "flannel-wg", net.place / "state" / node / tunnels.PLACE)
    return found[1] if found is not None else State("", 0)


def programs(net: Net, node: str) -> list[Entry]:
    """The processes on the ledger that carry the node's device."""
    return [entry for entry in read_all(net.place / "ledger") if entry.detail == f"wireguard-node-{node}"]


def program(net: Net, node: str) -> Entry:
    (found,) = programs(net, node)
    return found


async def another(net: Net, node: str, before: Entry) -> None:
    """Return when another process than that one carries the node's device."""
    await eventually(lambda: before not in (found := programs(net, node)) and found, 8)


async def pods(net: Net) -> tuple[tuple[Namespace, str], tuple[Namespace, str]]:
    """A pod on each of two nodes, which know each other by then: its namespace and address."""
    (near, here), (far, there) = [await net.pod(f"node{number}", f"pod{number}") for number in (1, 2)]
    ends = (here, near.addresses[0]), (there, far.addresses[0])
    await reached(*ends)
    return ends


async def reach(sender: tuple[Namespace, str], receiver: tuple[Namespace, str], size: int = 1420) -> None:
    """Fail unless packets of each protocol get there, small and of `size` bytes, from the sender's own address."""
    for send in PROTOCOLS.values():
        for each in (60, size):
            seen = await asyncio.to_thread(send, sender[0], receiver[0], receiver[1], each)
            assert seen == sender[1]


async def reached(sender: tuple[Namespace, str], receiver: tuple[Namespace, str]) -> None:
    """Return when a packet gets there; fail when it does not within seconds."""
    async with asyncio.timeout(8):
        while True:
            try:
                await asyncio.to_thread(PROTOCOLS["icmp"], sender[0], receiver[0], receiver[1], 60)
                return
            except (OSError, TimeoutError):
                continue


@contextmanager
def wire() -> Iterator[Callable[[], list[bytes]]]:
    """Everything that passes the segment's switch meanwhile; asked for, what came by then."""
    everything = 3
    with netns.open_namespace("kt.switch") as switch:
        sock = netns.socket_in(switch, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
    sock.setblocking(False)
    frames: list[bytes] = []

    def seen() -> list[bytes]:
        while True:
            try:
                frames.append(sock.recv(1 << 16))
            except BlockingIOError:
                return frames

    with sock:
        yield seen


def say(client: Namespace, server: Namespace, target: str) -> None:
    """The mark as a datagram, and back as an answer."""
    with (
        netns.socket_in(server, socket.AF_INET, socket.SOCK_DGRAM) as listener,
        netns.socket_in(client, socket.AF_INET, socket.SOCK_DGRAM) as caller,
    ):
        listener.bind((target, 8082))
        for sock in (listener, caller):
            sock.settimeout(10)
        caller.sendto(MARK, (target, 8082))
        text, whose = listener.recvfrom(1000)
        listener.sendto(text, whose)
        assert caller.recv(1000) == MARK


@own_host
@pytest.mark.parametrize("setting", [VXLAN, NATIVE, OPENED, WIREGUARD], ids=str)
async def test_what_pods_say_can_be_read_on_the_wire_unless_it_is_encrypted(
    tmp_path: Path, setting: Setting
) -> None:
    async with pod_network(tmp_path, setting=setting) as net:
        here, there = await pods(net)
        ends = IPv4Address(here[1]).packed + IPv4Address(there[1]).packed
        with wire() as seen:
            for sender, receiver in ((here, there), (there, here)):
                await asyncio.to_thread(say, sender[0], receiver[0], receiver[1])
                await reach(sender, receiver, min(net.agents[name].network.mtu for name in net.agents))
            frames = seen()
        readable = [frame for frame in frames if MARK in frame or ends in frame]
        assert bool(readable) is (setting != WIREGUARD)
        if setting == WIREGUARD:
            port = (51820).to_bytes(2, "big") * 2
            wrapped = [frame for frame in frames if frame[12:14] == b"\x08\0" and frame[34:38] == port]
            # Messages of transport, of which full-size packets make up to 1480 bytes.
            assert {frame[42] for frame in wrapped} >= {4}
            assert max(len(frame) for frame in wrapped) == 14 + 1480


@own_host
async def test_a_node_is_set_up_as_flannel_does_it(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        sandbox, ns = await net.pod("node1", "a")
        assert sandbox.mtu == rtnl_read.links(ns)["eth0"].mtu == 1420
        node = net.ns("node1")
        link = rtnl_read.links(node)["flannel-wg"]
        assert (link.up, link.mtu) == (True, 1420)
        assert [str(a.address) for a in rtnl_read.addresses(node, link.index) if a.address.version == 4] == [
            "10.244.1.0/32"
        ]
        assert [(str(r.target), r.via) for r in rtnl_read.routes(node, link.index)] == [
            ("10.244.0.0/16", None)
        ]
        assert "flannel.1" not in rtnl_read.links(node)
        keys = {name: read_key(tmp_path / "state" / name) for name in ("node1", "node2")}
        own, other = keys["node1"], keys["node2"]
        assert own is not None
        assert other is not None
        assert (state(net, "node1").public_key, state(net, "node1").port) == (own.public, 51820)
        (peer,) = state(net, "node1").peers.values()
        assert (peer.public_key, str(peer.endpoint), peer.port) == (other.public, "172.18.0.3", 51820)
        assert [*map(str, peer.allowed)] == ["10.244.2.0/24", "172.18.0.3/32"]
        found = net.api.get(NODE, "node1")
        assert found is not None
        assert own.private not in str(found)
        assert own.public in found["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"]
        assert net.agents["node1"].encryption == USERSPACE
        # Nothing of it is anywhere but in the node's own directory.
        assert not os.path.lexists("/run/wireguard")


@own_host
async def test_a_new_key_is_followed(tmp_path: Path) -> None:
    async with pod_network(tmp_path, nodes=3, setting=WIREGUARD) as net:
        here, there = await pods(net)
        await reach(here, there)
        before = own_key(tmp_path / "state" / "node2")
        (tmp_path / "state" / "node2" / KEY_FILE).unlink()
        await net.stop("node2")
        await net.start("node2")
        after = own_key(tmp_path / "state" / "node2")
        assert before.public != after.public
        assert state(net, "node2").public_key == after.public
        for node in ("node1", "node3"):
            await eventually(lambda node=node: after.public in state(net, node).peers)
            await eventually(lambda node=node: before.public not in state(net, node).peers)
        await reached(here, there)
        await reach(here, there)
        await reach(there, here)


@own_host
async def test_nodes_come_and_go(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        here, there = await pods(net)
        stream = Stream(here[0], there[0], there[1])
        await net.register("far", 9)
        key = own_key(tmp_path).public
        notes = {
            "flannel.alpha.coreos.com/backend-type": "wireguard",
            "flannel.alpha.coreos.com/backend-data": f'{{"PublicKey":"{key}"}}',
            "flannel.alpha.coreos.com/public-ip": "172.18.0.9",
        }
        net.change_node("far", lambda n: n["metadata"].update(annotations=notes))
        for node in ("node1", "node2"):
            await eventually(lambda node=node: key in state(net, node).peers)
        assert [*map(str, state(net, "node1").peers[key].allowed)] == ["10.244.9.0/24", "172.18.0.9/32"]
        moved = {**notes, "flannel.alpha.coreos.com/public-ip": "172.18.0.10"}
        net.change_node("far", lambda n: n["metadata"].update(annotations=moved))
        await eventually(lambda: str(state(net, "node1").peers[key].endpoint) == "172.18.0.10")
        await net.api.client().delete(NODE, "far")
        for node in ("node1", "node2"):
            await eventually(lambda node=node: key not in state(net, node).peers)
            assert len(state(net, node).peers) == 1
        assert await asyncio.to_thread(stream.end) > 0


@asynccontextmanager
async def talking(here: tuple[Namespace, str], there: tuple[Namespace, str]) -> AsyncIterator[None]:
    """Connections both ways that live on, whatever happens meanwhile."""
    async with (
        echo_server(*there, 7070),
        echo_server(*here, 7070),
        traffic(
            Way("there", here[0], there[1], 7070), Way("back", there[0], here[1], 7070), resent=True
        ) as told,
    ):
        yield
        await told.more()
        assert told.failures == []


@own_host
async def test_a_program_that_dies_is_started_again_and_nothing_is_sent_in_the_clear(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        here, there = await pods(net)
        with wire() as seen:
            async with talking(here, there):
                for node in ("node2", "node1"):
                    before = program(net, node)
                    os.kill(before.pid_and_start()[0], signal.SIGKILL)
                    await eventually(lambda b=before: not process.alive(*b.pid_and_start()))
                    await another(net, node, before)
                    for sender, receiver in ((here, there), (there, here)):
                        await reached(sender, receiver)
                    assert len(state(net, node).peers) == 1
            ends = [
                IPv4Address(a[1]).packed + IPv4Address(b[1]).packed for a, b in ((here, there), (there, here))
            ]
            assert not [frame for frame in seen() if any(pair in frame for pair in ends)]


@own_host
async def test_the_program_outlives_the_agent_and_is_taken_over(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        here, there = await pods(net)
        before = program(net, "node1")
        async with talking(here, there):
            await net.stop("node1")
            await reach(here, there)
            await net.start("node1")
            assert program(net, "node1") == before
            # The new agent looks after it as the old one did.
            os.kill(before.pid_and_start()[0], signal.SIGKILL)
            await another(net, "node1", before)
            await reached(here, there)


@own_host
async def test_peers_that_others_added_go_at_the_next_look(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        place = tmp_path / "state" / "node1" / tunnels.PLACE
        (peer,) = state(net, "node1").peers.values()
        with Ledger(tmp_path / "ledger", "stranger") as ledger:
            other = wireguard.driver(net.ns("node1"), "flannel-wg", place, ledger, "nobody")
            other.apply(Change(peers=(Peer(own_key(tmp_path).public, peer.endpoint, 1, ()),)))
        assert len(state(net, "node1").peers) == 2
        await net.stop("node1")
        await net.start("node1")
        assert state(net, "node1").peers == {peer.public_key: peer}


@own_host
async def test_without_any_wireguard_the_change_is_refused_and_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise Unsupported("wireguard", hint="install the package wireguard-go")

    async with pod_network(tmp_path) as net:
        here, there = await pods(net)
        monkeypatch.setattr(net.agents["node1"]._tunnels, "_choose", refuse)
        with pytest.raises(KernelError, match="wireguard"):
            await net.agents["node1"].use(OPENED)
        assert net.agents["node1"].setting == VXLAN
        await eventually(lambda: rtnl_read.links(here[0])["eth0"].mtu == 1450)
        await reach(here, there, 1450)
        assert "flannel-wg" not in rtnl_read.links(net.ns("node1"))


@own_host
async def test_a_node_that_tells_no_key_in_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netkit.podnet.agent._NEWS_SECONDS", 0.2)
    async with pod_network(tmp_path) as net:
        assert {peer.public_key for peer in peers(net.api.all(NODE), "")} == {""}
        with pytest.raises(RouteNowhere, match=r"10\.244\.2\.0/24 of node node2: it has not told a key"):
            await net.agents["node1"].use(OPENED)
        assert net.agents["node1"].setting == VXLAN
        await eventually(lambda: "flannel-wg" not in rtnl_read.links(net.ns("node1")))
        assert programs(net, "node1") == []


@own_host
async def test_changing_over_under_load_keeps_all_connections(tmp_path: Path) -> None:
    async with pod_network(tmp_path) as net:
        here, there = await pods(net)
        async with (
            echo_server(*there, 7070),
            traffic(Way("pod to pod", here[0], there[1], 7070), resent=True) as told,
        ):
            streams = [Stream(here[0], there[0], there[1]), Stream(there[0], here[0], here[1], 8091)]
            for setting in (WIREGUARD, VXLAN, WIREGUARD, NATIVE, WIREGUARD, VXLAN):
                before = [stream.received for stream in streams]
                await net.use(setting)
                for node in ("node1", "node2"):
                    links = rtnl_read.links(net.ns(node))
                    assert ("flannel-wg" in links) is (setting == WIREGUARD)
                    assert ("flannel.1" in links) is (setting == VXLAN)
                await told.more()
                await eventually(
                    lambda before=before: all(s.received > b for s, b in zip(streams, before, strict=True))
                )
            assert told.failures == []
            assert all([await asyncio.to_thread(stream.end) > 100_000 for stream in streams])


@own_host
async def test_what_is_for_nobody_goes_nowhere(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=WIREGUARD) as net:
        here, there = await pods(net)
        with wire() as seen:
            with netns.socket_in(here[0], socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(MARK, ("10.244.77.5", 9))
            # What was sent later has arrived.
            await reach(here, there)
            assert not [frame for frame in seen() if MARK in frame]
