"""clone(2) into new namespaces, which neither `os.fork` nor `unshare` can stand in for.

Called by `container` only.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_SIGCHLD: Final = 17
_CLONE: Final = {"x86_64": 56, "aarch64": 220, "riscv64": 220}

# PyDLL keeps the interpreter lock: the child has one thread, and that thread must own the lock.
_libc = ctypes.PyDLL(None, use_errno=True)


def clone(flags: int) -> int:
    """Fork into new namespaces (`CLONE_NEW*`): the child's pid in the parent, 0 in the child.

    With `CLONE_NEWPID` the child is process 1 of its namespace and yet a child of the caller, which
    `os.fork` after `unshare` cannot give. Python's fork hooks do not run: the child must soon exec or
    `_exit`, and the calling process must have one thread. Raises OSError.
    """
    machine = os.uname().machine
    if machine not in _CLONE:
        raise OSError(38, f"containers are not supported on {machine}")
    pid: int = _libc.syscall(ctypes.c_long(_CLONE[machine]), ctypes.c_ulong(flags | _SIGCHLD), 0, 0, 0, 0)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "clone")
    return pid
