"""Keeps a cluster's parts running: two processes that watch each other, one active, one standing by.

The active keeper starts each part by forking (everything is imported already, so a restart costs milliseconds),
watches it through its pidfd and starts it again when it dies. Which parts there shall be is a wish on disk that can
change: parts that are not wanted any more are ended, what the wanted ones need is made by a child of its own, then
they are started and the wish is answered. The standby watches only the active one and takes its place when it dies,
adopting the parts that run and the wish. So no single `kill -9` stops a cluster from healing.

Called by `up`. It is synchronous and single-threaded on purpose: forking is only safe that way.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Protocol

from netkit.kernel.file_watch import DirectoryWatch
from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all
from netkit.kernel.process import Child, fork_recorded, open_pidfd, start_time

log = logging.getLogger(__name__)

ACTIVE: Final = "keeper"
STANDBY: Final = "standby"
PREPARING: Final = "preparing"
STOPPING: Final = "stopping"
REFUSED: Final = 3
"""Exit status of who prepared in vain and said so."""

_BACKOFF: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS: Final = 10.0
_GRACE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the cluster: `main` runs in the child, its exit status is what `main` returns."""

    label: str
    main: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Wish:
    """The parts there shall be, in the order of their start. `asked` tells one wish from the next.

    Parts in `killed` end as by a power failure when they run; other unwanted ones may tidy up.
    """

    asked: str
    parts: tuple[Part, ...]
    killed: frozenset[str] = frozenset()


class Kept(Protocol):
    """What the keepers keep."""

    directory: Path
    """Where changes of the wish are seen."""

    def wish(self) -> Wish:
        """The wish as it is now."""

    def fulfilled(self) -> str:
        """`asked` of the last wish that was answered, "" when that could not be fulfilled."""

    def prepare(self, asked: str) -> int:
        """Make what the wish's parts need and remove what nobody needs any more. In a process of its own, once the
        unwanted parts have ended; again after a crash. 0 when all is well; REFUSED: `answer` has been called.
        """

    def answer(self, asked: str, error: str = "") -> None:
        """Say that the wish is fulfilled, or why not."""


@dataclass(slots=True)
class _Running:
    """A part that runs. `child` is None for one that an earlier keeper started; `kill_at` when it has to end."""

    label: str
    entry: Entry
    pidfd: int
    since: float
    child: Child | None = None
    kill_at: float | None = None


class Keeper:
    """`directory` is the cluster's state directory; a file `stopping` in it ends all restarts."""

    def __init__(self, directory: Path, ledger: Path, kept: Kept) -> None:
        self._directory = directory
        self._ledger_directory = ledger
        self._kept = kept
        self._parts: dict[str, Part] = {}
        self._answered = ""
        self._preparing = ""
        self._ledger = Ledger(ledger, ACTIVE)
        self._running: dict[int, _Running] = {}
        self._standby: Child | None = None
        self._watch: DirectoryWatch | None = None
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Be the active keeper until the cluster is taken down; never returns."""
        name_process(ACTIVE)
        self._record_self()
        self._watch = DirectoryWatch(self._kept.directory)
        self._poll.register(self._watch.fileno(), select.POLLIN)
        self._adopt()
        self._start_standby()
        while not self.stopping:
            self._follow()
            self._start_due()
            self._wait()
        os._exit(0)

    @property
    def stopping(self) -> bool:
        """Whether `down` is at work, or has been."""
        return (self._directory / STOPPING).exists() or not self._directory.is_dir()

    def _record_self(self) -> None:
        """A standby that takes over is on the ledger as standby: the same process is the keeper now."""
        started = start_time(os.getpid())
        assert started is not None
        self._ledger.intend(Entry.process(os.getpid(), started, ACTIVE))

    def _adopt(self) -> None:
        """Find the parts an earlier keeper started; whatever is wanted and does not run is due at once."""
        for entry in self._ledger.entries():
            if entry.kind is not EntryKind.PROCESS or entry.detail in (ACTIVE, STANDBY):
                continue
            pidfd = open_pidfd(*entry.pid_and_start())
            if pidfd is None:
                self._ledger.forget(entry)
                continue
            log.info("%s: adopted, process %s", entry.detail, entry.name)
            self._watch_part(_Running(entry.detail, entry, pidfd, time.monotonic()))
        self._answered = self._kept.fulfilled()
        wish = self._kept.wish()
        if wish.asked == self._answered:
            self._want(wish)

    def _watch_part(self, running: _Running) -> None:
        self._running[running.pidfd] = running
        self._poll.register(running.pidfd, select.POLLIN)

    def _runs(self, label: str) -> bool:
        return any(running.label == label for running in self._running.values())

    def _want(self, wish: Wish) -> None:
        """From now on these parts are kept."""
        self._parts = {part.label: part for part in wish.parts}
        for label in self._parts:
            if not self._runs(label):
                self._due.setdefault(label, 0.0)

    def _follow(self) -> None:
        """Take the next step towards the wish, if it is another one than the last."""
        wish = self._kept.wish()
        if wish.asked == self._answered or self._runs(PREPARING):
            return
        wanted = {part.label for part in wish.parts}
        self._parts = {label: part for label, part in self._parts.items() if label in wanted}
        self._due = {label: when for label, when in self._due.items() if label in wanted}
        leaving = [running for running in self._running.values() if running.label not in wanted]
        for running in leaving:
            self._end(running, abruptly=running.label in wish.killed)
        if not leaving:
            self._preparing = wish.asked
            child = fork_recorded(self._ledger, PREPARING, lambda: self._prepare(wish.asked))
            self._watch_part(_Running(PREPARING, child.entry, child.pidfd, time.monotonic(), child))

    def _end(self, running: _Running, *, abruptly: bool) -> None:
        """Tell a part to end, once; when it takes too long it is killed."""
        if running.kill_at is None:
            running.kill_at = time.monotonic() + _GRACE_SECONDS
            _signal(running.pidfd, signal.SIGKILL if abruptly else signal.SIGTERM)
        elif time.monotonic() >= running.kill_at:
            running.kill_at = float("inf")
            _signal(running.pidfd, signal.SIGKILL)

    def _prepare(self, asked: str) -> int:
        self._close_descriptors()
        name_process(PREPARING)
        self._ledger.close()
        return self._kept.prepare(asked)

    def _prepared(self, status: int | None) -> None:
        """What the wanted parts need is there, or is not.

        None, an earlier keeper's child, says nothing; and meanwhile something else may be wished.
        """
        wish = self._kept.wish()
        if status is None or wish.asked != self._preparing:
            return
        self._answered = wish.asked
        if status == 0:
            self._want(wish)
            self._start_due()
            self._kept.answer(wish.asked)
        elif status != REFUSED:
            self._kept.answer(wish.asked, f"the process that makes it so ended with status {status}")

    def _start_due(self) -> None:
        now = time.monotonic()
        for label in [label for label, when in self._due.items() if when <= now]:
            del self._due[label]
            part = self._parts[label]
            child = fork_recorded(self._ledger, label, lambda part=part: self._child(part))  # type: ignore[misc]
            self._watch_part(_Running(label, child.entry, child.pidfd, now, child))

    def _child(self, part: Part) -> int:
        self._close_descriptors()
        name_process(part.label)
        return part.main()

    def _close_descriptors(self) -> None:
        """In a child: what only the keeper needs."""
        for pidfd in self._running:
            os.close(pidfd)
        if self._standby is not None and self._standby.pidfd >= 0:
            os.close(self._standby.pidfd)
        if self._watch is not None:
            self._watch.close()

    def _wait(self) -> None:
        now = time.monotonic()
        until = min(
            (
                *self._due.values(),
                *(running.kill_at for running in self._running.values() if running.kill_at is not None),
                now + 3600.0,
            )
        )
        for fd, _ in self._poll.poll(max(0.0, until - now) * 1000):
            if self._watch is not None and fd == self._watch.fileno():
                self._watch.taken()
                continue
            self._poll.unregister(fd)
            if fd in self._running:
                self._ended(self._running.pop(fd))
            elif self._standby is not None:
                self._standby.wait()
                self._ledger.forget(self._standby.entry)
                if not self.stopping:
                    self._start_standby()

    def _ended(self, running: _Running) -> None:
        status = None
        if running.child is not None:
            status = running.child.wait()
        else:
            os.close(running.pidfd)
        self._ledger.forget(running.entry)
        label = running.label
        if label == PREPARING:
            self._prepared(status)
            return
        if label not in self._parts:
            log.info("%s: ended, as it should", label)
            self._failures.pop(label, None)
            return
        lived = time.monotonic() - running.since
        count = 0 if lived > _STEADY_SECONDS else self._failures.get(label, 0) + 1
        self._failures[label] = count
        delay = _BACKOFF[min(max(count - 1, 0), len(_BACKOFF) - 1)]
        log.warning("%s: ended after %.1f s with status %s, again in %.1f s", label, lived, status, delay)
        self._due[label] = time.monotonic() + delay

    def _start_standby(self) -> None:
        active = os.getpid()
        self._standby = fork_recorded(self._ledger, STANDBY, lambda: self._stand_by(active))
        self._poll.register(self._standby.pidfd, select.POLLIN)

    def _stand_by(self, active: int) -> int:
        """The standby: wait for the end of the active keeper (a pid), then be the active one."""
        self._close_descriptors()
        name_process(STANDBY)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _wait_for_parent(active)
        if self.stopping:
            return 0
        log.warning("keeper: process %d ended, the standby takes over", active)
        self._ledger.close()
        Keeper(self._directory, self._ledger_directory, self._kept).run()


def _signal(pidfd: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signum)


def _wait_for_parent(parent: int) -> None:
    """Return when the process that forked us is gone, also when it died before we looked."""
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    try:
        if os.getppid() == parent:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll()
    finally:
        os.close(pidfd)


def recorded_processes(ledger: Path) -> list[Entry]:
    """The processes on the cluster's ledgers, alive or not. `detail` is the part's label."""
    return [entry for entry in read_all(ledger) if entry.kind is EntryKind.PROCESS]


def name_process(label: str) -> None:
    """What `ps -o comm` shows; the kernel keeps 15 bytes."""
    Path("/proc/self/comm").write_text(f"nk:{label}"[:15], encoding="ascii")
