"""Connections, very many of them, and how each one ended. One epoll for clients and servers, inside the running loop.

Over veth links nearly everything happens within the caller's system calls, so one thread that plays both ends is faster
than two. Every attempt uses a source port that was not used before: the kernel's translation decides on the first
packet of a flow and would only be asked once otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from netkit.kernel import netns
from netkit.proxy.addresses import Address
from netkit.proxy.services import Protocol
from rows import sctp
from rows.format import Outcome, Target
from rows.servers import SCTP, Handler, Servers, family_of, without_header
from rows.world import World

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ORIGINS_ICMP = (2, 3)
_PORT_UNREACHABLE = {2: (3, 3), 3: (1, 4)}
"""Type and code of "port unreachable", by the origin that tells ICMP from ICMPv6."""
_WINDOW = 8
_TURN_SECONDS = 0.05
_MOST = 64
"""Attempts at a time, of one job and of all. More would keep the loop from its other tasks for too long."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How one attempt ended. `endpoint` (`address:port`) answered and saw `peer`; the client was `source`.

    `outcome` None: refused in a way that does not tell who did it (REJECT or nothing there), or see `problem`.
    """

    target: Target
    outcome: Outcome | None
    source: tuple[str, int] = ("", 0)
    endpoint: str = ""
    peer: tuple[str, int] = ("", 0)
    problem: str = ""
    number: int = 0
    """The how manieth attempt of its job it was, from 0."""

    def __str__(self) -> str:
        if self.outcome is Outcome.ENDPOINTS:
            return self.endpoint
        return self.problem or (self.outcome or "refused")


@dataclass
class Job:
    """Attempts from one machine to some targets in turn. `enough(seen)` says when there have been enough.

    `patience` is in seconds of `Traffic`'s own time: an attempt without an answer by then is a DROP.
    """

    machine: str
    source: Address | None
    targets: Sequence[Target]
    protocol: Protocol
    enough: Callable[[Sequence[Seen]], bool]
    patience: float
    window: int = _WINDOW
    seen: list[Seen] = field(default_factory=list)
    pending: int = 0
    started: int = 0


class Traffic:
    """All sockets of a world, in the running loop. Use it in an `async with`.

    Its time stands still while this process, in which clients, servers and the proxies of the userspace mode live,
    does not get the processor: each turn counts for 50 ms at the most. Patience is so many turns, and nothing that
    only waits for its turn is taken for lost.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._epoll = select.epoll()
        self._ready = asyncio.Event()
        self._handlers: dict[int, Handler] = {}
        self._deadlines: list[tuple[float, int, _Attempt]] = []
        self._attempts = 0
        self._now = 0.0
        self._turn_began = time.monotonic()
        self.servers = Servers(world, self.watch, self.unwatch)

    async def __aenter__(self) -> Traffic:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready.set)
        return self

    async def __aexit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self.servers.close()
        self._epoll.close()

    def watch(self, fd: int, handler: Handler) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        del self._handlers[fd]
        self._epoll.unregister(fd)

    async def run(self, jobs: Iterable[Job]) -> None:
        """Do all jobs. Those that wait for silence come last and wait together, when nothing else is busy."""
        found = sorted(jobs, key=lambda job: job.patience, reverse=True)
        for _, group in groupby(found, key=lambda job: job.patience):
            await self._run(deque(group))

    async def _run(self, waiting: deque[Job]) -> None:
        while waiting or self._deadlines:
            for _ in range(len(waiting)):
                job = waiting.popleft()
                if job.enough(job.seen):
                    continue
                waiting.append(job)
                for _ in range(min(job.window - job.pending, _MOST - self._attempts)):
                    self._start(job)
            await self.serve(self._next_deadline())

    async def serve(self, patience: float) -> None:
        """Handle what happens in the next turn, or in `patience` seconds if that is less.

        The loop goes on meanwhile: the proxies of the userspace mode live in it.
        """
        self._ready.clear()
        if not self._poll() and patience > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(patience, _TURN_SECONDS)):
                    await self._ready.wait()
            self._poll()
        else:
            await asyncio.sleep(0)
        now = time.monotonic()
        self._now += min(now - self._turn_began, _TURN_SECONDS)
        self._turn_began = now
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= self._now):
            _, _, attempt = heapq.heappop(self._deadlines)
            if not attempt.done:
                attempt.end(Seen(attempt.target, Outcome.DROP, attempt.source))

    def _poll(self) -> bool:
        events = self._epoll.poll(0, 512)
        for fd, event in events:
            if handler := self._handlers.get(fd):
                handler(event)
        return bool(events)

    def _next_deadline(self) -> float:
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return 0.0
        return self._deadlines[0][0] - self._now

    def _start(self, job: Job) -> None:
        target = job.targets[job.started % len(job.targets)]
        job.started += 1
        job.pending += 1
        self._attempts += 1
        kind = {Protocol.TCP: _Stream, Protocol.UDP: _Datagram, Protocol.SCTP: _Association}[job.protocol]
        attempt = kind(self, job, target)
        attempt.begin(self._world.machines[job.machine])
        if not attempt.done:
            heapq.heappush(self._deadlines, (self._now + job.patience, id(attempt), attempt))

    def port(self, machine: str, version: int, protocol: Protocol) -> int:
        """A source port that was not used for long."""
        return self._world.source_port(machine, version, protocol)

    def ended(self) -> None:
        self._attempts -= 1


class _Attempt:
    """One connection of a client. Subclasses are the protocols."""

    kind = socket.SOCK_STREAM
    protocol = Protocol.TCP
    transport = 0

    def __init__(self, traffic: Traffic, job: Job, target: Target) -> None:
        self.traffic = traffic
        self.job = job
        self.target = target
        self.number = job.started - 1
        self.done = False
        self.source = ("", 0)
        self._fd = -1

    def begin(self, space: netns.Namespace) -> None:
        address, version = self.target.address, self.target.address.version
        self.sock = netns.socket_in(space, family_of(address), self.kind, self.transport)
        self.sock.setblocking(False)
        level, option = (
            (socket.IPPROTO_IP, _IP_RECVERR) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_RECVERR)
        )
        self.sock.setsockopt(level, option, 1)
        try:
            self._bind(version)
            self._fd = self.sock.fileno()
            self.traffic.watch(self._fd, self.event)
            self.open(str(address))
        except OSError as error:
            self.failed(error)

    def _bind(self, version: int) -> None:
        source = str(self.job.source or ("0.0.0.0" if version == 4 else "::"))
        while True:
            self.port = self.traffic.port(self.job.machine, version, self.protocol)
            try:
                self.sock.bind((source, self.bound_port()))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return

    def bound_port(self) -> int:
        return self.port

    def open(self, address: str) -> None:
        raise NotImplementedError

    def answered(self, data: bytes) -> str | None:
        """The server's text; None if the packet was none of ours."""
        return data.decode()

    def event(self, events: int) -> None:
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error)
            return
        self.source = self.sock.getsockname()[0], self.port
        if not data:
            self.end(Seen(self.target, Outcome.CLOSED, self.source))
            return
        text = self.answered(data)
        if text is not None:
            endpoint, peer, port = text.split()
            self.end(Seen(self.target, Outcome.ENDPOINTS, self.source, endpoint, (peer, int(port))))

    def failed(self, error: OSError) -> None:
        """An error is a refusal by ICMP, one by RST, or something unforeseen."""
        outcome: Outcome | None = None
        problem = ""
        icmp = self._icmp()
        # A datagram of the node's own that meets DROP or REJECT fails at once; only REJECT's ICMP is still to come.
        if error.errno in (errno.EINPROGRESS, errno.EPERM) and icmp is None:
            return
        if error.errno == errno.ECONNRESET:
            outcome = Outcome.CLOSED
        elif icmp is not None:
            outcome, problem = self.refused(*icmp)
        elif error.errno == errno.ECONNREFUSED:
            outcome = Outcome.NONE
        else:
            problem = f"error {errno.errorcode.get(error.errno or 0, error.errno)}"
        self.end(Seen(self.target, outcome, self.source, problem=problem))

    def refused(self, origin: int, kind: int, code: int, offender: str) -> tuple[Outcome | None, str]:
        """What an ICMP error means."""
        if (kind, code) == _PORT_UNREACHABLE[origin]:
            return Outcome.REJECT, ""
        return None, f"ICMP type {kind} code {code} from {offender}"

    def end(self, seen: Seen) -> None:
        if self.done:
            return
        self.done = True
        self.job.pending -= 1
        self.traffic.ended()
        if self._fd >= 0:
            self.traffic.unwatch(self._fd)
        self.close()
        self.job.seen.append(replace(seen, number=self.number))

    def close(self) -> None:
        self.sock.close()

    def _icmp(self) -> tuple[int, int, int, str] | None:
        """Origin, type, code and sender of the ICMP error in the error queue, which a RST leaves empty."""
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(512, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return None
            for _, _, found in ancillary:
                _, origin, kind, code = struct.unpack_from("=IBBB", found)
                if origin in _ORIGINS_ICMP and self.mine(data):
                    return origin, kind, code, _offender(found)

    def mine(self, data: bytes) -> bool:
        return True


class _Stream(_Attempt):
    def open(self, address: str) -> None:
        self.sock.connect((address, self.target.port))

    def close(self) -> None:
        """By RST: nothing of it lingers."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class _Datagram(_Attempt):
    kind = socket.SOCK_DGRAM
    protocol = Protocol.UDP

    def open(self, address: str) -> None:
        self.sock.connect((address, self.target.port))
        self.sock.send(b"hello")

    def refused(self, origin: int, kind: int, code: int, offender: str) -> tuple[Outcome | None, str]:
        """A port without a listener is refused in the same words as by REJECT, but by the address itself."""
        outcome, problem = super().refused(origin, kind, code, offender)
        return (None if outcome and offender == str(self.target.address) else outcome), problem


class _Association(_Attempt):
    kind = socket.SOCK_RAW
    protocol = Protocol.SCTP
    transport = SCTP

    def bound_port(self) -> int:
        return 0

    def open(self, address: str) -> None:
        self.sock.connect((address, 0))
        self.sock.send(sctp.init(self.port, self.target.port, 0x10000 + self.port))

    def answered(self, data: bytes) -> str | None:
        packet = sctp.parse(without_header(data, self.target.address.version))
        return packet.text if packet is not None and packet.text and packet.destination == self.port else None

    def mine(self, data: bytes) -> bool:
        return data[:2] == struct.pack("!H", self.port)

    def failed(self, error: OSError) -> None:
        """A raw socket hears of the errors of all of its kind."""
        icmp = self._icmp()
        if icmp is None:
            return
        origin, kind, code, offender = icmp
        # "Protocol unreachable": it reached a machine as it was, and there is no SCTP there.
        if (origin, kind, code) == (2, 3, 2) or (origin, kind, code) == (3, 4, 1):
            self.end(Seen(self.target, Outcome.NONE, self.source))
            return
        outcome, problem = self.refused(origin, kind, code, offender)
        self.end(Seen(self.target, outcome, self.source, problem=problem))


def _offender(found: bytes) -> str:
    """Who sent the ICMP error; it stands behind the 16 bytes of the error itself."""
    family = struct.unpack_from("=H", found, 16)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, found[20:24])
    return socket.inet_ntop(socket.AF_INET6, found[24:40])
