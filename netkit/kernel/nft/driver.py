"""One nf_tables table of one namespace: transactions, reading back, and what others do to it.

Called by the nftables proxy mode. Everything here blocks (except `disturbance`) and belongs into a thread. Holds
one netlink socket open for its life, and one more that listens for changes once asked to.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, Protocol, TypeVar

from netkit.kernel import netns
from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.netns import Namespace
from netkit.kernel.nft import refusals, wire
from netkit.kernel.nft.events import Changes
from netkit.kernel.nft.objects import Contents, chain_of, elements_of, rule_of, set_of
from netkit.kernel.nft.wire import Elements, Message, text_attribute

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _EXT_ACK = 1, 2, 11
_GROUP_NFTABLES: Final = 7
_FAMILIES: Final = {wire.NFPROTO_IPV4: "ip", wire.NFPROTO_BRIDGE: "bridge", wire.NFPROTO_IPV6: "ip6"}
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SEND_BYTES: Final = 64 << 20
_RECEIVE_BYTES: Final = 8 << 20
_MODEST_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 18
_DUMP_TRIES: Final = 10

_BATCH: Final = struct.Struct("=IHHIIBB")
_BEGIN: Final = _BATCH.pack(20, wire.BATCH_BEGIN_TYPE, wire.NLM_F_REQUEST, 0, 0, 0, 0) + struct.pack("!H", 10)
_END: Final = _BATCH.pack(20, wire.BATCH_END_TYPE, wire.NLM_F_REQUEST, 0, 0, 0, 0) + struct.pack("!H", 10)


T = TypeVar("T")


class Witness:
    """Whether anybody but us committed something while we did not listen."""

    def __init__(self) -> None:
        self.others = False


class TableDriver(Protocol):
    """Driver interface; `NftTable` is the real one, `fake.FakeNftTable` that of tests."""

    family: int
    table: str

    def commit(self, messages: Sequence[bytes]) -> None:
        """Apply all messages in one transaction, or none of them. Raises KernelError naming the refused object."""

    def read(self, *, all_elements: bool = False) -> Contents | None:
        """All of the table; None when there is no such table. Elements that rules add themselves are left out.

        Unless `all_elements`, those of anonymous sets that carry a signature are left out as well.
        """

    def has(self, chains: Iterable[str]) -> bool:
        """Whether the table and all these chains are there."""

    def handles(self, chain: str) -> list[int]:
        """The numbers by which the kernel knows the chain's rules, in order; empty when there is no such chain."""

    def watch(self) -> None:
        """From now on notice what others do to the table. May be called again."""

    def quiet(self) -> AbstractContextManager[Witness]:
        """While the block runs, changes are not noticed: they would be our own, by the thousand.

        What it yields tells afterwards whether somebody else changed anything meanwhile.
        """

    async def disturbance(self) -> str:
        """Wait until somebody else has changed the table, and say who did what."""


class NftTable:
    """See `TableDriver`. `family` is an NFPROTO number."""

    def __init__(self, ns: Namespace, family: int, table: str) -> None:
        self.ns = ns
        self.family = family
        self.table = table
        self._socket: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._changes = Changes(family, table)
        self._commits = 0
        self._buffer = memoryview(bytearray(_READ_BYTES))

    # changing

    def commit(self, messages: Sequence[bytes]) -> None:
        """See `TableDriver`."""
        sock = self._open()
        last = _with_ack(messages[-1])
        try:
            sock.send(b"".join((_BEGIN, *messages[:-1], last, _END)))
        except OSError as error:
            hint = (
                "the transaction is larger than this socket's buffer" if error.errno == errno.EMSGSIZE else ""
            )
            raise from_os_error(
                error, f"nft: {len(messages)} changes of {self._what}", self.ns.name, hint
            ) from error
        self._acknowledged(sock)
        self._commits += 1

    def _acknowledged(self, sock: socket.socket) -> None:
        """Read the answers, which are there when send returns: one for each refusal, or that of the last message."""
        refused: KernelError | None = None
        done = False
        while True:
            try:
                data = self._receive(sock, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                raise from_os_error(error, f"nft: changes of {self._what}", self.ns.name) from error
            for kind, _, _, start, end in wire.messages(data):
                if kind != wire.NLMSG_ERROR:
                    continue
                code = -struct.unpack_from("=i", data, start)[0]
                if code == 0:
                    done = True
                elif refused is None:
                    refused = refusals.refusal(code, data[start + 4 : end], self.ns.name)
        if refused is not None:
            raise refused
        if not done:
            raise KernelError(
                f"nft: changes of {self._what}", self.ns.name, stderr="the kernel did not answer"
            )

    # reading

    def read(self, *, all_elements: bool = False) -> Contents | None:
        """See `TableDriver`."""
        return self._undisturbed(lambda: self._read(all_elements))

    def _undisturbed(self, read: Callable[[], T]) -> T:
        """What `read` finds when nothing changes meanwhile."""
        for _ in range(_DUMP_TRIES):
            try:
                return read()
            except _Interrupted:
                continue
        raise KernelError(
            f"nft list table {self._what}",
            self.ns.name,
            errno.EINTR,
            "it changed again each time it was read",
        )

    def _read(self, all_elements: bool) -> Contents | None:
        name = text_attribute(1, self.table)
        try:
            found = next(self._request(Message.GETTABLE, name))
        except KernelError as error:
            if error.is_not_found:
                return None
            raise
        contents = Contents(wire.comment_of(wire.table_of(found).get(wire.Table.USERDATA)))
        for body in self._request(Message.GETCHAIN, name, dump=True):
            table, chain = chain_of(body)
            if table == self.table:
                contents.chains[chain.name] = chain
                contents.rules[chain.name] = []
        for body in self._request(Message.GETRULE, name, dump=True):
            where, rule = rule_of(body)
            contents.rules.setdefault(where, []).append(rule)
        for body in self._request(Message.GETSET, name, dump=True):
            spec = set_of(body)
            contents.sets[spec.name] = spec
            contents.elements[spec.name] = []
        for spec in contents.sets.values():
            if spec.dynamic or (spec.signature and not all_elements):
                continue
            for body in self._request(
                Message.GETSETELEM, name + text_attribute(Elements.SET, spec.name), dump=True
            ):
                contents.elements[spec.name] += elements_of(body)[1]
        return contents

    def has(self, chains: Iterable[str]) -> bool:
        """See `TableDriver`."""
        name = text_attribute(1, self.table)
        try:
            next(self._request(Message.GETTABLE, name))
            for chain in chains:
                next(self._request(Message.GETCHAIN, name + text_attribute(wire.Chain.NAME, chain)))
        except KernelError as error:
            if error.is_not_found:
                return False
            raise
        return True

    def handles(self, chain: str) -> list[int]:
        """See `TableDriver`."""
        where = text_attribute(1, self.table) + text_attribute(wire.Rule.CHAIN, chain)
        try:
            return self._undisturbed(
                lambda: [
                    wire.u64_of(wire.table_of(body)[wire.Rule.HANDLE])
                    for body in self._request(Message.GETRULE, where, dump=True)
                ]
            )
        except KernelError as error:
            if error.is_not_found:
                return []
            raise

    def _request(self, kind: Message, body: bytes, *, dump: bool = False) -> Iterator[bytes]:
        """The bodies of the answers to a question."""
        sock = self._open()
        flags = wire.NLM_F_DUMP if dump else 0
        family = 0 if kind is Message.GETGEN else self.family
        sock.send(wire.message(kind, family, body, flags))
        interrupted = False
        while True:
            data = self._receive(sock)
            for answer, answer_flags, _, start, end in wire.messages(data):
                interrupted |= bool(answer_flags & wire.NLM_F_DUMP_INTR)
                if answer == wire.NLMSG_DONE:
                    if interrupted:
                        raise _Interrupted
                    return
                if answer == wire.NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, start)[0]
                    raise KernelError(f"nft list table {self._what}", self.ns.name, code)
                yield data[start + 4 : end]
                if not dump:
                    return

    def _receive(self, sock: socket.socket, flags: int = 0) -> bytes:
        """One datagram, by way of a buffer that is not made anew for each."""
        length = sock.recv_into(self._buffer, 0, flags)
        return bytes(self._buffer[:length])

    def _generation(self) -> int:
        """How many transactions this namespace has seen."""
        body = next(self._request(Message.GETGEN, b""))
        return wire.u32_of(wire.table_of(body)[1])

    # listening

    def watch(self) -> None:
        """See `TableDriver`."""
        if self._listener is None:
            listener = self._new_socket()
            listener.setblocking(False)
            weakref.finalize(self, listener.close)
            self._listener = listener
        self._membership(join=True)

    def quiet(self) -> AbstractContextManager[Witness]:
        """See `TableDriver`."""
        return self._quiet()

    @contextmanager
    def _quiet(self) -> Iterator[Witness]:
        witness = Witness()
        listening = self._listener is not None
        before, commits = self._generation(), self._commits
        if listening:
            self._membership(join=False)
        try:
            yield witness
        finally:
            if listening:
                self._membership(join=True)
        witness.others = self._generation() - before != self._commits - commits

    async def disturbance(self) -> str:
        """See `TableDriver`."""
        loop = asyncio.get_running_loop()
        while True:
            if self._listener is None:
                await asyncio.to_thread(self.watch)
            listener = self._listener
            assert listener is not None
            try:
                data = await loop.sock_recv(listener, _READ_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise from_os_error(error, "nft monitor", self.ns.name) from error
                return "more happened to the rules than the kernel could tell of"
            what = self._changes.read(data)
            if what:
                return what

    def _membership(self, *, join: bool) -> None:
        assert self._listener is not None
        option = _ADD_MEMBERSHIP if join else _DROP_MEMBERSHIP
        self._listener.setsockopt(_SOL_NETLINK, option, _GROUP_NFTABLES)

    # sockets

    @property
    def _what(self) -> str:
        return f"{_FAMILIES[self.family]} {self.table}"

    def _open(self) -> socket.socket:
        if self._socket is None:
            sock = self._new_socket()
            sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            weakref.finalize(self, sock.close)
            self._changes.own.add(sock.getsockname()[0])
            self._socket = sock
        return self._socket

    def _new_socket(self) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        sock = netns.socket_in(self.ns, socket.AF_NETLINK, kind, wire.NETLINK_NETFILTER)
        sock.bind((0, 0))
        for forced, plain, size in (
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BYTES),
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BYTES),
        ):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                # Root of a user namespace only: the system's limit has to do.
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, plain, _MODEST_BYTES)
        return sock


class _Interrupted(Exception):
    """The rules changed while they were dumped."""


def _with_ack(block: bytes) -> bytes:
    """The block of messages, the last of which asks to be acknowledged."""
    offset = 0
    while True:
        (length,) = struct.unpack_from("=I", block, offset)
        following = offset + ((length + 3) & ~3)
        if following >= len(block):
            break
        offset = following
    (flags,) = struct.unpack_from("=H", block, offset + 6)
    return block[: offset + 6] + struct.pack("=H", flags | wire.NLM_F_ACK) + block[offset + 8 :]
