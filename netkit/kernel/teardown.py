"""Teardown: removes exactly what the ledgers of one cluster name, whatever state it is in.

Called by `netkit down`, by a supervisor that ends, and by `netkit up` when it finds the remains of a crash.
It looks at nothing but the ledgers: never at name patterns. Right after `kill -9` at any moment, and safe to
repeat: what is gone already counts as removed, and a pid in use by somebody else is known by its start time.

Order: processes first, so that nobody makes anew what is removed (and what they wrote meanwhile is read
again); then host links; all namespaces at once; mounts, deepest first; files and directories last. Every step
goes on after a failure; all failures come in one ExceptionGroup and stay on the ledger for the next try.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from netkit.kernel import netns, netns_directory, process, syscalls
from netkit.kernel.errors import KernelError, TimedOut, from_os_error
from netkit.kernel.ledger import Entry, EntryKind, Ledger, ledger_files, read_all, replace_all
from netkit.kernel.netns import HOST
from netkit.kernel.rtnl import Rtnl, link_delete

log = logging.getLogger(__name__)

_LINK_PATIENCE: Final = 5.0
_ROUNDS_OF_PROCESSES: Final = 5


def teardown(directory: Path, *, grace: float = 2.0) -> None:
    """Remove everything the ledgers in `directory` name, then the ledgers and (if empty) the directory.

    `grace`: seconds processes get between SIGTERM and SIGKILL. The calling process itself is spared. Two
    callers wait for each other. Raises ExceptionGroup of KernelErrors after having done all it can; nothing
    there is nothing to do.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return
    began = time.monotonic()
    with _alone(directory):
        failed: dict[Entry, Exception] = {}
        entries = _end_processes(directory, grace, failed)
        own, others = _split_by(entries, directory)
        _remove(others, failed)
        _of_kind(
            own, EntryKind.DIRECTORY, lambda entry: _empty(Path(entry.name), directory.resolve()), failed
        )
        replace_all(directory, [*failed, *(own if failed else ())])
        if not failed:
            _remove_ledger_directory(directory)
            _of_kind(own, EntryKind.DIRECTORY, _remove_directory, failed)
    took = (time.monotonic() - began) * 1000
    log.info("%s: %d things removed, %d failed, in %.0f ms", directory, len(entries), len(failed), took)
    if failed:
        raise ExceptionGroup(f"teardown of {directory}", list(failed.values()))


def end_owner(directory: Path, owner: str) -> None:
    """Kill the processes that the ledger of one owner names, as when its power fails; all else of it stays.

    Raises KernelError when one does not end.
    """
    if owner not in (path.stem for path in ledger_files(Path(directory))):
        return
    with Ledger(directory, owner) as ledger:
        running = [entry for entry in ledger.entries() if entry.kind is EntryKind.PROCESS]
        failed = process.terminate_all((entry.pid_and_start() for entry in running), grace=0.0)
        if failed:
            raise failed[0]
        for entry in running:
            ledger.forget(entry)


def remove_owner(directory: Path, owner: str) -> None:
    """Remove everything that the ledger of one owner names, and that ledger; the owner's process must have ended.

    What others rely on too, the directory of namespaces, stays while there are names in it: they have recorded it.

    Raises ExceptionGroup of KernelErrors after having done all it can; what is left stays on the ledger.
    """
    with _alone(directory):
        if owner not in (path.stem for path in ledger_files(directory)):
            return
        failed: dict[Entry, Exception] = {}
        with Ledger(directory, owner) as ledger:
            entries = ledger.entries()
            running = [entry.pid_and_start() for entry in entries if entry.kind is EntryKind.PROCESS]
            process.terminate_all(running, grace=0.0)
            _remove(entries, failed)
            for entry in entries:
                if entry not in failed:
                    ledger.forget(entry)
            if not failed:
                ledger.path.unlink()
    if failed:
        raise ExceptionGroup(f"removal of what {owner} made", list(failed.values()))


def _remove(entries: list[Entry], failed: dict[Entry, Exception]) -> None:
    """Remove all but processes and directories that hold ledgers, in the order that the kernel asks for."""
    _of_kind(entries, EntryKind.LINK, _remove_link, failed)
    _remove_namespaces([e for e in entries if e.kind is EntryKind.NAMESPACE], failed)
    _remove_mounts([e for e in entries if e.kind is EntryKind.MOUNT], failed)
    _of_kind(entries, EntryKind.FILE, _remove_file, failed)
    _of_kind(entries, EntryKind.DIRECTORY, _remove_directory, failed)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _end_processes(directory: Path, grace: float, failed: dict[Entry, Exception]) -> list[Entry]:
    """End the recorded processes until no new ones appear on the ledgers; all entries, read at the end."""
    for _ in range(_ROUNDS_OF_PROCESSES):
        entries = read_all(directory)
        running = []
        for entry in entries:
            if entry.kind is EntryKind.PROCESS:
                pid, start = entry.pid_and_start()
                if pid != os.getpid() and process.alive(pid, start):
                    running.append(entry)
        if not running:
            return entries
        process.terminate_all((entry.pid_and_start() for entry in running), grace)
    for entry in running:
        if process.alive(*entry.pid_and_start()):
            failed[entry] = TimedOut(f"kill {entry.name}", stderr=f"{entry.detail or 'process'} does not end")
    return read_all(directory)


def _of_kind(
    entries: Iterable[Entry], kind: EntryKind, remove: Callable[[Entry], None], failed: dict[Entry, Exception]
) -> None:
    for entry in entries:
        if entry.kind is kind:
            try:
                remove(entry)
            except KernelError as error:
                failed[entry] = error
            except OSError as error:
                failed[entry] = from_os_error(error, f"remove {kind} {entry.name}")


def _remove_link(entry: Entry) -> None:
    """Delete a host link now: its other end may live in a namespace that somebody's shell keeps alive."""
    with Rtnl(HOST) as host:
        host.apply(link_delete(entry.name).allowing(errno.ENODEV))
        deadline = time.monotonic() + _LINK_PATIENCE
        while host.link_index(entry.name) is not None:
            if time.monotonic() > deadline:
                raise TimedOut(f"ip link delete {entry.name}", stderr="still there")
            time.sleep(0.002)


def _remove_namespaces(entries: list[Entry], failed: dict[Entry, Exception]) -> None:
    by_name = {entry.name: entry for entry in entries}
    for name, error in netns.delete_all(list(by_name)).items():
        failed[by_name[name]] = error


def _remove_mounts(entries: list[Entry], failed: dict[Entry, Exception]) -> None:
    """Unmount, deepest first; the namespace directory last, as it is shared by all clusters."""
    shared = [entry for entry in entries if entry.name == netns_directory.NETNS_DIRECTORY]
    own = sorted((e for e in entries if e not in shared), key=lambda e: e.name.count("/"), reverse=True)
    _of_kind(own, EntryKind.MOUNT, _unmount, failed)
    _of_kind(shared, EntryKind.MOUNT, lambda _: netns_directory.restore(), failed)


def _unmount(entry: Entry) -> None:
    """Unmount until nothing of ours is left on the mount point."""
    while True:
        try:
            syscalls.umount(entry.name, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def _remove_file(entry: Entry) -> None:
    Path(entry.name).unlink(missing_ok=True)


def _remove_directory(entry: Entry) -> None:
    """Remove a directory with all it holds, but never through a mount point."""
    path = Path(entry.name)
    operation = f"rm -r {path}"
    if not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts:
        raise KernelError(operation, stderr="refused: not a path a ledger may name")
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    inside = [point for point in _mount_points() if point == path or path in point.parents]
    if inside:
        raise KernelError(
            operation,
            errno=errno.EBUSY,
            stderr=f"something is mounted on {inside[0]}",
            hint="unmount it first",
        )
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def _empty(path: Path, ledgers: Path) -> None:
    """Remove what a directory holds but the ledgers, which go when everything else is gone."""
    if path.resolve() == ledgers or not path.is_dir():
        return
    for child in path.iterdir():
        if child.resolve() == ledgers or child.resolve() in ledgers.parents:
            _empty(child, ledgers)
        else:
            _remove_directory(Entry(EntryKind.DIRECTORY, str(child)))


def _remove_ledger_directory(directory: Path) -> None:
    """The directory itself, unless others keep files in it."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
            raise


def _split_by(entries: list[Entry], directory: Path) -> tuple[list[Entry], list[Entry]]:
    """(directories that hold the ledgers themselves, everything else)."""
    place = directory.resolve()
    own = [
        entry
        for entry in entries
        if entry.kind is EntryKind.DIRECTORY and Path(entry.name).resolve() in (place, *place.parents)
    ]
    return own, [entry for entry in entries if entry not in own]


def _mount_points() -> list[Path]:
    """Mount points of this mount namespace."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        text = line.split()[4]
        points.append(Path(text.encode().decode("unicode_escape") if "\\" in text else text))
    return points
