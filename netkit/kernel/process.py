"""Processes: running commands in namespaces, and children that are on the ledger before they do anything.

Called by the drivers that need a command (`iptables-restore`, ...), by the supervisor and by the node's
runtime. No shell is ever involved. Everything here blocks for at most the time it is told: call it in a
thread where that matters.

A pid alone does not name a process, since pids are used again; a pid with its start time does. Signals go
through a pidfd, opened first and checked against the start time afterwards, so that they cannot reach a
stranger.

The pattern of `fork_recorded`: the child waits on a pipe until its parent has written the ledger entry. If
the parent dies before that, the pipe closes and the child ends without having done anything. So there is no
moment at which a process works that no ledger names.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from netkit.kernel import netns, syscalls
from netkit.kernel.errors import CommandFailed, KernelError, TimedOut, Unsupported, from_os_error
from netkit.kernel.ledger import Entry, Ledger
from netkit.kernel.netns import Namespace

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT: Final = 30.0
_fork_lock = threading.Lock()
_SIGNALS_OF_A_LOOP = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. `returncode` is negative when a signal ended it."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    def check(self, namespace: str = "") -> Completed:
        """Itself, or CommandFailed when `returncode` is not 0."""
        if self.returncode != 0:
            raise CommandFailed(
                " ".join(self.argv), namespace, self.returncode, self.stderr.decode(errors="replace")
            )
        return self


def run(
    argv: Sequence[str],
    *,
    ns: Namespace | None = None,
    input: bytes = b"",
    timeout: float = DEFAULT_TIMEOUT,
    env: Mapping[str, str] | None = None,
    check: bool = False,
) -> Completed:
    """Run a command to its end, in `ns` if given, and return what it wrote.

    `timeout` in seconds: then it is killed and TimedOut raised. `env` is added to this process's environment.
    `check` raises CommandFailed for a status other than 0. Unsupported when the command does not exist.
    Blocks: use a thread from a loop.
    """
    where = ns.name if ns else ""
    environment = {**os.environ, **env} if env else None
    try:
        with netns.entered(ns) if ns is not None else contextlib.nullcontext():
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
    except FileNotFoundError as error:
        raise Unsupported(
            " ".join(argv), where, errno.ENOENT, hint=f"install the package that has {argv[0]}"
        ) from error
    except OSError as error:
        raise from_os_error(error, " ".join(argv), where) from error
    with child:
        try:
            stdout, stderr = child.communicate(input or None, timeout)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise TimedOut(" ".join(argv), where, stderr=f"killed after {timeout:g} s") from error
        except BaseException:
            child.kill()
            raise
    done = Completed(tuple(argv), child.returncode, stdout, stderr)
    return done.check(where) if check else done


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is no such process (or only its
    zombie).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, start: int) -> bool:
    """Whether the process that had `pid` and start time `start` still runs."""
    return start_time(pid) == start


def open_pidfd(pid: int, start: int) -> int | None:
    """A pidfd of exactly that process, or None when it is gone. The caller closes it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_time(pid) != start:
        os.close(fd)
        return None
    return fd


def terminate(pid: int, start: int, grace: float = 2.0) -> None:
    """End one process: SIGTERM, after `grace` seconds SIGKILL. Returns when it is dead; fine if it is dead
    already.
    """
    failed = terminate_all([(pid, start)], grace)
    if failed:
        raise failed[0]


def terminate_all(processes: Iterable[tuple[int, int]], grace: float = 2.0) -> list[KernelError]:
    """End many processes (pid, start time) in parallel: SIGTERM to all, after `grace` seconds SIGKILL to the
    rest.

    Does not reap: a dead child of this process stays a zombie until its parent waits. Returns what could not
    be ended, and never signals this process itself.
    """
    failed: list[KernelError] = []
    open_fds: dict[int, int] = {}
    try:
        for pid, start in processes:
            if pid == os.getpid():
                continue
            try:
                fd = open_pidfd(pid, start)
            except OSError as error:
                failed.append(from_os_error(error, f"pidfd_open {pid}"))
                continue
            if fd is not None:
                open_fds[fd] = pid
        waiting = set(open_fds)
        for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for fd in waiting:
                try:
                    signal.pidfd_send_signal(fd, signum)
                    # A stopped process takes SIGTERM only when it continues.
                    if signum == signal.SIGTERM:
                        signal.pidfd_send_signal(fd, signal.SIGCONT)
                except ProcessLookupError:
                    continue
                except OSError as error:
                    failed.append(from_os_error(error, f"kill -{signum.name} {open_fds[fd]}"))
            waiting = _wait_dead(waiting, patience)
            if not waiting:
                break
        failed.extend(TimedOut(f"kill -SIGKILL {open_fds[fd]}", stderr="still there") for fd in waiting)
    finally:
        for fd in open_fds:
            os.close(fd)
    return failed


def set_parent_death_signal(signum: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the kernel send `signum` to this process when its parent *thread* dies.

    Called in a child; `parent` is the pid the parent had before the fork: if it is dead by now, this process
    ends at once. The setting does not survive exec of a set-uid program.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, int(signum))
    if parent is not None and os.getppid() != parent:
        os._exit(128 + int(signum))


@dataclass(slots=True)
class Child:
    """A running child of this process. `entry` is its ledger entry; forget it after the child has been waited
    for.
    """

    pid: int
    start_time: int
    pidfd: int
    label: str = ""
    returncode: int | None = field(default=None)

    @property
    def entry(self) -> Entry:
        return Entry.process(self.pid, self.start_time, self.label)

    def poll(self) -> int | None:
        """Exit status (negative: by that signal) if it has ended, else None. Reaps it."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended (`timeout` seconds at most, then TimedOut) and return its exit status."""
        if self.returncode is None and timeout is not None and _wait_dead({self.pidfd}, timeout):
            raise TimedOut(f"wait for {self.label or self.pid}", stderr=f"not ended after {timeout:g} s")
        status = self._reap(0)
        assert status is not None
        return status

    async def exited(self) -> int:
        """Wait in the running loop until it has ended; its exit status."""
        if self.returncode is None:
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            loop.add_reader(self.pidfd, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(self.pidfd)
        return self.wait()

    def send_signal(self, signum: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    def terminate(self, grace: float = 2.0) -> int:
        """SIGTERM, after `grace` seconds SIGKILL; waits and returns the exit status. Blocks."""
        if self.returncode is None:
            self.send_signal(signal.SIGTERM)
            if _wait_dead({self.pidfd}, grace):
                self.send_signal(signal.SIGKILL)
        return self.wait()

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | options)
            except ChildProcessError:
                # Somebody waited for every child of this process; the status went there.
                self.returncode = 255
            else:
                if ended is None:
                    return None
                by_signal = ended.si_code != os.CLD_EXITED
                self.returncode = -ended.si_status if by_signal else ended.si_status
            os.close(self.pidfd)
            self.pidfd = -1
        return self.returncode


def fork_recorded(
    ledger: Ledger,
    label: str,
    child_main: Callable[[], int],
    *,
    parent_death_signal: int = 0,
    ns: Namespace | None = None,
) -> Child:
    """Fork a child that runs `child_main` and ends with the status it returns; on the ledger before it runs.

    The child starts with default signal handlers and without the parent's wake-up descriptor; an exception in
    `child_main` is logged and ends it with status 1. `parent_death_signal` (0: none) is sent to it when the
    forking thread dies. `ns`: it starts inside that namespace. If the ledger cannot be written the child ends
    unused and the error is raised. The caller waits for the child and then does `ledger.forget(child.entry)`.
    """
    parent = os.getpid()
    with _fork_lock:
        go_read, go_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes before the child has its own handlers would go to the parent's, and be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_A_LOOP)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(go_write)
                _child(go_read, label, child_main, parent, parent_death_signal, ns)
        except OSError as error:
            os.close(go_write)
            raise from_os_error(error, f"fork of {label}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(go_read)
        try:
            started = start_time(pid)
            if started is None:
                raise KernelError(f"fork of {label}", errno=errno.ESRCH, stderr="killed before it began")
            ledger.intend(Entry.process(pid, started, label))
            pidfd = os.pidfd_open(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(go_write, b"g")
        except BaseException:
            os.close(go_write)
            os.waitpid(pid, 0)
            raise
        os.close(go_write)
    return Child(pid, started, pidfd, label)


def exec_program(argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Replace this process by a program (for a `child_main`); pid and start time stay. 127 or 126 when it
    cannot.
    """
    try:
        os.execvpe(argv[0], list(argv), dict(os.environ if env is None else env))
    except OSError as error:
        log.error("%s: %s", argv[0], error.strerror)
        return 127 if error.errno == errno.ENOENT else 126


def _child(
    go_read: int,
    label: str,
    child_main: Callable[[], int],
    parent: int,
    parent_death_signal: int,
    ns: Namespace | None,
) -> NoReturn:
    """The forked child's whole life. Never returns into the parent's code."""
    global _fork_lock
    code = 1
    try:
        # Copied while the parent's thread held it: this child may want to fork as well.
        _fork_lock = threading.Lock()
        signal.set_wakeup_fd(-1)
        for signum in _SIGNALS_OF_A_LOOP:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS_OF_A_LOOP)
        if parent_death_signal:
            set_parent_death_signal(parent_death_signal, parent)
        recorded = os.read(go_read, 1)
        os.close(go_read)
        if not recorded:
            os._exit(0)
        if ns is not None:
            netns.enter(ns)
        code = child_main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        log.exception("%s: ended by an exception", label)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait_dead(pidfds: set[int], timeout: float) -> set[int]:
    """Wait until all have ended or `timeout` seconds are over; those that have not."""
    poller = select.poll()
    waiting = set(pidfds)
    for fd in waiting:
        poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while waiting:
        for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            poller.unregister(fd)
            waiting.discard(fd)
        if time.monotonic() >= deadline:
            break
    return waiting
