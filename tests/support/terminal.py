"""kubectl on a terminal of its own, typed at and read by a test."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from support.space import Space


class Terminal:
    """A running kubectl; killed when the block ends."""

    def __init__(self, where: Space, *arguments: str, size: tuple[int, int] = (24, 80)) -> None:

        self.master, slave = pty.openpty()
        self._set_size = lambda rows, columns: fcntl.ioctl(
            self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0)
        )
        self._set_size(*size)
        self.text = ""
        self.process = subprocess.Popen(
            where.command(*arguments), stdin=slave, stdout=slave, stderr=slave, env=where.cluster.environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def say(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        self._set_size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def until(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Read until the pattern appears in what came since the last match."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert re.search(pattern, self.text), f"no {pattern!r} in {self.text!r}"
        self.text = self.text[found.end() :]
        return found

    def wait(self, seconds: float = 60) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still running: {self.text!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    continue
        self._drain()
        return code

    def _drain(self) -> None:
        """Read what was said before the end."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.text += data.decode(errors="replace")
