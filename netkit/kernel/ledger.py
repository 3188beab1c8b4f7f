"""The ledger: every thing made outside this process's memory is written down before it is made.

Called by whatever makes namespaces, host links, processes, mounts, directories or files; read by `teardown`.
One file `<owner>.jsonl` per owner (an agent, the supervisor) in the cluster's ledger directory, so that parts
never wait for each other. It makes and removes nothing itself.

Format, one JSON array a line: `["boot", ID]`, `["+", kind, name, detail]` before making, `["-", kind, name]`
after removing. A line is one write(2) on an O_APPEND descriptor: a crash leaves at most a torn last line, and
a torn line means that the thing was not made yet. Nothing is fsynced: a crash of the machine takes
namespaces, links, processes and mounts with it, which is why entries of another boot count for directories
and files only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX = ".jsonl"


class EntryKind(StrEnum):
    """What a ledger can name. `name` of an Entry is meant in the words given here."""

    NAMESPACE = "namespace"  # name in /run/netns
    LINK = "link"  # name of a link in the machine's own namespace
    PROCESS = "process"  # "<pid>:<start time in clock ticks since boot>"
    MOUNT = "mount"  # mount point in the machine's own mount namespace
    DIRECTORY = "directory"  # absolute path, removed with all it holds
    FILE = "file"  # absolute path


_VOLATILE = frozenset({EntryKind.NAMESPACE, EntryKind.LINK, EntryKind.PROCESS, EntryKind.MOUNT})


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing made. `kind` and `name` are its identity, `detail` is for people and for special cases."""

    kind: EntryKind
    name: str
    detail: str = ""

    @property
    def key(self) -> tuple[EntryKind, str]:
        return self.kind, self.name

    @classmethod
    def process(cls, pid: int, start_time: int, label: str = "") -> Entry:
        """The entry of a process, known by its pid and its start time (`process.start_time`)."""
        return cls(EntryKind.PROCESS, f"{pid}:{start_time}", label)

    def pid_and_start(self) -> tuple[int, int]:
        """(pid, start time) of a PROCESS entry. ValueError for any other."""
        if self.kind is not EntryKind.PROCESS:
            raise ValueError(f"{self.kind} {self.name} is not a process")
        pid, _, start = self.name.partition(":")
        return int(pid), int(start)


class Ledger:
    """The ledger of one owner in one cluster. Safe from several threads, and after a fork.

    `directory` is made when missing (and not recorded: `teardown` removes it with the last ledger). Opening
    an existing ledger continues it: `entries()` is what its earlier owner left standing.
    """

    def __init__(self, directory: Path, owner: str) -> None:
        if not owner or "/" in owner or owner.startswith("."):
            raise ValueError(f"bad ledger owner {owner!r}")
        self.directory = Path(directory)
        self.owner = owner
        self.path = self.directory / f"{owner}{_SUFFIX}"
        self._lock = threading.Lock()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()
        self._live = {entry.key: entry for entry in _read(self.path)}

    def intend(self, entry: Entry) -> None:
        """Record `entry`; on return the thing may be made. Raises OSError when it cannot be written."""
        with self._lock:
            self._append(["+", entry.kind, entry.name, entry.detail])
            self._live[entry.key] = entry

    def forget(self, entry: Entry) -> None:
        """The thing is gone. Forgetting what is not recorded does nothing."""
        with self._lock:
            if self._live.pop(entry.key, None) is not None:
                self._append(["-", entry.kind, entry.name])

    def entries(self) -> list[Entry]:
        """What is recorded and not forgotten, oldest first."""
        with self._lock:
            return list(self._live.values())

    def holds(self, kind: EntryKind, name: str) -> bool:
        """Whether this ledger names the thing."""
        with self._lock:
            return (kind, name) in self._live

    def close(self) -> None:
        """Close the file; the entries stay."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _append(self, line: list[str]) -> None:
        data = json.dumps(line).encode() + b"\n"
        written = os.write(self._fd, data)
        if written != len(data):
            # A full disk: close the torn line so that the next one is read.
            os.write(self._fd, b"\n")
            raise OSError(errno.ENOSPC, "ledger line cut short", str(self.path))

    def _open(self) -> int:
        """An append descriptor under a shared lock; the file is compacted first if nobody else has it."""
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                fcntl.flock(fd, fcntl.LOCK_SH)
                alone = False
            if not _same_file(fd, self.path):
                os.close(fd)
                continue
            if alone:
                # Rewriting in place would not be atomic; a new file takes the name, its writers open it
                # afresh.
                _write_file(self.path, _read(self.path))
                os.close(fd)
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_SH)
                if not _same_file(fd, self.path):
                    os.close(fd)
                    continue
            elif os.pread(fd, 1, max(0, os.fstat(fd).st_size - 1)) != b"\n":
                os.write(fd, b"\n")
            return fd


def read_all(directory: Path) -> list[Entry]:
    """Every live entry of every ledger in `directory`, each thing once, oldest first within an owner.

    A missing directory is an empty one. Lines that cannot be read are torn ones: they are left out with a
    warning.
    """
    found: dict[tuple[EntryKind, str], Entry] = {}
    for path in ledger_files(directory):
        for entry in _read(path):
            found.setdefault(entry.key, entry)
    return list(found.values())


def ledger_files(directory: Path) -> list[Path]:
    """The ledger files of a cluster, sorted by owner."""
    try:
        return sorted(path for path in Path(directory).iterdir() if path.name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []


def replace_all(directory: Path, remaining: Iterable[Entry]) -> None:
    """Make `remaining` the only entries of the cluster (file `teardown.jsonl`), or remove all ledgers if
    there are none.

    For `teardown` alone, after the processes that write ledgers are dead. Safe to be killed in: the new file
    is complete before the old ones go.
    """
    entries = list(remaining)
    target = Path(directory) / f"teardown{_SUFFIX}"
    if entries:
        _write_file(target, entries)
    for path in ledger_files(directory):
        if not entries or path != target:
            path.unlink(missing_ok=True)
    for path in Path(directory).glob(f".*{_SUFFIX}.*"):
        path.unlink(missing_ok=True)


@cache
def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write_file(path: Path, entries: Iterable[Entry]) -> None:
    lines = [["boot", boot_id()], *(["+", e.kind, e.name, e.detail] for e in entries)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    os.chmod(temporary, 0o600)
    os.replace(temporary, path)


def _read(path: Path) -> list[Entry]:
    """Live entries of one file, without what another boot took with it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    live: dict[tuple[EntryKind, str], tuple[Entry, str]] = {}
    boot = ""
    for number, text in enumerate(data.split(b"\n"), 1):
        if not text:
            continue
        try:
            line = json.loads(text)
            if line[0] == "boot":
                boot = str(line[1])
                continue
            entry = Entry(EntryKind(line[1]), str(line[2]), str(line[3]) if line[0] == "+" else "")
        except (ValueError, TypeError, IndexError, KeyError):
            log.warning("%s:%d: torn ledger line left out", path, number)
            continue
        if line[0] == "+":
            live[entry.key] = (entry, boot)
        else:
            live.pop(entry.key, None)
    return [entry for entry, then in live.values() if then == boot_id() or entry.kind not in _VOLATILE]
