"""Reads a container's CRI log as the log API asks for it. Reads files; knows nothing of pods.

Used by `kubelet.logs`. The format is written by `runtime.log_writer`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_POLL_SECONDS = 0.05
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """As the API's PodLogOptions. `since` is an RFC 3339 time in UTC with any number of digits, "" for all."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a CRI log; `partial` lines go on in the next one."""

    time: str
    stream: str
    partial: bool
    text: bytes


def parse_line(line: bytes) -> LogLine | None:
    """A line without its newline; None for what is none."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    return LogLine(
        parts[0].decode("ascii", "replace"), parts[1].decode("ascii", "replace"), parts[2] == b"P", parts[3]
    )


class LogRenderer:
    """From lines to the bytes a client gets, up to the limit."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._since = _comparable(options.since)

    @property
    def exhausted(self) -> bool:
        return self._left is not None and self._left <= 0

    def render(self, lines: Iterator[bytes]) -> bytes:
        """The output for raw lines."""
        output = bytearray()
        for raw in lines:
            line = parse_line(raw)
            if line is None or (self._since and _comparable(line.time) < self._since):
                continue
            if self._options.timestamps:
                output += line.time.encode() + b" "
            output += line.text if line.partial else line.text + b"\n"
        if self._left is not None:
            del output[max(self._left, 0) :]
            self._left -= len(output)
        return bytes(output)


def _comparable(time: str) -> str:
    """RFC 3339 in UTC with nine digits, so that times compare as text."""
    if not time:
        return ""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


async def read_log(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log's bytes; with `follow` until `running()` is False and everything was read.

    Raises FileNotFoundError when there is no log.
    """
    renderer = LogRenderer(options)
    file = path.open("rb")
    try:
        rotated = path.with_name(f"{path.name}.1")
        if options.tail_lines is not None:
            _seek_to_tail(file, options.tail_lines)
        elif rotated.exists():
            with rotated.open("rb") as old:
                async for data in _render_rest(old, renderer):
                    yield data
        while True:
            still_running = options.follow and running()
            async for data in _render_rest(file, renderer):
                yield data
            if renderer.exhausted or not still_running:
                return
            if _replaced(path, file):
                fresh = path.open("rb")
                async for data in _render_rest(file, renderer):
                    yield data
                file.close()
                file = fresh
                continue
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        file.close()


def last_words(path: Path, lines: int = 80, limit: int = 2048) -> str:
    """The end of a log, as it stands in for a termination message; "" when there is no log."""
    try:
        with path.open("rb") as file:
            _seek_to_tail(file, lines)
            raw = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return ""
    return LogRenderer(LogOptions()).render(iter(raw))[-limit:].decode("utf-8", "replace")


async def _render_rest(file: BinaryIO, renderer: LogRenderer) -> AsyncIterator[bytes]:
    """From the file's position on, whole lines only; the position is behind the last whole line afterwards."""
    while not renderer.exhausted:
        block = file.read(_BLOCK)
        end = block.rfind(b"\n") + 1
        if not end:
            file.seek(-len(block), os.SEEK_CUR)
            return
        file.seek(end - len(block), os.SEEK_CUR)
        # Not splitlines(): a terminal's lines end in "\r\n", and the "\r" belongs to the text.
        data = renderer.render(iter(block[: end - 1].split(b"\n")))
        if data:
            yield data
        # Let others run between blocks of a long log.
        await asyncio.sleep(0)


def _seek_to_tail(file: BinaryIO, lines: int) -> None:
    """Put the position in front of the last `lines` lines."""
    position = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return
    seen = 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            seen += 1
            if seen > lines:
                file.seek(position + at + 1)
                return
    file.seek(0)


def _replaced(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
