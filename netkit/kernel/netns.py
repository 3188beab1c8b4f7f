"""Named network namespaces: make, open, enter, delete, and sockets inside them.

Called by everything that works in a machine or a pod. Namespaces are named as `ip netns` names them, so that
`ip netns list` and `ip netns exec` show and enter them. Nothing here configures links (see `rtnl`).

Entering is a property of the calling *thread*: `with entered(ns):` must never contain an `await`, or other
tasks of the loop would run in the wrong namespace. Sockets and netlink handles made inside keep their
namespace for life; that is how one asyncio loop serves many namespaces. A process forked inside starts there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel import syscalls
from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.ledger import Entry, EntryKind, Ledger
from netkit.kernel.netns_directory import NETNS_DIRECTORY, ensure_directory

_NS_GET_NSTYPE = 0xB703
_OPEN = os.O_RDONLY | os.O_CLOEXEC


@dataclass(eq=False, slots=True)
class Namespace:
    """An open network namespace. It lives at least as long as `fd` is open, also when its name is deleted.

    `name` is "" for the machine's own namespace (`HOST`), a path for one that was opened by it. Usable as a context
    manager that closes `fd`.
    """

    name: str
    fd: int

    @property
    def path(self) -> str:
        """A path that can be opened or handed to nsenter."""
        if self.name.startswith("/"):
            return self.name
        return f"{NETNS_DIRECTORY}/{self.name}" if self.name else "/proc/self/ns/net"

    @property
    def inode(self) -> int:
        """The kernel's number of the namespace, the same in every process."""
        return os.fstat(self.fd).st_ino

    def close(self) -> None:
        """Close `fd`; the namespace stays while it has a name, a process or a socket. May be called twice."""
        if self.fd >= 0 and self is not HOST:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Namespace({self.name or 'HOST'!r}, fd={self.fd})"


HOST = Namespace("", os.open("/proc/self/ns/net", _OPEN))
"""The network namespace this process was started in: the machine's own."""


class _Thread(threading.local):
    """Which namespace the thread is in; None until it enters one for the first time."""

    fd: int | None = None


_thread = _Thread()


def create(
    name: str, ledger: Ledger, sysctls: Mapping[str, str] | None = None, *, wanted_by: str = ""
) -> Namespace:
    """Make the namespace `name` and return it open.

    `sysctls` (e.g. {"net.ipv6.conf.default.disable_ipv6": "1"}) are written before anything else can see it,
    without being read back: use `sysctl.write` for those a kernel may refuse. `wanted_by` goes into the
    ledger as detail. A name left half made by a crash of this ledger's owner is made anew. Raises
    KernelError, `is_exists` when the name is taken. Its lo is down, as the kernel makes it.
    """
    check_name(name)
    path = f"{NETNS_DIRECTORY}/{name}"
    operation = f"ip netns add {name}"
    entry = Entry(EntryKind.NAMESPACE, name, wanted_by)
    ensure_directory(ledger)
    known = ledger.holds(EntryKind.NAMESPACE, name)
    if not known:
        if os.path.lexists(path):
            raise KernelError(operation, errno=errno.EEXIST)
        ledger.intend(entry)
    try:
        _touch(path, name, ledger, replace_stub=known)
    except OSError as error:
        if not known:
            ledger.forget(entry)
        raise from_os_error(error, operation) from error
    try:
        fd = _make(path, sysctls or {})
    except OSError as error:
        delete(name, ledger)
        hint = "root, or a user namespace, is needed" if error.errno == errno.EPERM else ""
        raise from_os_error(error, operation, hint=hint) from error
    return Namespace(name, fd)


def open_namespace(name: str) -> Namespace:
    """Open an existing named namespace. KernelError with `is_not_found` if there is none (a half made one is
    none).
    """
    check_name(name)
    try:
        fd = os.open(f"{NETNS_DIRECTORY}/{name}", _OPEN)
    except OSError as error:
        raise from_os_error(error, f"ip netns exec {name}") from error
    if not _is_namespace(fd):
        os.close(fd)
        raise KernelError(
            f"ip netns exec {name}", errno=errno.ENOENT, stderr="the name has no namespace behind it"
        )
    return Namespace(name, fd)


def open_path(path: str) -> Namespace:
    """Open the namespace behind an absolute path, which others made. KernelError when there is none."""
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        raise from_os_error(error, f"nsenter --net={path}") from error
    if not _is_namespace(fd):
        os.close(fd)
        raise KernelError(f"nsenter --net={path}", errno=errno.ENOENT, stderr="it is no network namespace")
    return Namespace(os.path.abspath(path), fd)


def exists(name: str) -> bool:
    """Whether a namespace of that name is there to be opened."""
    try:
        open_namespace(name).close()
    except KernelError as error:
        if error.is_not_found:
            return False
        raise
    return True


def names() -> list[str]:
    """All names in the namespace directory, of whoever made them, sorted; as `ip netns list`."""
    try:
        return sorted(os.listdir(NETNS_DIRECTORY))
    except FileNotFoundError:
        return []


def delete(name: str, ledger: Ledger | None = None) -> None:
    """Remove the name (unmount, unlink) and forget it in `ledger`. A name that is gone already is no error.

    The namespace itself dies, with all its links, when its last process, socket and open handle are gone; the
    kernel does that 15-60 ms later, and until then names and indexes of links whose peer is elsewhere stay
    taken.
    """
    check_name(name)
    path = f"{NETNS_DIRECTORY}/{name}"
    try:
        _unmount(path)
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise from_os_error(error, f"ip netns delete {name}") from error
    if ledger is not None:
        ledger.forget(Entry(EntryKind.NAMESPACE, name))


def delete_all(wanted: list[str]) -> dict[str, KernelError]:
    """Remove many names: all are unmounted before the first is unlinked, so that the kernel cleans up in one
    go.

    Returns what went wrong by name, and goes on.
    """
    failed: dict[str, KernelError] = {}
    for step in (_unmount, os.unlink):
        for name in wanted:
            try:
                step(f"{NETNS_DIRECTORY}/{name}")
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.setdefault(name, from_os_error(error, f"ip netns delete {name}"))
    return failed


@contextmanager
def entered(ns: Namespace) -> Iterator[None]:
    """Run the block with the calling thread inside `ns`. Never `await` in it. Nesting is fine."""
    before = _thread.fd
    if before is None:
        before = _starting_point()
    try:
        syscalls.setns(ns.fd, syscalls.CLONE_NEWNET)
    except OSError as error:
        raise from_os_error(error, "setns", ns.name) from error
    _thread.fd = ns.fd
    try:
        yield
    finally:
        syscalls.setns(before, syscalls.CLONE_NEWNET)
        _thread.fd = before


def enter(ns: Namespace) -> None:
    """Move the calling thread into `ns` for good. For the only thread of a process that shall live there."""
    try:
        syscalls.setns(ns.fd, syscalls.CLONE_NEWNET)
    except OSError as error:
        raise from_os_error(error, "setns", ns.name) from error
    _thread.fd = ns.fd


def socket_in(ns: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in `ns`, made in the calling thread (18 us). Close it as any other."""
    with entered(ns):
        try:
            return socket.socket(family, kind, protocol)
        except OSError as error:
            raise from_os_error(error, f"socket({family}, {kind}, {protocol})", ns.name) from error


def make_current_host() -> None:
    """From now on HOST is the namespace the calling thread is in.

    For a process that has left the machine's own namespace for good (rootless clusters, tests), before it makes
    anything: names, links and routes "of the machine" are then those of that namespace.
    """
    os.close(HOST.fd)
    HOST.fd = os.open("/proc/thread-self/ns/net", _OPEN)
    _thread.fd = None


def check_name(name: str) -> None:
    """ValueError unless `name` can be a file name in the namespace directory."""
    if not name or "/" in name or name in (".", "..") or len(name.encode()) > 255:
        raise ValueError(f"bad namespace name {name!r}")


def _make(path: str, sysctls: Mapping[str, str]) -> int:
    """A fresh namespace mounted on `path`: its descriptor. The thread is back where it was on return."""
    before = _thread.fd
    if before is None:
        before = _starting_point()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    try:
        fd = os.open("/proc/thread-self/ns/net", _OPEN)
        try:
            for key, value in sysctls.items():
                Path(f"/proc/sys/{key if '/' in key else key.replace('.', '/')}").write_text(value)
            syscalls.mount("/proc/thread-self/ns/net", path, flags=syscalls.MS_BIND)
        except BaseException:
            os.close(fd)
            raise
    finally:
        syscalls.setns(before, syscalls.CLONE_NEWNET)
    return fd


def _touch(path: str, name: str, ledger: Ledger, *, replace_stub: bool) -> None:
    """Make the empty file a namespace is mounted on."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o444)
    except FileNotFoundError:
        # Another cluster's teardown took the directory with it as the last one out.
        ensure_directory(ledger, afresh=True)
        fd = os.open(path, flags, 0o444)
    except FileExistsError:
        if not replace_stub or exists(name):
            raise
        os.unlink(path)
        fd = os.open(path, flags, 0o444)
    os.close(fd)


def _unmount(path: str) -> None:
    try:
        syscalls.umount(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if (
            error.errno != errno.EINVAL
        ):  # EINVAL: a file without a mount, made by a creation that was cut short
            raise


def _is_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == syscalls.CLONE_NEWNET
    except OSError:
        return False


def _starting_point() -> int:
    """A descriptor of the namespace a thread begins in (its creator's), kept for the thread's life."""
    fd = os.open("/proc/thread-self/ns/net", _OPEN)
    if os.path.samestat(os.fstat(fd), os.fstat(HOST.fd)):
        os.close(fd)
        fd = HOST.fd
    _thread.fd = fd
    return fd
