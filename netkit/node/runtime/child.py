"""A process started by `netkit.kernel.container`, as the event loop sees it: started, signalled, ended.

Used by the runtime's containers and exec sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from netkit.kernel.container import Spawned, StartFailure, outcome


class Child:
    """Owns the process' descriptors and reaps it. Make it with `Child.started`."""

    def __init__(self, spawned: Spawned) -> None:
        self.pid = spawned.pid
        self.pidfd = spawned.pidfd
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self.pidfd, self._reap)

    @classmethod
    async def started(cls, spawned: Spawned) -> Child:
        """Wait until the program runs. Raises StartFailure when it could not be executed."""
        child = cls(spawned)
        try:
            report = await _read_all(spawned.status)
        except asyncio.CancelledError:
            child.send(signal.SIGKILL)
            raise
        finally:
            os.close(spawned.status)
        try:
            outcome(report)
        except StartFailure:
            await child.ended()
            raise
        return child

    async def ended(self) -> int:
        """The wait status (`os.WIFEXITED` and so on) once the process is gone. May be awaited by many."""
        return await asyncio.shield(self._ended)

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def send(self, number: int) -> None:
        """Send a signal; nothing happens when the process is gone."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def _reap(self) -> None:
        self._loop.remove_reader(self.pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self._ended.set_result(status)


def exit_code(status: int) -> tuple[int, int]:
    """(exit code as Kubernetes counts, signal or 0) of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return 128 + number, number
    return os.WEXITSTATUS(status), 0


async def _read_all(fd: int) -> bytes:
    """Everything up to the end of file of a non-blocking descriptor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    collected = bytearray()

    def readable() -> None:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        if data:
            collected.extend(data)
        elif not done.done():
            done.set_result(bytes(collected))

    loop.add_reader(fd, readable)
    try:
        return await done
    finally:
        loop.remove_reader(fd)
