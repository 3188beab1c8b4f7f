"""A small cluster network for proxy tests with real packets: two nodes, pods, an outside client, one switch.

Only `node1` has rules; `node2` just forwards. Every pod runs a server that answers with its own name and the
client address it sees. Everything lives in namespaces of a unique name and goes with them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel import netns
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run

NODE1, NODE2, OUTSIDE = "192.168.0.2", "192.168.0.3", "192.168.0.100"
LISTED, UNLISTED = "203.0.113.5", "203.0.113.200"
"""Two more addresses of the outside client: inside and outside of the source range 203.0.113.0/25."""

PODS = {
    "a1": ("node1", "10.244.1.11"),
    "a2": ("node1", "10.244.1.12"),
    "b1": ("node2", "10.244.2.11"),
    "b2": ("node2", "10.244.2.12"),
}
POD_PORT = 8080
SERVICE_RANGES = ("172.30.0.0/16", "1.2.3.0/24", "5.6.7.0/24")
REFUSED, CLOSED, SILENT = "reject", "closed", "drop"

_IP_RECVERR = 11
_ICMP_ORIGIN = 2
_serial = iter(range(1_000_000))


@dataclass(frozen=True)
class Reply:
    """An answer: which pod gave it, and which client address it saw."""

    pod: str
    seen: str


class Net:
    """The network. Use `Net.built` as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"nkproxy{os.getpid()}x{next(_serial)}"
        self.directory = directory
        self.ledger = Ledger(directory, "proxytest")
        self.spaces: dict[str, Namespace] = {}
        self._servers = _Servers()

    @classmethod
    @contextlib.contextmanager
    def built(cls, directory: Path) -> Iterator[Net]:
        """Build the network, take it down again, and check that nothing is left of it."""
        net = cls(directory)
        try:
            net._build()
            net._servers.start()
            yield net
        finally:
            net._servers.stop()
            for name, space in net.spaces.items():
                netns.delete(f"{net.prefix}-{name}", net.ledger)
                space.close()
            left = [name for name in netns.names() if name.startswith(f"{net.prefix}-")]
            assert not left, f"namespaces left behind: {left}"

    @property
    def node(self) -> Namespace:
        return self.spaces["node1"]

    def call(
        self,
        caller: str,
        address: str,
        port: int,
        *,
        source: str = "",
        udp: bool = False,
        patience: float = 5.0,
    ) -> Reply | str:
        """Connect from a namespace and return the answer, or REFUSED (by ICMP), CLOSED (by RST) or SILENT."""
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        with netns.socket_in(self.spaces[caller], socket.AF_INET, kind) as sock:
            sock.settimeout(patience)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            if source:
                sock.bind((source, 0))
            try:
                sock.connect((address, port))
                if udp:
                    sock.send(b"hello")
                text = sock.recv(100).decode()
            except TimeoutError:
                return SILENT
            except ConnectionRefusedError:
                return REFUSED if _refused_by_icmp(sock) else CLOSED
            except OSError as error:
                # A node's own datagram that meets DROP or REJECT fails at once; only REJECT sends an ICMP.
                if error.errno == errno.EPERM:
                    return REFUSED if _refused_by_icmp(sock) else SILENT
                raise
        pod, seen = text.split()
        return Reply(pod, seen)

    def _build(self) -> None:
        for name in ("switch", "node1", "node2", "outside", *PODS):
            sysctls = {"net.ipv6.conf.default.disable_ipv6": "1", "net.ipv6.conf.all.disable_ipv6": "1"}
            self.spaces[name] = netns.create(f"{self.prefix}-{name}", self.ledger, sysctls)
            self._ip(name, "link set lo up")
        self._ip("switch", "link add br0 type bridge", "link set br0 up")
        for index, (name, address) in enumerate((("node1", NODE1), ("node2", NODE2), ("outside", OUTSIDE))):
            self._cable("switch", f"port{index}", name, "eth0")
            self._ip("switch", f"link set port{index} master br0")
            self._ip(name, f"addr add {address}/24 dev eth0")
        for node, other, address, pods in (
            ("node1", NODE2, NODE1, "10.244.2.0/24"),
            ("node2", NODE1, NODE2, "10.244.1.0/24"),
        ):
            self._sysctl(node, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
            self._ip(node, f"route add {pods} via {other} src {address}", f"route add default via {OUTSIDE}")
        self._ip("outside", f"addr add {LISTED}/32 dev eth0", f"addr add {UNLISTED}/32 dev eth0")
        for destination in (*SERVICE_RANGES, "10.244.1.0/24"):
            self._ip("outside", f"route add {destination} via {NODE1}")
        self._ip("outside", f"route add 10.244.2.0/24 via {NODE2}")
        for name, (node, address) in PODS.items():
            self._cable(node, f"veth{name}", name, "eth0")
            self._ip(
                node, f"addr add 169.254.1.1/32 dev veth{name}", f"route add {address}/32 dev veth{name}"
            )
            self._ip(
                name,
                f"addr add {address}/32 dev eth0",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1",
            )
            self._servers.listen(self.spaces[name], name, address)
        for name in self.spaces:
            self._sysctl(
                name,
                "net.ipv4.icmp_ratelimit=0",
                "net.ipv4.icmp_msgs_per_sec=1000000",
                "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.eth0.rp_filter=0",
            )

    def _cable(self, left: str, left_name: str, right: str, right_name: str) -> None:
        target = f"{self.prefix}-{right}"
        self._ip(left, f"link add {left_name} type veth peer name {right_name} netns {target}")
        self._ip(left, f"link set {left_name} up")
        self._ip(right, f"link set {right_name} up")

    def _ip(self, space: str, *commands: str) -> None:
        text = "".join(f"{command}\n" for command in commands)
        run(["ip", "-batch", "-"], ns=self.spaces[space], input=text.encode(), check=True)

    def _sysctl(self, space: str, *settings: str) -> None:
        with netns.entered(self.spaces[space]):
            for setting in settings:
                key, value = setting.split("=")
                path = Path("/proc/sys") / key.replace(".", "/")
                if path.exists():
                    path.write_text(value)


def _refused_by_icmp(sock: socket.socket) -> bool:
    """Whether the error queue holds an ICMP message, which a RST does not leave there."""
    sock.setblocking(False)
    try:
        _, ancillary, _, _ = sock.recvmsg(100, 200, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return False
    for _, _, data in ancillary:
        _, origin = struct.unpack_from("=IB", data)
        if origin == _ICMP_ORIGIN:
            return True
    return False


class _Servers:
    """One thread that answers on all pods' sockets."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="pod servers", daemon=True)

    def listen(self, space: Namespace, pod: str, address: str) -> None:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = netns.socket_in(space, socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, POD_PORT))
            if kind == socket.SOCK_STREAM:
                sock.listen(512)
            self._selector.register(sock, selectors.EVENT_READ, pod)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._wake.send(b"x")
        if self._thread.is_alive():
            self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._wake.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if key.data is None:
                    return
                if sock.type == socket.SOCK_DGRAM:
                    _, peer = sock.recvfrom(100)
                    sock.sendto(f"{key.data} {peer[0]}".encode(), peer)
                else:
                    connection, peer = sock.accept()
                    with connection:
                        connection.send(f"{key.data} {peer[0]}".encode())
