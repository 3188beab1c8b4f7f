"""Learns from the kernel that a file has a new content (inotify).

Called by who must notice a changed configuration. A file that is replaced by a rename, a mounted ConfigMap whose links
are switched, and one written in place all count.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from netkit.kernel import syscalls
from netkit.kernel.errors import from_os_error

_EVENTS = syscalls.IN_CLOSE_WRITE | syscalls.IN_MOVED_TO | syscalls.IN_CREATE | syscalls.IN_DELETE
_ROOM = 1 << 16


class FileWatch:
    """Watches the directories that hold the file and what it links to; the file need not exist, its directory must.

    `content` is what the caller knows the file to hold (None: what it holds now). Use as a context manager. Raises
    KernelError when the directory cannot be watched.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self._path = path
        self._fd = syscalls.inotify_init1(syscalls.IN_NONBLOCK | syscalls.IN_CLOEXEC)
        try:
            for directory in {path.absolute().parent, path.resolve().parent}:
                syscalls.inotify_add_watch(self._fd, str(directory), _EVENTS)
        except OSError as error:
            os.close(self._fd)
            raise from_os_error(error, f"watch {path}") from error
        self._content = self._read() if content is None else content

    async def changed(self) -> None:
        """Return as soon as the content differs from what is known, which it then is.

        A file that is gone has not changed: it may be about to be replaced.
        """
        while True:
            content = self._read()
            if content is not None and content != self._content:
                self._content = content
                return
            await self._events()

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> FileWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    async def _events(self) -> None:
        """Wait until something happens in the directories, and take it off the queue."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, _ROOM):
                pass


class DirectoryWatch:
    """Tells a loop around poll(2) that files of a directory were written, replaced or removed.

    The directory must exist. Raises KernelError when it cannot be watched.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = syscalls.inotify_init1(syscalls.IN_NONBLOCK | syscalls.IN_CLOEXEC)
        try:
            syscalls.inotify_add_watch(self._fd, str(directory), _EVENTS)
        except OSError as error:
            os.close(self._fd)
            raise from_os_error(error, f"watch {directory}") from error

    def fileno(self) -> int:
        """Readable when something happened since `taken`."""
        return self._fd

    def taken(self) -> None:
        """Whatever happened until now is known."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, _ROOM):
                pass

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
