"""Replace this process by a program that runs inside a named network namespace, as `ip netns exec` does.

Called by `netkit exec` only. Besides the network the program gets its own mount namespace, so that /sys shows the
namespace's devices, and its own host name, so that a shell's prompt says where it is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NoReturn

from netkit.kernel import syscalls
from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.netns import entered, open_namespace


def exec_in_namespace(namespace: str, hostname: str, argv: Sequence[str]) -> NoReturn:
    """Never returns: the calling process becomes `argv`. Raises KernelError when that is not possible."""
    with entered(open_namespace(namespace)):
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
            syscalls.mount("none", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
            syscalls.umount("/sys", syscalls.MNT_DETACH)
            syscalls.mount("sysfs", "/sys", "sysfs")
            socket.sethostname(hostname)
        except OSError as error:
            raise from_os_error(error, f"enter {hostname}", namespace) from error
        try:
            os.execvp(argv[0], list(argv))
        except OSError as error:
            raise KernelError(
                f"run {argv[0]}", hostname, error.errno or 0, hint="is the program installed and on the PATH?"
            ) from error
