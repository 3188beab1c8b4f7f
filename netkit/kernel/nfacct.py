"""Counters of packets that iptables rules can name (nfacct): making them and reading them.

Most kernels are built without them. Called by the iptables mode of the proxy and by whoever serves its metrics. Every
function blocks shortly.
"""

from __future__ import annotations

import errno
import struct

from netkit.kernel.errors import KernelError
from netkit.kernel.netlink import Message, NetlinkSocket, attributes, text
from netkit.kernel.netns import Namespace

_NETFILTER = 12
_SUBSYSTEM = 7 << 8
_NEW, _GET = 0, 1
_CREATE, _EXCLUSIVE = 0x400, 0x200
_FAMILY = struct.pack("=BBH", 0, 0, 0)
_NAME, _PACKETS = 1, 2


def ensure(ns: Namespace, name: str) -> bool:
    """Make the counter unless it is there. False if this kernel cannot."""
    message = Message(
        _SUBSYSTEM | _NEW, _CREATE | _EXCLUSIVE, _FAMILY + text(_NAME, name), f"nfacct add {name}"
    )
    try:
        with NetlinkSocket(ns, _NETFILTER) as sock:
            sock.apply(message.allowing(errno.EEXIST))
    except KernelError:
        return False
    return True


def packets(ns: Namespace, name: str) -> int | None:
    """How many packets were counted; None if there is no such counter."""
    message = Message(_SUBSYSTEM | _GET, 0, _FAMILY + text(_NAME, name), f"nfacct get {name}")
    try:
        with NetlinkSocket(ns, _NETFILTER) as sock:
            answer = sock.ask(message)
    except KernelError:
        return None
    return int.from_bytes(attributes(answer, len(_FAMILY)).get(_PACKETS, b"\0"))
