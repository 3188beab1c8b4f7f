"""IPVS, the kernel's load balancer, over generic netlink: virtual servers, real servers, timeouts.

Called by the proxy's IPVS mode and by whoever shows what stands. The functions that return a `Message` are pure
encoders; `IPVS` sends them in one namespace, many in one send, and reads back. No program is started.

Messages and attributes are those of `linux/ip_vs.h`. Three things surprise: a real server is "not unicast" (EINVAL)
in a namespace that has no address at all, not even lo's; IPv6 netmasks are prefix lengths; and SET replaces what it
is given whole, so it needs all that NEW needs.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from netkit.kernel import generic_netlink
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.generic_netlink import COMMAND
from netkit.kernel.ipvs_values import (
    SCHEDULER_FLAGS,
    Address,
    RealServer,
    ServerKey,
    Target,
    Timeouts,
    Transport,
    VirtualServer,
)
from netkit.kernel.netlink import (
    Attributes,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    text,
    u32,
)
from netkit.kernel.netns import Namespace

NEW_SERVICE, SET_SERVICE, DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, _GET_DEST = 5, 6, 7, 8
SET_CONFIG, _GET_CONFIG, FLUSH = 12, 13, 17

SERVICE, DEST, TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP = 1, 2, 4, 5, 6
_AF, _PROTOCOL, _ADDRESS, _PORT, _FWMARK, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_D_ADDRESS, _D_PORT, _D_METHOD, _D_WEIGHT, _D_UPPER, _D_LOWER, _D_ACTIVE, _D_INACTIVE = range(1, 9)

_PERSISTENT: Final = 1
_MASQUERADING: Final = 0
# Several attributes at once: length and kind of each, then its contents.
_KEY_HEAD = struct.Struct("=HHHxxHHHxx")
_PLACE = struct.Struct("=HH16sHH2sxx")
_DESTINATION = struct.Struct("=HHIHHIHHIHHI")

HOW_TO_GET: Final = (
    "modprobe ip_vs (Ubuntu: install linux-modules-extra first), boot a kernel built with CONFIG_IP_VS, "
    "or use the user-mode Linux lane: tests/run --lane ipvs"
)


class IPVS(NetlinkSocket):
    """The load balancer of one namespace; the socket stays open. Raises Unsupported where the kernel has none.

    Asking for it makes the kernel load its module, where it may.
    """

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, generic_netlink.PROTOCOL)
        try:
            self._family = self._find_family()
        except BaseException:
            self.close()
            raise

    def apply(self, *messages: Message) -> None:
        """See `NetlinkSocket.apply`. A scheduler that the kernel lacks is Unsupported, naming its module."""
        try:
            super().apply(*(self._addressed(message) for message in messages))
        except KernelError as error:
            raise _explained(error) from error

    def servers(self) -> list[VirtualServer]:
        """All virtual servers of both families, without those that go by firewall mark."""
        request = self._request(_GET_SERVICE, b"", "ipvsadm -Ln")
        found = (server_in(attributes(attributes(body, 4)[SERVICE])) for body in self.dump(request))
        return [server for server in found if server is not None]

    def server(self, key: ServerKey) -> VirtualServer | None:
        """The virtual server with this key, None if there is none."""
        request = self._request(_GET_SERVICE, nested(SERVICE, _key(key)), f"ipvsadm -Ln {key.option}")
        try:
            body = self.ask(request)
        except KernelError as error:
            if error.errno == errno.ESRCH:
                return None
            raise
        return server_in(attributes(attributes(body, 4)[SERVICE]))

    def real_servers(self, key: ServerKey) -> list[RealServer]:
        """The real servers of a virtual server; none if there is no such virtual server."""
        request = self._request(_GET_DEST, nested(SERVICE, _key(key)), f"ipvsadm -Ln {key.option}")
        found = (attributes(attributes(body, 4)[DEST]) for body in self.dump(request.allowing(errno.ESRCH)))
        return [real_server_in(contents, key.address.version) for contents in found]

    def timeouts(self) -> Timeouts:
        """The kernel's timeouts of idle connections."""
        found = attributes(self.ask(self._request(_GET_CONFIG, b"", "ipvsadm -L --timeout")), 4)
        return Timeouts(*(number_in(found, kind) for kind in (TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP)))

    def _find_family(self) -> int:
        number = generic_netlink.family(self, "IPVS")
        if number is None:
            raise Unsupported(
                "ip_vs", self.namespace, errno.ENOENT, "the kernel has no module ip_vs", HOW_TO_GET
            )
        return number

    def _request(self, command: int, contents: bytes, what: str) -> Message:
        return self._addressed(_message(command, contents, what))

    def _addressed(self, message: Message) -> Message:
        """The message with the number this kernel gave to IPVS."""
        return Message(self._family, message.flags, message.body, message.what, message.allowed)


def server_add(server: VirtualServer) -> Message:
    """Make a virtual server; is_exists if there is one of its key."""
    return _message(NEW_SERVICE, _whole(server), f"ipvsadm -A {server.key.option} -s {server.options}")


def server_set(server: VirtualServer) -> Message:
    """Give a virtual server another scheduler, persistence or flags. Connections and real servers stay."""
    return _message(SET_SERVICE, _whole(server), f"ipvsadm -E {server.key.option} -s {server.options}")


def server_delete(key: ServerKey) -> Message:
    """Remove a virtual server and its real servers; fine when it is gone."""
    message = _message(DEL_SERVICE, nested(SERVICE, _key(key)), f"ipvsadm -D {key.option}")
    return message.allowing(errno.ESRCH)


def real_add(key: ServerKey, target: Target, weight: int = 1) -> Message:
    """Put a real server behind a virtual one; its packets are masqueraded, as everything in Kubernetes."""
    return _message(
        NEW_DEST,
        nested(SERVICE, _key(key)) + nested(DEST, _destination(target, weight)),
        f"ipvsadm -a {key.option} -r {target} -m -w {weight}",
    )


def real_set(key: ServerKey, target: Target, weight: int) -> Message:
    """Change a real server's weight; 0 keeps its connections and gives it no new ones."""
    return _message(
        SET_DEST,
        nested(SERVICE, _key(key)) + nested(DEST, _destination(target, weight)),
        f"ipvsadm -e {key.option} -r {target} -m -w {weight}",
    )


def real_delete(key: ServerKey, target: Target) -> Message:
    """Take a real server away; fine when it is gone. Its connections end at their next packet."""
    contents = _place(_D_ADDRESS, target.address, _D_PORT, target.port)
    message = _message(
        DEL_DEST,
        nested(SERVICE, _key(key)) + nested(DEST, contents),
        f"ipvsadm -d {key.option} -r {target}",
    )
    return message.allowing(errno.ENOENT, errno.ESRCH)


def timeouts_set(timeouts: Timeouts) -> Message:
    """Set the timeouts that are not 0."""
    contents = u32(TIMEOUT_TCP, timeouts.tcp) + u32(TIMEOUT_TCP_FIN, timeouts.tcp_fin)
    contents += u32(TIMEOUT_UDP, timeouts.udp)
    what = f"ipvsadm --set {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}"
    return _message(SET_CONFIG, contents, what)


def flush() -> Message:
    """Remove all virtual servers of the namespace, of both families and whoever made them."""
    return _message(FLUSH, b"", "ipvsadm -C")


def _message(command: int, contents: bytes, what: str) -> Message:
    return Message(0, 0, COMMAND.pack(command, 1, 0) + contents, what)


def _key(key: ServerKey) -> bytes:
    """Address family, protocol, address and port."""
    family = socket.AF_INET if key.address.version == 4 else socket.AF_INET6
    return _KEY_HEAD.pack(6, _AF, family, 6, _PROTOCOL, key.transport) + _place(
        _ADDRESS, key.address, _PORT, key.port
    )


def _whole(server: VirtualServer) -> bytes:
    flags = server.flags & SCHEDULER_FLAGS | (_PERSISTENT if server.persistence else 0)
    contents = _key(server.key) + text(_SCHEDULER, server.scheduler)
    contents += attribute(_FLAGS, struct.pack("=II", flags, 0xFFFFFFFF)) + u32(_TIMEOUT, server.persistence)
    # The netmask groups persistent clients: each address by itself, as a mask for IPv4, as a length for IPv6.
    contents += u32(_NETMASK, 0xFFFFFFFF if server.key.address.version == 4 else 128)
    return nested(SERVICE, contents)


def _destination(target: Target, weight: int) -> bytes:
    return _place(_D_ADDRESS, target.address, _D_PORT, target.port) + _DESTINATION.pack(
        8, _D_METHOD, _MASQUERADING, 8, _D_WEIGHT, weight, 8, _D_UPPER, 0, 8, _D_LOWER, 0
    )


def _place(address_kind: int, address: Address, port_kind: int, port: int) -> bytes:
    """The attributes of an address and a port."""
    port_bytes = port.to_bytes(2, "big")
    return _PLACE.pack(20, address_kind, address.packed, 6, port_kind, port_bytes)


def decoded(message: Message) -> tuple[int, Attributes]:
    """Command and attributes of a message of this module, for fakes."""
    return COMMAND.unpack_from(message.body)[0], attributes(message.body, COMMAND.size)


def key_in(found: Attributes) -> ServerKey:
    """The key in the attributes of a virtual server."""
    version = 4 if number_in(found, _AF) == socket.AF_INET else 6
    return ServerKey(
        _unpacked(found[_ADDRESS], version),
        int.from_bytes(found[_PORT], "big"),
        Transport(number_in(found, _PROTOCOL)),
    )


def server_in(found: Attributes) -> VirtualServer | None:
    """The virtual server its attributes describe; None for one that goes by firewall mark."""
    if _FWMARK in found:
        return None
    key = key_in(found)
    flags = struct.unpack_from("=I", found[_FLAGS])[0]
    persistence = number_in(found, _TIMEOUT) if flags & _PERSISTENT else 0
    scheduler = found.get(_SCHEDULER, b"").rstrip(b"\0").decode()
    return VirtualServer(key, scheduler, persistence, flags & SCHEDULER_FLAGS)


def real_server_in(found: Attributes, version: int) -> RealServer:
    """The real server its attributes describe; `version` is the address family of its virtual server."""
    target = Target(_unpacked(found[_D_ADDRESS], version), int.from_bytes(found[_D_PORT], "big"))
    numbers = (number_in(found, kind) for kind in (_D_WEIGHT, _D_ACTIVE, _D_INACTIVE))
    return RealServer(target, *numbers)


def _unpacked(data: bytes, version: int) -> Address:
    return IPv4Address(data[:4]) if version == 4 else IPv6Address(data)


def number_in(found: Attributes, kind: int) -> int:
    """A number of any width in the machine's byte order, 0 when absent."""
    data = found.get(kind, b"\0")
    number: int = struct.unpack({1: "=B", 2: "=H", 4: "=I", 8: "=Q"}[len(data)], data)[0]
    return number


def _explained(error: KernelError) -> KernelError:
    """ENOENT for a virtual server means that its scheduler is missing; for a real one, that there is none such."""
    words = error.operation.split()
    if error.errno != errno.ENOENT or words[:2] not in (["ipvsadm", "-A"], ["ipvsadm", "-E"]):
        return error
    module = f"ip_vs_{words[words.index('-s') + 1]}"
    return Unsupported(
        error.operation,
        error.namespace,
        errno.ENOENT,
        f"the kernel has no module {module}",
        f"modprobe {module}, choose another scheduler (rr comes with every ip_vs), or boot another kernel",
    )
