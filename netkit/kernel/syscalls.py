"""The few system calls Python 3.11 does not offer: setns, unshare, mount, umount2, pivot_root, prctl, inotify.

Called by the modules of `netkit.kernel` only. Each raises OSError like `os` does; nothing here decides
anything.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC
IN_CLOSE_WRITE = 0x8
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _check(result: int, path: str | None = None) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd`; `kind` is its CLONE_NEW* flag."""
    _check(_libc.setns(fd, kind))


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces of the kinds in `flags`."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, fstype: str = "none", flags: int = 0, data: str = "") -> None:
    """mount(2); paths are taken as they are."""
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode() if data else None
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). EINVAL means that `target` is not a mount point."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): both are directories of the calling thread's mount namespace."""
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old)), new_root)


def prctl(option: int, value: int = 0) -> None:
    """prctl(2) for options with one integer argument."""
    _check(_libc.prctl(option, value, 0, 0, 0))


def raw_syscall(number: int, *arguments: int) -> int:
    """A system call by number with integer (or address) arguments; its result."""
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(argument) for argument in arguments)))
    _check(result)
    return result


def map_to_root(flags: int) -> None:
    """Enter a new user namespace as its root, with new namespaces of the kinds in `flags`; for ordinary users."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/thread-self/{name}", "w") as file:
            file.write(text)


def inotify_init1(flags: int) -> int:
    """inotify_init1(2): the descriptor of a new queue of file events."""
    fd = int(_libc.inotify_init1(flags))
    _check(fd)
    return fd


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): events of `path` that are in `mask` go to the queue `fd`."""
    number = int(_libc.inotify_add_watch(fd, os.fsencode(path), mask))
    _check(number, path)
    return number
