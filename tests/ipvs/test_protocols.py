"""IPv6 and SCTP through the IPVS mode: a client, a node and two pods, with real packets."""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.ipvs import load_ipv6
from support.proxy import Object, endpoint, feed, service, slice_of, state_of

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.listing import differences
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16,fd00:244::/48", node_address="192.168.0.2,fd00:18::2")
PODS = {"p1": ("10.244.1.11", "fd00:244::11"), "p2": ("10.244.1.12", "fd00:244::12")}
NODE = ("192.168.0.2", "fd00:18::2")
VIP = {Family.IPV4: "172.30.0.41", Family.IPV6: "fd00:96::41"}
NODE_PORT = 30001
POD_PORT = 8080
_KINDS = {
    "TCP": (socket.SOCK_STREAM, 0),
    "UDP": (socket.SOCK_DGRAM, 0),
    "SCTP": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_serial = itertools.count()


class Place:
    """Four namespaces and the servers in the pods; every server answers with its pod's name and its caller."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = Ledger(directory, "ipvsprotocols")
        self.prefix = f"nkipvsp{os.getpid()}x{next(_serial)}"
        self.spaces: dict[str, Namespace] = {}
        self.selector = selectors.DefaultSelector()
        self.ended = False

    def build(self, stack: ExitStack) -> None:
        load_ipv6()
        for name in ("node", "client", *PODS):
            self.spaces[name] = netns.create(f"{self.prefix}-{name}", self.ledger)
            stack.callback(netns.delete, f"{self.prefix}-{name}", self.ledger)
            stack.callback(self.spaces[name].close)
        lines = ["link set lo up"]
        for name in ("client", *PODS):
            lines.append(f"link add {name} type veth peer name eth0 netns {self.prefix}-{name}")
            lines.append(f"link set {name} up")
        lines += [f"addr add {NODE[0]}/24 dev client", f"addr add {NODE[1]}/64 dev client nodad"]
        for name, (four, six) in PODS.items():
            lines += [f"addr add 169.254.1.1/32 dev {name}", f"route add {four}/32 dev {name}"]
            lines += [f"addr add fd00:ffff::1/128 dev {name} nodad", f"route add {six}/128 dev {name}"]
        self._ip("node", *lines)
        self._ip(
            "client",
            "link set lo up",
            "addr add 192.168.0.100/24 dev eth0",
            "addr add fd00:18::100/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {NODE[0]}",
            f"route add default via {NODE[1]}",
        )
        for name, (four, six) in PODS.items():
            self._ip(
                name,
                "link set lo up",
                "link set eth0 up",
                f"addr add {four}/32 dev eth0",
                f"addr add {six}/128 dev eth0 nodad",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1",
                "route add fd00:ffff::1 dev eth0",
                "route add default via fd00:ffff::1",
            )
            for family, address in ((socket.AF_INET, four), (socket.AF_INET6, six)):
                for kind, protocol in _KINDS.values():
                    self._listen(name, family, kind, protocol, address)
        for name in self.spaces:
            with netns.entered(self.spaces[name]):
                for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                    Path(f"/proc/sys/net/{setting}").write_text("1" if name == "node" else "0")
                for setting in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit", "ipv4/conf/all/rp_filter"):
                    Path(f"/proc/sys/net/{setting}").write_text("0")
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        stack.callback(self._stop, thread)

    def ask(self, family: Family, protocol: str, address: str, port: int) -> tuple[str, str]:
        """Who answers the client, and whom he sees."""
        kind, number = _KINDS[protocol]
        domain = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        with netns.socket_in(self.spaces["client"], domain, kind, number) as sock:
            sock.settimeout(5)
            sock.connect((address, port))
            sock.send(b"?")
            pod, seen = sock.recv(100).decode().split()
            return pod, seen

    def _ip(self, name: str, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        run(["ip", "-batch", "-"], ns=self.spaces[name], input=text.encode(), check=True)

    def _listen(self, pod: str, family: int, kind: int, protocol: int, address: str) -> None:
        sock = netns.socket_in(self.spaces[pod], family, kind, protocol)
        sock.bind((address, POD_PORT))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        self.selector.register(sock, selectors.EVENT_READ, pod)

    def _serve(self) -> None:
        while not self.ended:
            for found, _ in self.selector.select(0.1):
                sock = found.fileobj
                assert isinstance(sock, socket.socket)
                if sock.type == socket.SOCK_DGRAM:
                    _, peer = sock.recvfrom(100)
                    sock.sendto(f"{found.data} {peer[0]}".encode(), peer)
                else:
                    connection, peer = sock.accept()
                    with connection:
                        connection.recv(1)
                        connection.send(f"{found.data} {peer[0]}".encode())

    def _stop(self, thread: threading.Thread) -> None:
        self.ended = True
        thread.join(5)
        for found in list(self.selector.get_map().values()):
            found.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        made = Place(tmp_path_factory.mktemp("place"))
        made.build(stack)
        yield made


@pytest.fixture
async def backends(place: Place) -> AsyncIterator[dict[Family, IPVSBackend]]:
    made = {}
    for family in Family:
        iptables = IPTables(
            place.spaces["node"],
            Variant.LEGACY,
            version=family.version,
            lock_file=place.directory / "xtables.lock",
        )
        made[family] = IPVSBackend("node", SETTINGS, Drivers.of(iptables))
    yield made
    for backend in made.values():
        await backend.cleanup()
        backend.release()
    rules = "(iptables-legacy-save; ip6tables-legacy-save) | grep KUBE"
    command = f"ipvsadm -Sn; ipset list -n; {rules}; ip link show kube-ipvs0"
    assert run(["sh", "-c", command], ns=place.spaces["node"]).stdout == b""


def objects(family: Family, protocol: str) -> tuple[Object, Object]:
    number = 0 if family is Family.IPV4 else 1
    ports = [{"name": "p", "port": 80, "nodePort": NODE_PORT, "protocol": protocol}]
    made = service("ns1/svc1", VIP[family], ports, type="NodePort")
    points = [endpoint(addresses[number], "node") for addresses in PODS.values()]
    return made, slice_of("ns1/svc1", *points, ports=[{**ports[0], "port": POD_PORT}], address_type=family)


async def synced(backend: Backend, state: ProxyState) -> None:
    await backend.sync(state, state.collect())
    state.mark_synced()
    assert differences(await backend.wanted(state), await backend.standing()) == ()


@pytest.mark.parametrize("protocol", list(_KINDS))
@pytest.mark.parametrize("family", list(Family))
async def test_cluster_ip_and_node_port(
    place: Place, backends: dict[Family, IPVSBackend], family: Family, protocol: str
) -> None:
    state = state_of(family=family)
    feed(state, *objects(family, protocol))
    await synced(backends[family], state)
    node = NODE[0] if family is Family.IPV4 else NODE[1]
    for address, port in ((VIP[family], 80), (node, NODE_PORT)):
        answers = [place.ask(family, protocol, address, port) for _ in range(4)]
        assert {pod for pod, _ in answers} == set(PODS)
        client = "192.168.0.100" if family is Family.IPV4 else "fd00:18::100"
        assert all(seen != client for _, seen in answers), "calls from outside are masqueraded"


async def test_both_families_at_once(place: Place, backends: dict[Family, IPVSBackend]) -> None:
    states = {}
    for family in Family:
        states[family] = state_of(family=family)
        feed(states[family], *objects(family, "TCP"))
        await synced(backends[family], states[family])
    for family in Family:
        assert {place.ask(family, "TCP", VIP[family], 80)[0] for _ in range(4)} == set(PODS)
        assert await backends[family].intact()
        assert not (await backends[family].sync(states[family], None)).wrote
    await backends[Family.IPV4].cleanup()
    assert {place.ask(Family.IPV6, "TCP", VIP[Family.IPV6], 80)[0] for _ in range(4)} == set(PODS)
    assert await backends[Family.IPV6].intact()
