"""Pseudo terminals for containers and `exec -t`.

Made by the child inside the container between `clone` and `exec`, so that programs find their terminal's name
in the container's own /dev/pts; the master side goes to the runtime over a socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from typing import Final

_MULTIPLEXER: Final = "/dev/pts/ptmx"
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441


def make_terminal(console: int, uid: int) -> int:
    """Child side: the slave of a new terminal that belongs to `uid`; its master is sent through the socket.

    The window is 80 by 24 characters until `resize`. Raises OSError.
    """
    master = os.open(_MULTIPLEXER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave: int = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, uid, -1)
    resize(master, 80, 24)
    with socket.socket(fileno=os.dup(console)) as sender:
        socket.send_fds(sender, [b"\0"], [master])
    os.close(master)
    return slave


def take_master(console: socket.socket) -> int:
    """Parent side, once the program runs: the master, close-on-exec. Raises OSError when none was sent."""
    _, descriptors, _, _ = socket.recv_fds(console, 1, 1)
    if not descriptors:
        raise OSError("the container sent no terminal")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


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
