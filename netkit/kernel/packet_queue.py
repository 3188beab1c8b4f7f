"""Packets that the firewall hands over (target NFQUEUE) and that go on after a while: delay where there is no netem.

Run by a process of its own (`netkit.fabric.shaping`): nothing else may keep its loop waiting. Only the packets' numbers
are read, never their contents, and large packets of segmentation offload are left whole, so it costs some microseconds
a packet. When the process is gone, rules with --queue-bypass let packets pass without delay.
"""

from __future__ import annotations

import errno
import heapq
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Final, NoReturn

from netkit.kernel import netns
from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.netlink import HEADER, attribute
from netkit.kernel.netns import Namespace

_PROTOCOL, _SOL_NETLINK, _NO_ENOBUFS = 12, 270, 5
_QUEUE: Final = 3 << 8
_PACKET, _VERDICT, _CONFIG = _QUEUE, _QUEUE | 1, _QUEUE | 2
_VERDICT_HEADER, _CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 2, 1, 2, 3, 4, 5
_BIND, _COPY_META = 1, 1
_FAIL_OPEN, _GSO = 1, 4
_ACCEPT: Final = 1
_LONGEST: Final = 65536
_BUFFER: Final = 8 << 20
_READ_AT_ONCE: Final = 64
_SO_RCVBUFFORCE: Final = 33


class DelayQueue:
    """Queue `number` of a namespace: each packet goes on after `delay` seconds, up to `jitter` more or less."""

    def __init__(self, ns: Namespace, number: int, delay: float, jitter: float = 0.0) -> None:
        self._delay, self._jitter = delay, jitter
        self._head = struct.pack("!BBH", socket.AF_UNSPEC, 0, number)
        self._what = f"NFQUEUE {number}"
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = netns.socket_in(ns, socket.AF_NETLINK, kind, _PROTOCOL)
        try:
            self._open(ns)
        except BaseException:
            self._socket.close()
            raise

    def _open(self, ns: Namespace) -> None:
        sock = self._socket
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            sock.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            sock.bind((0, 0))
        except OSError as error:
            raise from_os_error(error, self._what, ns.name) from error
        for setting in (
            attribute(_CFG_CMD, struct.pack("!BxH", _BIND, 0)),
            attribute(_CFG_PARAMS, struct.pack("!IB", 0, _COPY_META)),
            attribute(_CFG_MAXLEN, struct.pack("!I", _LONGEST)),
            attribute(_CFG_MASK, struct.pack("!I", _FAIL_OPEN | _GSO))
            + attribute(_CFG_FLAGS, struct.pack("!I", _FAIL_OPEN | _GSO)),
        ):
            body = self._head + setting
            sock.send(HEADER.pack(HEADER.size + len(body), _CONFIG, 5, 1, 0) + body)
            answer = sock.recv(4096)
            code = -struct.unpack_from("=i", answer, HEADER.size)[0]
            if code:
                raise KernelError(self._what, ns.name, code, hint="another process may have the queue")
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, now: float, take: Callable[[float, bytes], None]) -> None:
        """Give the packets that have come to `take`: when each is due, and its number as the kernel wrote it."""
        for _ in range(_READ_AT_ONCE):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise
            offset = 0
            while offset < len(data):
                length, kind, *_ = HEADER.unpack_from(data, offset)
                if kind == _PACKET:
                    # Behind both headers the first attribute is the packet's own header, which begins with its number.
                    start = offset + HEADER.size + 8
                    take(now + self._wait(), data[start : start + 4])
                offset += (length + 3) & ~3

    def release(self, packets: Sequence[bytes]) -> None:
        """Let packets go on, in this order."""
        self._socket.send(b"".join(self._verdict(number) for number in packets))

    def close(self) -> None:
        self._socket.close()

    def _wait(self) -> float:
        if not self._jitter:
            return self._delay
        return max(0.0, self._delay + random.uniform(-self._jitter, self._jitter))

    def _verdict(self, number: bytes) -> bytes:
        body = self._head + attribute(_VERDICT_HEADER, struct.pack("!I", _ACCEPT) + number)
        return HEADER.pack(HEADER.size + len(body), _VERDICT, 1, 0, 0) + body


def serve(queues: Sequence[DelayQueue]) -> NoReturn:
    """Hold packets back and let them go, until this process ends."""
    waiting: list[tuple[float, int, DelayQueue, bytes]] = []
    by_fd = {queue.fileno(): queue for queue in queues}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    order = count()

    def take(queue: DelayQueue, due: float, number: bytes) -> None:
        heapq.heappush(waiting, (due, next(order), queue, number))

    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for fd, _ in poll.poll(timeout):
            queue = by_fd[fd]
            queue.read(time.monotonic(), partial(take, queue))
        due: dict[DelayQueue, list[bytes]] = {}
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, queue, number = heapq.heappop(waiting)
            due.setdefault(queue, []).append(number)
        for queue, packets in due.items():
            queue.release(packets)
