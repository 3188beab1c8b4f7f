"""Pseudo terminals for containers and `exec -t`.

The runtime keeps the master side; the child makes the slave side its controlling terminal between `clone`
and `exec`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios


def open_pty(width: int = 80, height: int = 24) -> tuple[int, int]:
    """A new (master, slave) pair of close-on-exec descriptors with that window size in characters."""
    master, slave = pty.openpty()
    resize(master, width, height)
    return master, slave


def resize(fd: int, width: int, height: int) -> None:
    """Set the window size of either side; the foreground process group gets SIGWINCH. Zeros are ignored."""
    if width > 0 and height > 0:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", min(height, 65535), min(width, 65535), 0, 0))


def window_size(fd: int) -> tuple[int, int]:
    """(width, height) of either side."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return width, height


def take_terminal(slave: int) -> None:
    """Make `slave` the controlling terminal of the calling session leader (child side)."""
    with contextlib.suppress(PermissionError):  # already the controlling terminal of this session
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def end_of_input(master: int) -> None:
    """Tell the reader of the terminal that no more input comes (what Ctrl-D does in line mode)."""
    os.write(master, b"\x04")
