"""Writes a container's output in the CRI log format: `<time> <stream> <P|F> <text>`.

Called by the runtime's containers. Lines are gathered for a moment and written together, so that an
access log does not cost a system call per request. A file that grows over the limit is kept once as
`<path>.1`.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

_LONGEST_PART: Final = 16 * 1024
_FLUSH_SECONDS: Final = 0.05
_ROTATE_BYTES: Final = 10 * 1024 * 1024


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nine digits, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    parts = time.gmtime(seconds)
    return (
        f"{parts.tm_year:04d}-{parts.tm_mon:02d}-{parts.tm_mday:02d}"
        f"T{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d}.{rest:09d}Z"
    )


class LogWriter:
    """One container's log. Not for use by two loops."""

    def __init__(self, path: str, rotate_bytes: int = _ROTATE_BYTES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        self._open_lines: dict[str, bytes] = {}
        self._pending: list[bytes] = []
        self._flush: asyncio.TimerHandle | None = None

    def write(self, stream: str, data: bytes) -> None:
        """Add output of `stream` (stdout or stderr); whole lines are kept whole up to 16 KiB."""
        now = timestamp(time.time_ns()).encode()
        prefix = now + b" " + stream.encode()
        *lines, rest = (self._open_lines.get(stream, b"") + data).split(b"\n")
        for line in lines:
            while len(line) > _LONGEST_PART:
                self._pending.append(prefix + b" P " + line[:_LONGEST_PART] + b"\n")
                line = line[_LONGEST_PART:]
            self._pending.append(prefix + b" F " + line + b"\n")
        while len(rest) > _LONGEST_PART:
            self._pending.append(prefix + b" P " + rest[:_LONGEST_PART] + b"\n")
            rest = rest[_LONGEST_PART:]
        self._open_lines[stream] = rest
        if self._flush is None and self._pending:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def line(self, stream: str, text: str) -> None:
        """Add one line."""
        self.write(stream, text.encode("utf-8", "replace") + b"\n")

    def flush(self) -> None:
        """Write what is gathered."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            if self._size and self._size + len(data) > self._rotate_bytes:
                self._rotate()
            os.write(self._fd, data)
            self._size += len(data)

    def close(self) -> None:
        """Write everything, unfinished lines too, and close the file. May be called twice."""
        if self._fd < 0:
            return
        now = timestamp(time.time_ns()).encode()
        for stream, rest in self._open_lines.items():
            if rest:
                self._pending.append(now + b" " + stream.encode() + b" P " + rest + b"\n")
        self._open_lines.clear()
        self.flush()
        os.close(self._fd)
        self._fd = -1

    def _rotate(self) -> None:
        os.close(self._fd)
        os.replace(self._path, f"{self._path}.1")
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0
