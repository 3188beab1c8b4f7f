"""Runs one program that can write nowhere but in given directories and leaves no process behind.

    python3 sealed.py --parent PID --memory BYTES [--write DIR]... -- PROGRAM ARGUMENT...

Started by `guest.Guest` as a process of its own, because what it does to itself cannot be undone: it goes into a
mount namespace in which everything is read-only, also for root, and into a pid namespace that dies with it; it dies
with its parent. The root of a user-mode-Linux guest may mount the host's directories as it likes: this is what keeps
it from writing there. Needs root. (In a user namespace root's files would belong to nobody in the guest, and its
setuid programs, mount(8) among them, would drop what they need.) The exit status is the program's; 125 with a message
if the seal could not be made (then the program was not started).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

_CLONE_NEWNS, _CLONE_NEWPID = 0x20000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MOUNT_ATTR_RDONLY, _AT_RECURSIVE, _AT_FDCWD = 0x1, 0x8000, -100
_SYS_MOUNT_SETATTR = 442
"""The same number on every architecture; Linux 5.12 and later. mount(8) of Debian 12 cannot do it recursively."""
_PR_SET_PDEATHSIG = 1

SEAL_FAILED = 125

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sealed.py")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--write", action="append", default=[])
    parser.add_argument("program", nargs="+")
    args = parser.parse_args(argv)
    _die_with_parent()
    if os.getppid() != args.parent:
        return SEAL_FAILED
    try:
        _seal(args.write, args.memory)
    except OSError as error:
        print(f"sealed.py: {error.strerror}", file=sys.stderr)
        return SEAL_FAILED
    return _run(args.program)


def _seal(writable: Sequence[str], memory: int) -> None:
    """Leave the host's mounts: all read-only but `writable`, and a /dev/shm of `memory` bytes of our own.

    The memory of a guest is a file in /dev/shm, which containers often have too small or without exec.
    """
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWPID)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    for directory in writable:
        path = os.fsencode(directory)
        _call("mount", path, path, None, _MS_BIND, None)
    _set_mounts("/", read_only=True, recursive=True)
    for directory in writable:
        _set_mounts(directory, read_only=False)
    _call("mount", b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777,size=%d" % memory)


def _run(program: Sequence[str]) -> int:
    """Run the program below a process 1 that only waits for it.

    It must not be process 1 itself: signals that it sends itself would be ignored, and a kernel that panics
    would spin in abort() for ever.
    """
    watch, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        _die_with_parent()
        if select.select([watch], [], [], 0)[0]:
            os._exit(SEAL_FAILED)  # the parent was gone before it could be watched
        try:
            os._exit(_status(subprocess.run(program, close_fds=False).returncode))
        except OSError as error:
            print(f"sealed.py: {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(SEAL_FAILED)
    return _status(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _status(code: int) -> int:
    """Shells' way to say that a signal (a negative `code`) ended a program."""
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _set_mounts(path: str, *, read_only: bool, recursive: bool = False) -> None:
    wanted = _MountAttributes()
    setattr(wanted, "attr_set" if read_only else "attr_clr", _MOUNT_ATTR_RDONLY)
    flags = _AT_RECURSIVE if recursive else 0
    where = os.fsencode(path)
    _call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, where, flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _call(function: str, *arguments: object) -> None:
    """Call a function of libc that returns 0, or raise OSError with its name and arguments."""
    if getattr(_libc, function)(*arguments):
        code = ctypes.get_errno()
        shown = " ".join(os.fsdecode(a) for a in arguments if isinstance(a, bytes))
        raise OSError(code, f"{function} {shown}: {os.strerror(code)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
