"""Keeps a cluster's parts running: two processes that watch each other, one active, one standing by.

The active keeper starts each part by forking (everything is imported already, so a restart costs milliseconds),
watches it through its pidfd and starts it again when it dies. The standby watches only the active one and takes
its place when it dies, adopting the parts that run. So no single `kill -9` stops a cluster from healing.

Called by `up`. It is synchronous and single-threaded on purpose: forking is only safe that way.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all
from netkit.kernel.process import Child, fork_recorded, open_pidfd, start_time

log = logging.getLogger(__name__)

ACTIVE: Final = "keeper"
STANDBY: Final = "standby"
STOPPING: Final = "stopping"
_BACKOFF: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the cluster: `main` runs in the child, its exit status is what `main` returns."""

    label: str
    main: Callable[[], int]


@dataclass(slots=True)
class _Running:
    """A part that runs. `child` is None for a part that an earlier keeper started."""

    part: Part
    entry: Entry
    pidfd: int
    since: float
    child: Child | None = None


class Keeper:
    """`directory` is the cluster's state directory; a file `stopping` in it ends all restarts."""

    def __init__(self, directory: Path, ledger: Path, parts: Sequence[Part]) -> None:
        self._directory = directory
        self._ledger_directory = ledger
        self._parts = parts
        self._ledger = Ledger(ledger, ACTIVE)
        self._running: dict[int, _Running] = {}
        self._standby: Child | None = None
        self._due: list[tuple[float, Part]] = []
        self._failures: dict[str, int] = {}
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Be the active keeper until the cluster is taken down; never returns."""
        name_process(ACTIVE)
        self._record_self()
        self._adopt()
        self._start_standby()
        while not self.stopping:
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
        """Find the parts an earlier keeper started; whatever does not run is due at once."""
        found: dict[str, tuple[Entry, int]] = {}
        for entry in recorded_processes(self._ledger_directory):
            pidfd = open_pidfd(*entry.pid_and_start())
            if pidfd is None:
                self._ledger.forget(entry)
            else:
                found[entry.detail] = (entry, pidfd)
        for part in self._parts:
            if part.label not in found:
                self._due.append((0.0, part))
                continue
            entry, pidfd = found.pop(part.label)
            log.info("%s: adopted, process %s", part.label, entry.name)
            self._watch(_Running(part, entry, pidfd, time.monotonic()))
        for _, pidfd in found.values():
            os.close(pidfd)

    def _watch(self, running: _Running) -> None:
        self._running[running.pidfd] = running
        self._poll.register(running.pidfd, select.POLLIN)

    def _start_due(self) -> None:
        now = time.monotonic()
        for item in [item for item in self._due if item[0] <= now]:
            self._due.remove(item)
            part = item[1]
            child = fork_recorded(self._ledger, part.label, lambda part=part: self._child(part))  # type: ignore[misc]
            self._watch(_Running(part, child.entry, child.pidfd, now, child))

    def _child(self, part: Part) -> int:
        self._close_pidfds()
        name_process(part.label)
        return part.main()

    def _close_pidfds(self) -> None:
        for pidfd in self._running:
            os.close(pidfd)
        if self._standby is not None and self._standby.pidfd >= 0:
            os.close(self._standby.pidfd)

    def _wait(self) -> None:
        now = time.monotonic()
        until = min((when for when, _ in self._due), default=now + 3600.0)
        for pidfd, _ in self._poll.poll(max(0.0, until - now) * 1000):
            self._poll.unregister(pidfd)
            if pidfd in self._running:
                self._ended(self._running.pop(pidfd))
            elif self._standby is not None:
                self._standby.wait()
                self._ledger.forget(self._standby.entry)
                if not self.stopping:
                    self._start_standby()

    def _ended(self, running: _Running) -> None:
        status = "unknown"
        if running.child is not None:
            status = str(running.child.wait())
        else:
            os.close(running.pidfd)
        self._ledger.forget(running.entry)
        label = running.part.label
        lived = time.monotonic() - running.since
        count = 0 if lived > _STEADY_SECONDS else self._failures.get(label, 0) + 1
        self._failures[label] = count
        delay = _BACKOFF[min(max(count - 1, 0), len(_BACKOFF) - 1)]
        log.warning("%s: ended after %.1f s with status %s, again in %.1f s", label, lived, status, delay)
        self._due.append((time.monotonic() + delay, running.part))

    def _start_standby(self) -> None:
        active = os.getpid()
        self._standby = fork_recorded(self._ledger, STANDBY, lambda: self._stand_by(active))
        self._poll.register(self._standby.pidfd, select.POLLIN)

    def _stand_by(self, active: int) -> int:
        """The standby: wait for the end of the active keeper (a pid), then be the active one."""
        self._close_pidfds()
        name_process(STANDBY)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _wait_for_parent(active)
        if self.stopping:
            return 0
        log.warning("keeper: process %d ended, the standby takes over", active)
        self._ledger.close()
        Keeper(self._directory, self._ledger_directory, self._parts).run()


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
