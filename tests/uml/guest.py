"""Boots a user-mode-Linux kernel for one command and hands on what the command writes and how it ends.

Used by `command` (the program `tests/uml/run`). Every run is a kernel of its own on one processor, without a network
to the outside. Nothing here touches the host: the kernel is started by `sealed`, so that it can write to the job's
directory and those of the request only, and dies with this process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from uml.job import JobDirectory, Request

TIME_LIMIT = 124
DIED = 125
_KILLED_BY_TIMEOUT = 128 + signal.SIGKILL

_HERE = Path(__file__).parent
_BOOT_AND_HALT = 30.0
"""Seconds that a guest gets beyond its command's limit."""
_CHUNK = 1 << 16


class Guest:
    """One run of `request` with `job` as its directory: start it, then `pump` to its end."""

    def __init__(self, request: Request, job: JobDirectory) -> None:
        self._request = request
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: list[int] = []
        self._timed_out = False

    def start(self) -> None:
        """Boot. Raises OSError if the host cannot start it."""
        (self._job.path / "guest.sh").write_text(
            self._request.script(), encoding="utf-8", errors="surrogateescape"
        )
        inherited = []
        for _ in range(2):
            reading, writing = os.pipe()
            self._outputs.append(reading)
            inherited.append(writing)
        try:
            # Never the caller's own stdout: the kernel would make it non-blocking for everybody who shares it.
            with open(self._job.console, "wb") as console:
                self._process = subprocess.Popen(
                    self._command(*inherited),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    pass_fds=inherited,
                    # The guest's memory is a file there, whatever $TMPDIR is here.
                    env={**os.environ, "TMPDIR": "/dev/shm"},
                    start_new_session=True,
                )
        finally:
            for fd in inherited:
                os.close(fd)

    def pump(self, stdout: BinaryIO, stderr: BinaryIO) -> int:
        """Copy the command's output until the guest is gone: the exit status.

        The command's own; TIME_LIMIT if it took too long; DIED if the guest ended without reporting one, which
        `stderr` is told with the end of its console.
        """
        assert self._process is not None, "not started"
        begun = time.monotonic()
        end = begun + self._request.seconds + _BOOT_AND_HALT
        with selectors.DefaultSelector() as selector:
            for fd, stream in zip(self._outputs, (stdout, stderr), strict=True):
                selector.register(fd, selectors.EVENT_READ, stream)
            # Both ends of file mean that no process of the guest is left.
            while selector.get_map():
                left = end - time.monotonic()
                if left <= 0 and not self._timed_out:
                    self._timed_out = True
                    self.kill()
                for key, _ in selector.select(max(left, 0.0) if not self._timed_out else None):
                    if data := os.read(key.fd, _CHUNK):
                        key.data.write(data)
                        key.data.flush()
                    else:
                        selector.unregister(key.fd)
        self._process.wait()
        return self._status(stderr, time.monotonic() - begun)

    def kill(self) -> None:
        """End the guest at once. The pid namespace takes its processes along."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """Kill what still runs, wait until it is gone, and give the descriptors back."""
        self.kill()
        if self._process is not None:
            self._process.wait()
        for fd in self._outputs:
            while os.read(fd, _CHUNK):
                continue
            os.close(fd)
        self._outputs.clear()

    def _status(self, stderr: BinaryIO, seconds: float) -> int:
        status = self._job.status()
        if status == _KILLED_BY_TIMEOUT and seconds >= self._request.seconds:
            return TIME_LIMIT  # by timeout(1), of a command that did not heed SIGTERM
        if status is not None:
            return status
        why = "took too long to stop" if self._timed_out else "ended without reporting an exit status"
        stderr.write(f"uml: the guest {why}; the end of its console:\n{self._job.console_tail()}\n".encode())
        stderr.flush()
        return TIME_LIMIT if self._timed_out else DIED

    def _command(self, out: int, err: int) -> list[str]:
        request, job = self._request, self._job.path
        writable = [f"--write={path}" for path in (job, *request.writable)]
        return [
            sys.executable, "-I", str(_HERE / "sealed.py"), f"--parent={os.getpid()}",
            # The guest's memory, and room for what the kernel maps besides.
            f"--memory={2 * request.memory}", *writable, "--",
            request.kernel, f"mem={request.memory >> 20}M",
            "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
            f"init={_HERE / 'init.sh'}", f"umljob={job}", f"uml_dir={job}", "umid=vm",
            "con=null", "con0=null,fd:1", f"con1=null,fd:{out}", f"con2=null,fd:{err}",
        ]  # fmt: skip
