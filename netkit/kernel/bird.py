"""The routing daemon BIRD 2: whether it is there, running it in a namespace, and talking to one that runs.

It is a program of its own beside the cluster; its configuration is rendered by `netkit.podnet.bgp`. Talking goes over
its control socket, whose answers are numbered lines, as birdc prints them.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Final

from netkit.kernel import netns, process
from netkit.kernel.errors import KernelError, Unsupported, from_os_error
from netkit.kernel.netns import Namespace

PACKAGE: Final = "bird2"
_PROGRAM: Final = "bird"
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_FIRST_ERROR: Final = 8000


def program() -> str:
    """Where the daemon is. Unsupported, naming the package, when it is not installed or is not BIRD 2."""
    found = shutil.which(_PROGRAM, path=_PATH)
    hint = f"apt-get install {PACKAGE}"
    if found is None:
        raise Unsupported(_PROGRAM, errno=errno.ENOENT, stderr=f"{_PROGRAM} is not installed", hint=hint)
    version = process.run([found, "--version"]).stderr.decode(errors="replace").strip()
    if not version.startswith("BIRD version 2."):
        raise Unsupported(_PROGRAM, stderr=f"{version or found} is not BIRD 2", hint=hint)
    return found


def version() -> str:
    """Its version, for people. Raises Unsupported."""
    return process.run([program(), "--version"]).stderr.decode(errors="replace").strip()


def become(ns: Namespace, configuration: Path, control: Path) -> int:
    """Replace this process by the daemon, in `ns` (for a child's main). Returns a status only when that fails.

    `control` is where its control socket shall be.
    """
    argv = [program(), "-f", "-c", str(configuration), "-s", str(control)]
    with netns.entered(ns):
        return process.exec_program(argv)


def ask(control: Path, command: str, timeout: float = 5.0) -> list[str]:
    """The daemon's answer to a command of birdc's, without the numbers before its lines.

    Raises KernelError when nobody answers in `timeout` seconds, or when the daemon refuses.
    """
    what = f"birdc {command}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
            client.settimeout(timeout)
            client.connect(str(control))
            with client.makefile("r", encoding="utf-8", errors="replace") as answers:
                _read_reply(answers, what)
                client.sendall(command.encode() + b"\n")
                return _read_reply(answers, what)
    except OSError as error:
        raise from_os_error(error, what) from error


def _read_reply(answers: object, what: str) -> list[str]:
    """The lines of one reply: `1002-text` and ` text` go on, `0013 text` is the last."""
    lines: list[str] = []
    for line in iter(answers.readline, ""):  # type: ignore[attr-defined]
        text = line.rstrip("\n")
        if text[:1] in (" ", "+"):
            lines.append(text[1:])
            continue
        code, mark, rest = text[:4], text[4:5], text[5:]
        if not code.isdigit():
            raise KernelError(what, stderr=f"not understood: {text!r}")
        if int(code) >= _FIRST_ERROR:
            raise KernelError(what, stderr=rest)
        if rest:
            lines.append(rest)
        if mark != "-":
            return lines
    raise KernelError(what, errno=errno.ECONNRESET, stderr="the daemon closed the connection")
