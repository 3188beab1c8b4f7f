"""The directory of named namespaces, /run/netns, made as iproute2 makes it and put back as it was found.

Called by `netns.create` and `teardown`. The first `ip netns add` on a machine makes the directory,
bind-mounts it on itself and makes that mount shared, so that names mounted later are seen in (and unmounted
from) every mount namespace that came from this one. We do exactly the same if it has not been done, and write
down what we made in a record that all clusters of this machine share; the last cluster to go undoes it,
unless somebody else's names are in there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from netkit.kernel import syscalls
from netkit.kernel.errors import from_os_error
from netkit.kernel.ledger import Entry, EntryKind, Ledger, boot_id

NETNS_DIRECTORY: Final = "/run/netns"
"""Where iproute2 keeps the names (its /var/run/netns)."""

RECORD: Final = Path("/run/netkit.netns")
"""What netkit made of the directory on this machine, JSON; absent when it made nothing. Also the lock."""

_ensured: set[tuple[int, Path]] = set()


def entry() -> Entry:
    """The ledger entry of a cluster that relies on a directory which netkit made."""
    return Entry(EntryKind.MOUNT, NETNS_DIRECTORY, "shared between clusters")


def ensure_directory(ledger: Ledger, *, afresh: bool = False) -> None:
    """Make the namespace directory ready, recording in `ledger` what `restore` must undo.

    Looks once per process and cluster, and again when `afresh` is true. Raises KernelError.
    """
    me = (os.getpid(), ledger.directory)
    if me in _ensured and not afresh:
        return
    try:
        with _record() as (made, write):
            missing = [
                what
                for what, wanted in (
                    ("directory", not os.path.isdir(NETNS_DIRECTORY)),
                    ("mount", not _make_shared()),
                )
                if wanted
            ]
            if missing or made:
                ledger.intend(entry())
                write(sorted({*made, *missing}))
            if "directory" in missing:
                os.mkdir(NETNS_DIRECTORY, 0o755)
            if "mount" in missing:
                syscalls.mount(NETNS_DIRECTORY, NETNS_DIRECTORY, flags=syscalls.MS_BIND | syscalls.MS_REC)
                _make_shared()
    except OSError as error:
        raise from_os_error(error, f"mount --bind {NETNS_DIRECTORY} {NETNS_DIRECTORY}") from error
    _ensured.add(me)


def restore() -> None:
    """Undo what netkit made of the directory, if no name is left in it. Does nothing if netkit made nothing.

    Raises KernelError.
    """
    _ensured.clear()
    if not RECORD.exists():
        return
    try:
        with _record() as (made, write):
            if os.path.isdir(NETNS_DIRECTORY):
                if os.listdir(NETNS_DIRECTORY):
                    return
                if "mount" in made and not _unmount():
                    return
                if "directory" in made and not _remove():
                    write(["directory"])
                    return
            write([])
    except OSError as error:
        raise from_os_error(error, f"umount {NETNS_DIRECTORY}") from error


def _make_shared() -> bool:
    """Make the mount shared; False when it is no mount point yet, or is not there."""
    try:
        syscalls.mount("", NETNS_DIRECTORY, flags=syscalls.MS_SHARED | syscalls.MS_REC)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def _unmount() -> bool:
    """Take our mount away; False when somebody mounted a name meanwhile."""
    try:
        syscalls.umount(NETNS_DIRECTORY)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno != errno.EINVAL:
            raise
    return True


def _remove() -> bool:
    """Remove our directory; False when somebody made a name in it meanwhile."""
    try:
        os.rmdir(NETNS_DIRECTORY)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EBUSY):
            return False
        raise
    return True


@contextmanager
def _record() -> Iterator[tuple[list[str], _Writer]]:
    """The record, locked: what netkit made ("directory", "mount"), and how to write it; an empty one is
    removed.
    """
    while True:
        fd = os.open(RECORD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(fd), os.stat(RECORD)):
                break
        except FileNotFoundError:
            pass
        os.close(fd)
    try:
        writer = _Writer(fd)
        yield writer.read(), writer
        if not writer.made:
            RECORD.unlink()
    finally:
        os.close(fd)


class _Writer:
    """Reads and overwrites the locked record."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.made: list[str] = []

    def read(self) -> list[str]:
        text = os.pread(self._fd, 4096, 0)
        try:
            record = json.loads(text) if text else {}
        except ValueError:
            # Written by one that was killed in the act; claiming both is safe, as only what is unused is
            # undone.
            record = {"boot": boot_id(), "made": ["directory", "mount"]}
        self.made = record["made"] if record.get("boot") == boot_id() else []
        return self.made

    def __call__(self, made: list[str]) -> None:
        self.made = made
        data = json.dumps({"boot": boot_id(), "made": made}).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)
