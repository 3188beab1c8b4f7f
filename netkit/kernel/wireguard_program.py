"""WireGuard by the program wireguard-go on a TUN device, for kernels without it: one process per device.

The TUN device is made here, persistent, and the program finds it by its name: so the device, its address and the routes
through it stand when the program dies, and packets are lost then, not sent elsewhere in the clear. The program outlives
who started it; whoever comes next finds it on the ledger. Its socket would be at /var/run/wireguard/DEVICE.sock, for
all machines of all clusters alike: it gets a mount namespace of its own, in which /var/run is the caller's directory.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import select
import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from netkit.kernel import netns, process, rtnl, rtnl_read, syscalls
from netkit.kernel.errors import KernelError, TimedOut, Unsupported, from_os_error
from netkit.kernel.ledger import Entry, EntryKind, Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.netns_directory import NETNS_DIRECTORY
from netkit.kernel.process import Child
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.wireguard_uapi import Uapi, listening
from netkit.kernel.wireguard_values import PROGRAM, USERSPACE, Change, State

log = logging.getLogger(__name__)

PACKAGE: Final = "wireguard-go"
_TUN: Final = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_KIND: Final = "tun"
_PATIENCE: Final = 5.0
_LOOK_SECONDS: Final = 0.002
_PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/bin"


class RunningProgram:
    """A process that carries a device; `child` if this process has started it."""

    def __init__(self, entry: Entry, child: Child | None = None) -> None:
        self.entry = entry
        self._child = child
        pidfd = process.open_pidfd(*entry.pid_and_start())
        self._pidfd = -1 if pidfd is None else pidfd

    @property
    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._pidfd < 0:
            return
        # Its own descriptor: whoever closes the other one does not know who waits.
        watched = os.dup(self._pidfd)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(watched, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)

    def end(self, grace: float = 1.0) -> None:
        """End it and wait for that. Raises KernelError."""
        process.terminate(*self.entry.pid_and_start(), grace)
        if self._child is not None:
            self._child.wait(5.0)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class ProgramWireGuard:
    """`device` in `ns`. `place` is a directory for its socket alone, `label` its name on the ledger."""

    def __init__(self, ns: Namespace, device: str, place: Path, ledger: Ledger, label: str) -> None:
        self._ns = ns
        self._device = device
        self._place = place
        self._ledger = ledger
        self._label = label
        self._uapi = Uapi(socket_path(place, device), ns.name)
        self._program: RunningProgram | None = None

    @property
    def implementation(self) -> str:
        return USERSPACE

    @property
    def program(self) -> RunningProgram | None:
        return self._program

    def ensure(self) -> bool:
        """See `WireGuard`. Unsupported, with the package's name, when the program or TUN devices are missing."""
        link = rtnl_read.links(self._ns).get(self._device)
        if self._program is None:
            self._adopt()
        if self._program is not None:
            if self._program.alive and link is not None and link.kind == _KIND and self._answers():
                return False
            self._end_program()
        if link is not None and link.kind != _KIND:
            with Rtnl(self._ns) as links:
                links.apply(rtnl.link_delete(self._device).allowing(errno.ENODEV))
        self._start()
        return True

    def apply(self, change: Change) -> None:
        self._uapi.apply(change)

    def read(self) -> State:
        return self._uapi.read()

    def remove(self) -> bool:
        if self._program is None:
            self._adopt()
        there = self._program is not None
        if there:
            self._end_program()
        link = rtnl_read.links(self._ns).get(self._device)
        if link is not None and link.kind == _KIND:
            with Rtnl(self._ns) as links:
                links.apply(rtnl.link_delete(self._device).allowing(errno.ENODEV))
            there = True
        shutil.rmtree(self._place, ignore_errors=True)
        return there

    def close(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None

    def _answers(self) -> bool:
        try:
            self._uapi.read()
        except KernelError as error:
            log.warning("%s: %s; it is started again", self._ns.name, error)
            return False
        return True

    def _adopt(self) -> None:
        """Take over what an earlier owner of the ledger has started."""
        for entry in self._ledger.entries():
            if entry.kind is not EntryKind.PROCESS or entry.detail != self._label:
                continue
            if self._program is None and process.alive(*entry.pid_and_start()):
                self._program = RunningProgram(entry)
            else:
                process.terminate(*entry.pid_and_start())
                self._ledger.forget(entry)

    def _end_program(self) -> None:
        program, self._program = self._program, None
        assert program is not None
        try:
            program.end()
        finally:
            program.close()
        self._ledger.forget(program.entry)

    def _start(self) -> None:
        path = _program_path()
        run = os.path.realpath("/var/run")
        try:
            _make_tun(self._ns, self._device)
        except OSError as error:
            raise from_os_error(error, f"ip tuntap add {self._device} mode tun", self._ns.name) from error
        try:
            with Rtnl(self._ns) as links:
                links.apply(rtnl.link_up(self._device))
            with listening(socket_path(self._place, self._device)) as socket:

                def main() -> int:
                    syscalls.unshare(syscalls.CLONE_NEWNS)
                    # What is unmounted outside later goes here too; names of namespaces, which keep them alive, go now.
                    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
                    with suppress(OSError):
                        syscalls.umount(NETNS_DIRECTORY, syscalls.MNT_DETACH)
                    syscalls.mount(str(self._place), run, flags=syscalls.MS_BIND)
                    os.set_inheritable(socket.fileno(), True)
                    environment = {"PATH": _PATH, "LOG_LEVEL": "error", "WG_UAPI_FD": str(socket.fileno())}
                    # Else it prints advice first.
                    environment["WG_PROCESS_FOREGROUND"] = "1"
                    return process.exec_program([path, "--foreground", self._device], environment)

                child = process.fork_recorded(self._ledger, self._label, main, ns=self._ns)
        except OSError as error:
            raise from_os_error(error, f"{PROGRAM} {self._device}", self._ns.name) from error
        self._program = RunningProgram(child.entry, child)
        try:
            self._wait_ready()
        except KernelError as error:
            self._end_program()
            error.hint = f"{PROGRAM} did not begin to work; its own words are in the agent's log"
            raise

    def _wait_ready(self) -> None:
        """Return when it sends and receives, which it begins with a port of its own choice once it sees the link up.

        It cannot open a session earlier, and answers questions before that.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._uapi.read().port:
            if time.monotonic() > deadline:
                raise TimedOut(f"{PROGRAM} {self._device}", self._ns.name, stderr="it does not open its port")
            time.sleep(_LOOK_SECONDS)


def socket_path(place: Path, device: str) -> Path:
    """Where the socket is that the program sees as /var/run/wireguard/DEVICE.sock."""
    return place / "wireguard" / f"{device}.sock"


def available() -> str:
    """The program's version line. Unsupported when it or TUN devices are missing. Starts it to ask."""
    done = process.run([_program_path(), "--version"], timeout=3.0, check=True)
    if not os.path.exists(_TUN):
        raise Unsupported(_TUN, errno=errno.ENOENT, hint="modprobe tun")
    lines = done.stdout.decode(errors="replace").splitlines()
    return lines[0].strip() if lines else PROGRAM


def _program_path() -> str:
    path = shutil.which(PROGRAM, path=_PATH)
    if path is None:
        raise Unsupported(
            PROGRAM, errno=errno.ENOENT, stderr="it is not installed", hint=f"install the package {PACKAGE}"
        )
    return path


def _make_tun(ns: Namespace, device: str) -> None:
    """Make the TUN device, or find it: it stays when its descriptor is closed. Who opens it next says in which form
    packets come, which differs between the program's versions.
    """
    with netns.entered(ns):
        fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN_NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)
