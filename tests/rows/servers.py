"""What listens in the pods: on each address and port that a slice names, and tells who was reached and by whom.

An answer is `address:port peer peer-port`. TCP connections are told so when they open and again for whatever they send,
until they are closed; datagrams and SCTP's INIT each get it once. Everything hangs on the epoll of `traffic`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from netkit.kernel import netns
from netkit.proxy.addresses import Address, host_port
from netkit.proxy.services import Protocol
from rows import sctp
from rows.format import PodPlan
from rows.world import World

SCTP = 132
Handler = Callable[[int], None]


class Servers:
    """All pods' sockets. `watch` makes the epoll call a handler, `unwatch` ends that."""

    def __init__(
        self, world: World, watch: Callable[[int, Handler], None], unwatch: Callable[[int], None]
    ) -> None:
        self._world = world
        self._watch = watch
        self._unwatch = unwatch
        self._sockets: dict[int, socket.socket] = {}
        self.connections: dict[int, socket.socket] = {}
        for pod in world.plan.pods:
            self._listen(pod)

    def close(self) -> None:
        for sock in (*self._sockets.values(), *self.connections.values()):
            sock.close()

    def _listen(self, pod: PodPlan) -> None:
        space = self._world.machines[pod.name]
        raw: dict[Address, set[int]] = {}
        for address, port, protocol in sorted(pod.listens, key=str):
            if protocol is Protocol.SCTP:
                raw.setdefault(address, set()).add(port)
                continue
            kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
            sock = netns.socket_in(space, family_of(address), kind)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(address), port))
            name = host_port(address, port)
            if protocol is Protocol.TCP:
                sock.listen(4096)
                self._add(sock, self._accepting(sock, name))
            else:
                self._add(sock, self._datagrams(sock, name))
        for address, ports in raw.items():
            sock = netns.socket_in(space, family_of(address), socket.SOCK_RAW, SCTP)
            sock.setblocking(False)
            sock.bind((str(address), 0))
            self._add(sock, self._inits(sock, address, frozenset(ports)))

    def _add(self, sock: socket.socket, handler: Handler) -> None:
        self._sockets[sock.fileno()] = sock
        self._watch(sock.fileno(), handler)

    def _accepting(self, listener: socket.socket, name: str) -> Handler:
        def accept(events: int) -> None:
            while True:
                try:
                    connection, peer = listener.accept()
                except BlockingIOError:
                    return
                connection.setblocking(False)
                answer = f"{name} {peer[0]} {peer[1]}".encode()
                self.connections[connection.fileno()] = connection
                self._watch(connection.fileno(), self._serving(connection, answer))
                self._say(connection, answer)

        return accept

    def _serving(self, connection: socket.socket, answer: bytes) -> Handler:
        def serve(events: int) -> None:
            try:
                alive = not events & (select.EPOLLHUP | select.EPOLLERR) and bool(connection.recv(4096))
            except OSError:
                alive = False
            if alive:
                self._say(connection, answer)
                return
            self._unwatch(connection.fileno())
            del self.connections[connection.fileno()]
            connection.close()

        return serve

    @staticmethod
    def _say(connection: socket.socket, answer: bytes) -> None:
        """The caller may be gone already; then the next event tells so."""
        try:
            connection.send(answer)
        except OSError:
            return

    @staticmethod
    def _datagrams(sock: socket.socket, name: str) -> Handler:
        def receive(events: int) -> None:
            while True:
                try:
                    _, peer = sock.recvfrom(4096)
                    sock.sendto(f"{name} {peer[0]} {peer[1]}".encode(), peer)
                except BlockingIOError:
                    return

        return receive

    @staticmethod
    def _inits(sock: socket.socket, address: Address, ports: frozenset[int]) -> Handler:
        def receive(events: int) -> None:
            while True:
                try:
                    data, peer = sock.recvfrom(4096)
                except BlockingIOError:
                    return
                packet = sctp.parse(without_header(data, address.version))
                if packet is None or packet.text or packet.destination not in ports:
                    continue
                name = host_port(address, packet.destination)
                sock.sendto(sctp.init_ack(packet, f"{name} {peer[0]} {packet.source}"), (peer[0], 0))

        return receive


def without_header(data: bytes, version: int) -> bytes:
    """What a raw socket received without the IP header, which it hands out in IPv4 only."""
    return data[(data[0] & 15) * 4 :] if version == 4 and data else data


def family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
