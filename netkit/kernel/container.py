"""Starts processes in namespaces of their own (containers) and in those of a running container (exec).

Called by the runtime process of a node (`netkit.node.runtime`), which is the parent of everything started
here and must have one thread. One `clone` makes the process: process 1 of a new PID namespace (or one more of a
namespace that is shared) with its own mount, UTS and IPC namespaces, in the pod's network namespace, tied to its
parent's life by PR_SET_PDEATHSIG. Must not wait for anything: the caller reads `Spawned.status` when it is readable.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from netkit.kernel import syscalls
from netkit.kernel.container_capabilities import ALL, to_drop
from netkit.kernel.container_clone import clone
from netkit.kernel.container_root import Bind, enter_root
from netkit.kernel.pty_process import make_terminal, take_terminal

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEW_VIEW: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS
_PR_CAPBSET_DROP: Final = 24

__all__ = [
    "Bind",
    "Credentials",
    "Isolation",
    "Program",
    "Spawned",
    "StartFailure",
    "Stdio",
    "enter",
    "outcome",
    "start",
]


class StartFailure(Exception):
    """The process could not be started; the text says why as container runtimes word it.

    `errno` is 0 when no system call failed. `missing` means the program was not found.
    """

    def __init__(self, text: str, errno: int = 0, *, missing: bool = False) -> None:
        super().__init__(text)
        self.errno = errno
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Credentials:
    """User, groups and capabilities (names without CAP_) the program runs with."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: frozenset[str] = ALL


@dataclass(frozen=True, slots=True)
class Program:
    """What to execute: `argv[0]` is looked up in `env["PATH"]` inside the container.

    `reap_orphans` has the kernel collect zombies for a process 1 that does not wait for children.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    credentials: Credentials = Credentials()
    reap_orphans: bool = False


@dataclass(frozen=True, slots=True)
class Isolation:
    """Where a new container lives.

    `network` is the path of a network namespace, `root` the lower layer of its file system, `scratch` an
    existing empty directory of the machine, `masked` directories that shall look empty inside; with
    `read_only` only what is mounted by `binds` can be written. `neighbour` is the pidfd of a process whose PID
    namespace is joined; without one and without `own_processes` it is the caller's, as IPC is without `own_ipc`.
    """

    network: str
    hostname: str
    scratch: str
    root: str = "/"
    binds: tuple[Bind, ...] = ()
    masked: tuple[str, ...] = ()
    read_only: bool = False
    own_processes: bool = True
    own_ipc: bool = True
    neighbour: int = -1


@dataclass(frozen=True, slots=True)
class Stdio:
    """Descriptors the program gets as 0, 1, 2.

    With `console`, the descriptor of a socket, they are a terminal made inside the container instead, whose
    master `pty_process.take_master` takes from the socket's other end.
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    console: int = -1


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process on its way. `status` yields end of file when the program runs, or a failure for `outcome`.

    The caller owns both descriptors.
    """

    pid: int
    pidfd: int
    status: int


def outcome(report: bytes) -> None:
    """Raise the `StartFailure` that `Spawned.status` reported; an empty report means the program runs."""
    if report:
        number, missing, text = report.decode("utf-8", "replace").split("\0", 2)
        raise StartFailure(text, int(number), missing=missing == "1")


def start(program: Program, isolation: Isolation, stdio: Stdio) -> Spawned:
    """Start a container whose main process is `program`. Raises `StartFailure` when no process could be made.

    It is process 1 of a PID namespace that ends with it, unless `isolation` says otherwise: then its children may
    outlive it, and the caller has to end them (`process_usage.by_mount_namespace`).
    """
    try:
        network = os.open(isolation.network, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StartFailure(
            f"network namespace {isolation.network}: {error.strerror}", error.errno or 0
        ) from error

    def prepare() -> None:
        syscalls.setns(network, syscalls.CLONE_NEWNET)
        socket.sethostname(isolation.hostname)
        enter_root(
            isolation.root,
            isolation.scratch,
            isolation.binds,
            isolation.masked,
            read_only=isolation.read_only,
        )

    flags = _NEW_VIEW | (syscalls.CLONE_NEWIPC if isolation.own_ipc else 0)
    try:
        if isolation.neighbour >= 0:
            with _among(isolation.neighbour):
                return _spawn(program, stdio, flags, prepare)
        return _spawn(
            program, stdio, flags | (syscalls.CLONE_NEWPID if isolation.own_processes else 0), prepare
        )
    finally:
        os.close(network)


def enter(pidfd: int, pid: int, program: Program, stdio: Stdio) -> Spawned:
    """Start `program` in all namespaces of a running container's process 1; it dies with the container.

    `pidfd` guards against a reused `pid`. Raises `StartFailure` when the container is gone.
    """

    def prepare() -> None:
        syscalls.setns(pidfd, _NEW_VIEW | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET)

    with _among(pidfd, pid):
        return _spawn(program, stdio, 0, prepare)


@contextlib.contextmanager
def _among(pidfd: int, pid: int = 0) -> Iterator[None]:
    """What is cloned in this block comes to life in the PID namespace of that process. Raises `StartFailure`."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            syscalls.setns(pidfd, syscalls.CLONE_NEWPID)
        except OSError as error:
            which = f"container process {pid}" if pid else "the process whose namespace is shared"
            raise StartFailure(f"{which} is gone: {error.strerror}", error.errno or 0) from error
        try:
            yield
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
    finally:
        os.close(own)


def _spawn(program: Program, stdio: Stdio, flags: int, prepare: Callable[[], None]) -> Spawned:
    report, report_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    dropped = _capabilities_to_drop(program.credentials.capabilities)
    # No signal may run a handler in the child: it would write to the parent's event loop.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = clone(flags)
        if pid == 0:
            _run_child(program, stdio, prepare, report_end, dropped)
    except OSError as error:
        os.close(report)
        raise StartFailure(f"clone: {error.strerror}", error.errno or 0) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        os.close(report_end)
    return Spawned(pid, os.pidfd_open(pid), report)


def _capabilities_to_drop(kept: frozenset[str]) -> tuple[int, ...]:
    if kept >= ALL:
        return ()
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return to_drop(kept, int(file.read()))


def _run_child(
    program: Program, stdio: Stdio, prepare: Callable[[], None], report: int, dropped: tuple[int, ...]
) -> NoReturn:
    """From clone to exec. Never returns and never raises: what fails is written to `report`."""
    failure = ""
    number, missing = 0, False
    try:
        gc.disable()
        os.setsid()
        os.umask(0o022)
        prepare()
        _take_stdio(stdio, program.credentials.uid)
        _change_directory(program.workdir)
        _become(program.credentials, dropped)
        _tie_to_parent(report)
        _execute(program)
    except StartFailure as error:
        failure, number, missing = str(error), error.errno, error.missing
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failure, number = f"{where}{error.strerror}", error.errno or 0
    except BaseException as error:  # noqa: BLE001 - reported through the pipe; a traceback has no reader here
        failure = f"{type(error).__name__}: {error}"
    finally:
        with contextlib.suppress(OSError):
            os.write(report, f"{number}\0{int(missing)}\0{failure}".encode()[:4096])
        os._exit(128)


def _take_stdio(stdio: Stdio, uid: int) -> None:
    sources = (stdio.stdin, stdio.stdout, stdio.stderr)
    if stdio.console >= 0:
        sources = (make_terminal(stdio.console, uid),) * 3
    # Copies above 2 first: a source may itself be one of 0, 1, 2.
    copies = [os.dup(fd) if fd > 2 else _above_two(fd) for fd in sources]
    for target, fd in enumerate(copies):
        os.dup2(fd, target, inheritable=True)
    if stdio.console >= 0:
        take_terminal(0)


def _above_two(fd: int) -> int:
    held = []
    copy = os.dup(fd)
    while copy <= 2:
        held.append(copy)
        copy = os.dup(fd)
    for other in held:
        os.close(other)
    return copy


def _change_directory(workdir: str) -> None:
    try:
        os.chdir(workdir or "/")
    except FileNotFoundError:
        # Container engines make the working directory of an image or a pod when it is missing.
        os.makedirs(workdir, exist_ok=True)
        os.chdir(workdir)


def _become(credentials: Credentials, dropped: tuple[int, ...]) -> None:
    for number in dropped:
        syscalls.prctl(_PR_CAPBSET_DROP, number)
    if credentials.gid or credentials.groups or credentials.uid:
        os.setgroups(credentials.groups)
        os.setresgid(credentials.gid, credentials.gid, credentials.gid)
        os.setresuid(credentials.uid, credentials.uid, credentials.uid)


def _tie_to_parent(report: int) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above: then nobody holds the pipe's reading end.
    poller = select.poll()
    poller.register(report, 0)
    if any(events & select.POLLERR for _, events in poller.poll(0)):
        os._exit(137)


def _execute(program: Program) -> NoReturn:
    path = _find(program.argv[0], program.env.get("PATH", DEFAULT_PATH))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and ignored signals outlive exec
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN if program.reap_orphans else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(path, program.argv, dict(program.env))
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        raise StartFailure(
            f"unable to start container process: exec {path}: {reason}", error.errno or 0
        ) from error
    raise AssertionError("execve returned")


def _find(name: str, search_path: str) -> str:
    prefix = "unable to start container process: exec"
    if "/" in name:
        if not os.path.exists(name):
            raise StartFailure(f'{prefix}: "{name}": stat {name}: no such file or directory', 2, missing=True)
        if not _executable(name):
            raise StartFailure(f'{prefix}: "{name}": permission denied', 13)
        return name
    for folder in search_path.split(":"):
        candidate = f"{folder or '.'}/{name}"
        if _executable(candidate):
            return candidate
    raise StartFailure(f'{prefix}: "{name}": executable file not found in $PATH', 2, missing=True)


def _executable(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False
