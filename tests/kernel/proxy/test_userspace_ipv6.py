"""The userspace proxy in IPv6: a node and a client on one cable; the endpoint runs beside the client."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import service, slice_of, state_of

from netkit.kernel import netns
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.listing import differences
from netkit.proxy.settings import ProxySettings
from netkit.proxy.userspace.backend import UserspaceBackend

pytestmark = pytest.mark.root

NODE, CLIENT, CLUSTER_IP, NODE_PORT = "fd00:1::2", "fd00:1::100", "fd00:96::41", 30001


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Namespace]]:
    ledger = Ledger(tmp_path_factory.mktemp("ledger"), "userspace6")
    found = {name: netns.create(f"nkus6-{os.getpid()}-{name}", ledger) for name in ("node", "client")}
    setup = {
        "node": f"link set lo up\nlink add eth0 type veth peer name eth0 netns {found['client'].name}\n"
        f"link set eth0 up\naddr add {NODE}/64 dev eth0 nodad\n",
        "client": f"link set lo up\nlink set eth0 up\naddr add {CLIENT}/64 dev eth0 nodad\n"
        f"route add {CLUSTER_IP}/128 via {NODE}\n",
    }
    try:
        for name, commands in setup.items():
            run(["ip", "-batch", "-"], ns=found[name], input=commands.encode(), check=True)
        # Sending to an address that no route leads to fails before any rule is asked.
        run(["ip", "route", "add", "default", "via", CLIENT], ns=found["node"], check=True)
        yield found
    finally:
        for space in found.values():
            netns.delete(space.name, ledger)
            space.close()


@pytest.fixture
def server(spaces: dict[str, Namespace]) -> Iterator[None]:
    """Answers on TCP and UDP with the address it sees."""
    woken, wake = socket.socketpair()
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = netns.socket_in(spaces["client"], socket.AF_INET6, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((CLIENT, 8080))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            selector.register(sock, selectors.EVENT_READ, sock)

        def serve() -> None:
            while True:
                for key, _ in selector.select():
                    sock = key.data
                    if sock is None:
                        return
                    if sock.type == socket.SOCK_DGRAM:
                        _, peer = sock.recvfrom(100)
                        sock.sendto(peer[0].encode(), peer)
                    else:
                        connection, peer = sock.accept()
                        with connection:
                            connection.sendall(peer[0].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        wake.send(b"x")
        thread.join()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        wake.close()


def ask(space: Namespace, address: str, port: int, kind: int) -> str:
    with netns.socket_in(space, socket.AF_INET6, kind) as sock:
        sock.settimeout(10)
        sock.connect((address, port))
        sock.send(b"?")
        return sock.recv(100).decode()


@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.usefixtures("server")
async def test_connections_and_datagrams(
    spaces: dict[str, Namespace], tmp_path: Path, variant: Variant
) -> None:
    if variant not in installed_variants(6):
        pytest.skip(f"ip6tables-{variant} is not installed")
    iptables = IPTables(spaces["node"], variant, version=6, lock_file=tmp_path / "xtables.lock")
    backend = UserspaceBackend("node", ProxySettings(), iptables)
    ports = [
        {"name": "tcp", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT},
        {"name": "udp", "port": 80, "protocol": "UDP", "nodePort": NODE_PORT},
    ]
    behind = [{"name": name, "port": 8080, "protocol": name.upper()} for name in ("tcp", "udp")]
    state = state_of(
        service("ns1/svc1", CLUSTER_IP, ports, type="NodePort"),
        slice_of("ns1/svc1", CLIENT, ports=behind, address_type="IPv6"),
        family=Family.IPV6,
    )
    try:
        assert (await backend.sync(state, None)).wrote
        assert not (await backend.sync(state, None)).wrote
        assert differences(await backend.wanted(state), await backend.standing()) == ()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for caller, address, port in (
                ("client", CLUSTER_IP, 80),
                ("client", NODE, NODE_PORT),
                ("node", CLUSTER_IP, 80),
                ("node", "::1", NODE_PORT),
            ):
                assert await asyncio.to_thread(ask, spaces[caller], address, port, kind) == NODE
    finally:
        await backend.cleanup()
        await backend.stop()
    assert await backend.standing() == {}
