"""A client, a node and two pods, with both address families and TCP, UDP and SCTP: for tests with real packets.

Only the node has rules. Each pod answers whatever it gets with its own name and the caller's address that it sees, so
a flow that is kept can be asked again and again. Everything lives in namespaces of a unique name and goes with them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

from support.ipvs import load_ipv6

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.settings import ProxySettings

_FOUR, _SIX = Family.IPV4, Family.IPV6
PODS = {
    "p1": {_FOUR: "10.244.1.11", _SIX: "fd00:244::11"},
    "p2": {_FOUR: "10.244.1.12", _SIX: "fd00:244::12"},
}
NODE = {_FOUR: "192.168.0.2", _SIX: "fd00:18::2"}
CLIENT = {_FOUR: "192.168.0.100", _SIX: "fd00:18::100"}
OWN = {**PODS, "node": NODE, "client": CLIENT}
CLIENTS = tuple(f"192.168.0.{number}" for number in range(101, 109))
"""More addresses of the client."""
SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16,fd00:244::/48", node_address=",".join(NODE.values()))
POD_PORT = 8080
KINDS = {
    "TCP": (socket.SOCK_STREAM, 0),
    "UDP": (socket.SOCK_DGRAM, 0),
    "SCTP": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_DOMAINS = {_FOUR: socket.AF_INET, _SIX: socket.AF_INET6}
_serial = itertools.count()


class Flow:
    """One socket of the client, connected."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def ask(self, tries: int = 1) -> tuple[str, str]:
        """Which pod answers, and whom it sees. Raises OSError when nobody does, at the last of so many `tries`."""
        while True:
            tries -= 1
            try:
                self._socket.send(b"?")
                pod, seen = self._socket.recv(100).decode().split()
            except OSError:
                if not tries:
                    raise
            else:
                return pod, seen

    def shout(self) -> None:
        """Ask, and do not wait for an answer; nor mind a refusal that came before."""
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._socket.send(b"?")

    @property
    def place(self) -> tuple[bytes, int]:
        """The socket's own address, packed, and its port."""
        address, port, *_ = self._socket.getsockname()
        return ip_address(address).packed, port

    def close(self) -> None:
        self._socket.close()


class DualNet:
    """The network. Use `DualNet.built` as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prefix = f"nkdual{os.getpid()}x{next(_serial)}"
        self.spaces: dict[str, Namespace] = {}
        self._ledger = Ledger(directory, "dualnet")
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()

    @classmethod
    @contextmanager
    def built(cls, directory: Path) -> Iterator[DualNet]:
        """Build the network, and take it down again."""
        net = cls(directory)
        with ExitStack() as stack:
            net._build(stack)
            yield net

    @property
    def node(self) -> Namespace:
        return self.spaces["node"]

    def flow(
        self,
        caller: str,
        family: Family,
        protocol: str,
        address: str,
        port: int,
        *,
        patience: float = 5.0,
        source: tuple[str, int] | None = None,
    ) -> Flow:
        """A socket of `caller`, connected; it waits `patience` seconds. `source`: its own address and port.

        Raises OSError when that is refused.
        """
        kind, number = KINDS[protocol]
        sock = netns.socket_in(self.spaces[caller], _DOMAINS[family], kind, number)
        sock.settimeout(patience)
        try:
            if source is None and protocol == "SCTP":
                # Else it tells the other side all addresses of the caller, to which no translation leads.
                source = (OWN[caller][family], 0)
            if source is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(source)
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return Flow(sock)

    def ask(self, family: Family, protocol: str, address: str, port: int) -> tuple[str, str]:
        """Who answers the client, and whom he sees."""
        with contextlib.closing(self.flow("client", family, protocol, address, port)) as flow:
            return flow.ask()

    def _build(self, stack: ExitStack) -> None:
        load_ipv6()
        for name in ("node", "client", *PODS):
            self.spaces[name] = netns.create(f"{self.prefix}-{name}", self._ledger)
            stack.callback(netns.delete, f"{self.prefix}-{name}", self._ledger)
            stack.callback(self.spaces[name].close)
        self._link()
        for name, space in self.spaces.items():
            with netns.entered(space):
                for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                    Path(f"/proc/sys/net/{setting}").write_text("1" if name == "node" else "0")
                for setting in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit", "ipv4/conf/all/rp_filter"):
                    Path(f"/proc/sys/net/{setting}").write_text("0")
        for name, addresses in PODS.items():
            for family, address in addresses.items():
                for kind, protocol in KINDS.values():
                    self._listen(name, _DOMAINS[family], kind, protocol, address)
        self._selector.register(self._woken, selectors.EVENT_READ, "")
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        stack.callback(self._stop, thread)

    def _link(self) -> None:
        lines = ["link set lo up"]
        for name in ("client", *PODS):
            lines.append(f"link add {name} type veth peer name eth0 netns {self.prefix}-{name}")
            lines.append(f"link set {name} up")
        lines += [f"addr add {NODE[_FOUR]}/24 dev client", f"addr add {NODE[_SIX]}/64 dev client nodad"]
        for name, addresses in PODS.items():
            lines += [f"addr add 169.254.1.1/32 dev {name}", f"route add {addresses[_FOUR]}/32 dev {name}"]
            lines += [
                f"addr add fd00:ffff::1/128 dev {name} nodad",
                f"route add {addresses[_SIX]}/128 dev {name}",
            ]
        # What is for an address that no rule knows goes back to where it came from.
        lines += [f"route add default via {CLIENT[_FOUR]}", f"route add default via {CLIENT[_SIX]}"]
        self._ip("node", *lines)
        self._ip(
            "client",
            "link set lo up",
            *(f"addr add {address}/24 dev eth0" for address in (CLIENT[_FOUR], *CLIENTS)),
            f"addr add {CLIENT[_SIX]}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {NODE[_FOUR]}",
            f"route add default via {NODE[_SIX]}",
        )
        for name, addresses in PODS.items():
            self._ip(
                name,
                "link set lo up",
                "link set eth0 up",
                f"addr add {addresses[_FOUR]}/32 dev eth0",
                f"addr add {addresses[_SIX]}/128 dev eth0 nodad",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1",
                "route add fd00:ffff::1 dev eth0",
                "route add default via fd00:ffff::1",
            )

    def _ip(self, name: str, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        run(["ip", "-batch", "-"], ns=self.spaces[name], input=text.encode(), check=True)

    def _listen(self, pod: str, domain: int, kind: int, protocol: int, address: str) -> None:
        try:
            sock = netns.socket_in(self.spaces[pod], domain, kind, protocol)
        except KernelError:
            if protocol == socket.IPPROTO_SCTP:
                return  # a kernel without SCTP
            raise
        sock.bind((address, POD_PORT))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        self._selector.register(sock, selectors.EVENT_READ, pod)

    def _serve(self) -> None:
        while True:
            for found, _ in self._selector.select():
                sock, pod = found.fileobj, found.data
                assert isinstance(sock, socket.socket)
                if not pod:
                    return
                try:
                    self._answer(sock, pod)
                except OSError:
                    self._selector.unregister(sock)
                    sock.close()

    def _answer(self, sock: socket.socket, pod: str) -> None:
        """Accept a connection, or answer what came. Raises OSError when the caller is gone."""
        if sock.type == socket.SOCK_DGRAM:
            _, peer = sock.recvfrom(100)
            sock.sendto(f"{pod} {peer[0]}".encode(), peer)
        elif sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            connection, _ = sock.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, pod)
        else:
            if not sock.recv(100):
                raise ConnectionResetError
            sock.send(f"{pod} {sock.getpeername()[0]}".encode())

    def _stop(self, thread: threading.Thread) -> None:
        self._wake.send(b"x")
        thread.join(5)
        for found in list(self._selector.get_map().values()):
            found.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._wake.close()
