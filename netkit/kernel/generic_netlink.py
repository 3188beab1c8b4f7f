"""Generic netlink: the number that this boot's kernel has given to a family of messages."""

from __future__ import annotations

import errno
import struct
import sys
from typing import Final

from netkit.kernel.errors import KernelError
from netkit.kernel.netlink import Message, NetlinkSocket, attributes, text

PROTOCOL: Final = 16
COMMAND: Final = struct.Struct("=BBH")
"""What a message begins with: command, version, nothing."""

_CONTROL: Final = 16
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2


def family(sock: NetlinkSocket, name: str) -> int | None:
    """The family's number, None when the kernel has none of that name. Asking makes it load the module, where it may.

    Raises KernelError.
    """
    request = Message(
        _CONTROL, 0, COMMAND.pack(_GET_FAMILY, 2, 0) + text(_FAMILY_NAME, name), f"genl family {name}"
    )
    try:
        answer = sock.ask(request)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return int.from_bytes(attributes(answer, COMMAND.size)[_FAMILY_ID], sys.byteorder)
