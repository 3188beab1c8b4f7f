"""What one run in a guest is asked for, the script the guest runs for it, and the directory they meet in.

The script is rendered by a pure function. The directory lies on the host (in $TMPDIR), is the only place the guest
may write to besides those it is given, and goes with the run; one whose runner was killed goes at the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PREFIX = "kube-netkit-uml."
_LOCK = "lock"
_YOUNG = 60.0
"""Seconds after which a directory without a locked lock file is nobody's. Younger ones may be just being made."""

_COVERED = (Path("/tmp"), Path("/run"), Path("/dev/shm"))
"""Where the guest has a file system of its own over the host's."""
_UNMOUNTABLE = frozenset(",:\\ \t\n\"'")
"""What the options of mount(8) cannot hold."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command for a guest.

    `seconds` is its time limit, `memory` the guest's RAM in bytes, `kernel` the path of a user-mode kernel.
    Changes below `writable` reach the host; all others are the guest's own and gone with it. `visible` are
    directories of the host below /tmp or /run, where the guest has its own, that shall be seen besides `cwd`.
    ValueError for a directory that cannot be mounted.
    """

    command: tuple[str, ...]
    kernel: str
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    memory: int = 768 << 20
    seconds: float = 600.0
    writable: tuple[Path, ...] = ()
    visible: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("no command")
        for path in (*self.writable, *self._shown()):
            if not path.is_absolute() or not path.is_dir():
                raise ValueError(f"{path} is no directory")
            if _UNMOUNTABLE & set(str(path)):
                raise ValueError(
                    f"{path} cannot be mounted in a guest: its name has one of , : \\ space quotes"
                )

    def script(self) -> str:
        """The shell script that process 1 of the guest becomes."""
        return "".join(f"{line}\n" for line in self._lines())

    def _shown(self) -> list[Path]:
        """Directories that the guest's own file systems would hide."""
        wanted = dict.fromkeys((self.cwd, *self.visible))
        return [
            path for path in wanted if path not in _COVERED and any(path.is_relative_to(c) for c in _COVERED)
        ]

    def _lines(self) -> Iterator[str]:
        yield "#!/bin/sh"
        yield 'fail() { echo "guest.sh: cannot show $1"; echo o >/proc/sysrq-trigger; sleep 10; }'
        yield "echo uml >/proc/sys/kernel/hostname"
        yield "ip link set lo up"
        for number, path in enumerate(self._shown()):
            place, own = shlex.quote(str(path)), f"/run/uml/shown/{number}"
            layers = f"lowerdir=/run/uml/old{path},upperdir={own}/upper,workdir={own}/work"
            yield f"mkdir -p {place} {own}/upper {own}/work"
            yield f"mount -t overlay -o {layers} overlay {place} || fail {place}"
        for path in self.writable:
            place = shlex.quote(str(path))
            yield f"mkdir -p {place}; mount -t hostfs -o {place} hostfs {place} || fail {place}"
        yield "umount -l /run/uml/old"
        # Everything else loads itself when it is asked for, but the settings of these are not there before.
        yield "modprobe --quiet --all br_netfilter ip_vs"
        for name, value in self.env.items():
            if name.isidentifier() and name.isascii():
                yield f"export {name}={shlex.quote(value)}"
        # Terminals turn \n into \r\n unless told not to.
        yield "stty -opost </dev/tty1; stty -opost </dev/tty2"
        # timeout(1) makes the command its own process group and kills all of it.
        limited = f"exec setsid timeout -k 5 {max(1, round(self.seconds))} {shlex.join(self.command)}"
        yield f"(cd {shlex.quote(str(self.cwd))} && {limited}) </dev/null >/dev/tty1 2>/dev/tty2"
        yield "status=$?"
        # Changing a terminal waits until all that was written to it is out.
        yield "stty opost </dev/tty1; stty opost </dev/tty2"
        yield "echo $status >/run/uml/job/status"
        yield "sync"
        yield "echo o >/proc/sysrq-trigger"
        yield "sleep 10"


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """The directory of one run, locked as long as the run's process lives. Make it with `created`."""

    path: Path

    @classmethod
    @contextlib.contextmanager
    def created(cls, *, keep: bool = False) -> Iterator[JobDirectory]:
        """A fresh directory, removed in the end unless `keep`; leftovers of dead runs go first."""
        sweep()
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            with open(path / _LOCK, "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield cls(path)
        finally:
            if not keep:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def console(self) -> Path:
        """What the guest's kernel says."""
        return self.path / "console.log"

    def status(self) -> int | None:
        """The exit status that the guest has reported, None if it has not."""
        try:
            return int((self.path / "status").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def console_tail(self, size: int = 4000) -> str:
        """The last `size` characters of the console."""
        try:
            return self.console.read_text(errors="replace")[-size:]
        except FileNotFoundError:
            return ""


def sweep() -> list[Path]:
    """Remove directories of runs of this user that were killed; returns them."""
    gone = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
                continue
            if time.time() - about.st_mtime > _YOUNG and not _locked(path / _LOCK):
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path)
    return gone


def _locked(path: Path) -> bool:
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
