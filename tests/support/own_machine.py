"""A machine of its own for a worker of pytest: nothing that happens beside it is seen in it, nothing in it is left.

    python -P tests/support/own_machine.py PYTHON_ARGUMENT...

is the interpreter with these arguments, in new network, mount and pid namespaces: a loopback and nothing else, no
process but its own, a /run and a /var/lib that are empty, and an /etc and a /root whose changes go with the machine.
`tests/run` gives it to pytest-xdist as the interpreter of the workers. So tests that compare the machine with what it
was before may run side by side, and beside everything else; what such a comparison finds is the test's own. All
processes in it die with this one, which dies with its parent. Without the right to make namespaces it is the bare
interpreter: the tests say themselves what they lack.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from netkit.kernel import syscalls

ROOT = Path(__file__).resolve().parents[2]
_EMPTY = ("/run", "/var/lib")
_COVERED = ("/etc", "/root")
_CHANGES = Path("/run/own-machine")
"""Where the changes of covered directories lie, in memory."""


def main(arguments: Sequence[str]) -> int:
    command = [sys.executable, *arguments]
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    except PermissionError:
        os.execv(command[0], command)
    # Ctrl-C is for the tests; this process and the machine's first one end when they have ended.
    taken = signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = os.fork()
    if first:
        return _shell_status(os.waitpid(first, 0)[1])
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    _furnish()
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGINT, taken)
        os.execv(command[0], command)
    while (ended := os.wait())[0] != worker:
        pass  # an orphan: the first process of a machine buries them
    os._exit(_shell_status(ended[1]))


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _furnish() -> None:
    """Make the mounts and the loopback, as the machine's first process."""
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    for top in _EMPTY:
        with _kept_below(top):
            _bare(top)
            syscalls.mount("tmpfs", top, "tmpfs", data="mode=755")
    for top in _COVERED:
        upper, work = _CHANGES / top[1:] / "upper", _CHANGES / top[1:] / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        # A kernel without overlays shows them as they are: then somebody else's new file would count as the test's.
        with suppress(OSError), _kept_below(top):
            syscalls.mount("overlay", top, "overlay", data=f"lowerdir={top},upperdir={upper},workdir={work}")
    syscalls.mount("proc", "/proc", "proc")
    syscalls.mount("sysfs", "/sys", "sysfs")
    # mount(8) and iptables would make these.
    os.mkdir("/run/mount")
    Path("/run/xtables.lock").touch()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _bare(top: str) -> None:
    """Let go of what is mounted below `top`, among it named namespaces of others, which would live as long as we."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed(places):
        if place == top or place.startswith(f"{top}/"):
            with suppress(OSError):
                syscalls.umount(place, syscalls.MNT_DETACH)


@contextmanager
def _kept_below(top: str) -> Iterator[None]:
    """Directories that the tests need stay what they are when `top` is covered: the project, programs, Python,
    files of the tests."""
    needed = [str(ROOT), tempfile.gettempdir(), sys.base_prefix, *os.environ["PATH"].split(":")]
    kept: dict[str, int] = {}
    for path in sorted(map(os.path.realpath, needed)):
        if path.startswith(f"{top}/") and not any(path == k or path.startswith(f"{k}/") for k in kept):
            with suppress(FileNotFoundError):
                kept[path] = os.open(path, os.O_PATH | os.O_DIRECTORY)
    yield
    for path, directory in kept.items():
        os.makedirs(path, exist_ok=True)
        syscalls.mount(f"/proc/self/fd/{directory}", path, flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.close(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
