"""Single packets between namespaces, and who the receiver thinks they are from. All with DF set: nothing is cut up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from support.kernel import source_seen

from netkit.kernel import netns
from netkit.kernel.netns import Namespace

PATIENCE = 3.0
_IP_MTU_DISCOVER, _DO = 10, 2
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_MARK = b"kt-echo."
_HEADERS = 28


def tcp(client: Namespace, server: Namespace, target: str, size: int) -> str:
    """The source a server sees of a connection that carries `size` bytes, which make packets as large as may be."""
    return source_seen(client, server, target, port=8080, payload=size)


def udp(client: Namespace, server: Namespace, target: str, size: int) -> str:
    """The source a server sees of a datagram of `size` bytes on the wire, which is answered in the same size."""
    with _socket(server, socket.SOCK_DGRAM) as listener, _socket(client, socket.SOCK_DGRAM) as caller:
        # Not to every address: the answer would have the one that the way back begins with.
        listener.bind((target, 8081))
        payload = bytes(size - _HEADERS)
        caller.connect((target, 8081))
        caller.send(payload)
        data, source = listener.recvfrom(65536)
        assert data == payload
        listener.sendto(data, source)
        assert caller.recv(65536) == payload
        return str(source[0])


def icmp(client: Namespace, server: Namespace, target: str, size: int) -> str:
    """The source a machine sees of an echo request of `size` bytes on the wire, which its kernel answers."""
    with (
        _socket(server, socket.SOCK_RAW, socket.IPPROTO_ICMP) as watcher,
        _socket(client, socket.SOCK_RAW, socket.IPPROTO_ICMP) as caller,
    ):
        payload = _MARK + bytes(size - _HEADERS - len(_MARK))
        head = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0x4B54, 1)
        request = struct.pack("!BBHHH", _ECHO_REQUEST, 0, _checksum(head + payload), 0x4B54, 1) + payload
        caller.sendto(request, (target, 0))
        source = _icmp_of(watcher, _ECHO_REQUEST, size)
        answered_by = _icmp_of(caller, _ECHO_REPLY, size)
        assert answered_by == target
        return source


PROTOCOLS: dict[str, Callable[[Namespace, Namespace, str, int], str]] = {"tcp": tcp, "udp": udp, "icmp": icmp}


def forwarded(
    protocol: str, client: Namespace, server: Namespace, served: tuple[str, int], target: tuple[str, int]
) -> str:
    """The source that who listens at `served` sees of a caller of `target`, who gets an answer from there."""
    if protocol == "udp":
        with _socket(server, socket.SOCK_DGRAM) as listener, _socket(client, socket.SOCK_DGRAM) as caller:
            listener.bind(served)
            caller.connect(target)
            caller.send(b"question")
            data, source = listener.recvfrom(100)
            listener.sendto(data, source)
            assert caller.recv(100) == b"question"
            return str(source[0])
    number = {"tcp": socket.IPPROTO_TCP, "sctp": socket.IPPROTO_SCTP}[protocol]
    with (
        netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM, number) as listener,
        netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM, number) as caller,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(served)
        listener.listen()
        listener.settimeout(PATIENCE)
        caller.settimeout(PATIENCE)
        caller.connect(target)
        answering, (address, _) = listener.accept()
        with answering:
            answering.settimeout(PATIENCE)
            caller.sendall(b"question")
            assert answering.recv(100) == b"question"
            answering.sendall(b"answer")
            assert caller.recv(100) == b"answer"
        return str(address)


class Stream:
    """One TCP connection on which data flows without pause, until it is told to end. All of it must arrive."""

    def __init__(self, client: Namespace, server: Namespace, target: str, port: int = 8090) -> None:
        self.received = 0
        self._sent = 0
        self._over = threading.Event()
        with netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            listener.listen()
            self._caller = netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM)
            self._caller.settimeout(PATIENCE)
            self._caller.connect((target, port))
            self._served, _ = listener.accept()
        self._caller.settimeout(20)
        self._served.settimeout(20)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def end(self) -> int:
        """Stop; the number of bytes that have gone through, every one of them right."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._served.close()
        assert self.received == self._sent, f"{self._sent} bytes sent, {self.received} received"
        return self.received

    def _send(self) -> None:
        data = bytes(range(250)) * 64
        with self._caller:
            while not self._over.wait(0.001):
                self._caller.sendall(data)
                self._sent += len(data)

    def _receive(self) -> None:
        while data := self._served.recv(1 << 16):
            place = self.received % 250
            assert data[:10] == bytes((place + i) % 250 for i in range(len(data[:10])))
            self.received += len(data)


def _socket(ns: Namespace, kind: int, protocol: int = 0) -> socket.socket:
    sock = netns.socket_in(ns, socket.AF_INET, kind, protocol)
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO)
    return sock


def _icmp_of(sock: socket.socket, kind: int, size: int) -> str:
    """The source of the next of our packets. NAT changes the identifier, so a mark in the payload tells them."""
    while True:
        packet, (source, _) = sock.recvfrom(65536)
        if (packet[20], len(packet), packet[28:36]) == (kind, size, _MARK):
            return str(source)


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
