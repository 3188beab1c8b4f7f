"""Errors of the kernel layer: what was tried, where, and what the kernel said.

    KernelError                 an operation failed; errno and the kernel's own words are kept
    |-- CommandFailed           a command (iptables-restore, ...) ended with a status other than 0
    |-- TimedOut                a command or an event did not come in time
    `-- Unsupported             this kernel lacks a feature; `hint` says how to get it

Raised by every module of `netkit.kernel`; callers decide by the predicates and types, never by text.
"""

from __future__ import annotations

import errno as codes
import os


class KernelError(Exception):
    """`operation` as a user would type it (`ip link add br0 type bridge`), `namespace` by name ("" is the
    machine's own), `errno` 0 when there is none, `stderr` the kernel's extended message or the command's
    output, `hint` one sentence of advice.
    """

    def __init__(
        self, operation: str, namespace: str = "", errno: int = 0, stderr: str = "", hint: str = ""
    ) -> None:
        super().__init__(operation, namespace, errno, stderr, hint)
        self.operation = operation
        self.namespace = namespace
        self.errno = errno
        self.stderr = stderr.strip()
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.namespace}: " if self.namespace else ""
        why = "; ".join(part for part in (os.strerror(self.errno) if self.errno else "", self.stderr) if part)
        return f"{where}{self.operation}" + (f": {why}" if why else "")

    @property
    def is_not_found(self) -> bool:
        """The thing named does not exist."""
        return self.errno in (codes.ENOENT, codes.ENODEV, codes.ESRCH, codes.EADDRNOTAVAIL, codes.ENXIO)

    @property
    def is_exists(self) -> bool:
        """The thing to be made exists already."""
        return self.errno == codes.EEXIST

    @property
    def is_permission(self) -> bool:
        """Root (or a capability) is missing."""
        return self.errno in (codes.EPERM, codes.EACCES)

    @property
    def is_unsupported(self) -> bool:
        """The kernel does not know this feature."""
        return self.errno in (codes.EOPNOTSUPP, codes.EPROTONOSUPPORT, codes.EAFNOSUPPORT, codes.ENOSYS)


class CommandFailed(KernelError):
    """A command ended with `returncode` != 0 (negative: killed by that signal)."""

    def __init__(
        self, operation: str, namespace: str = "", returncode: int = 1, stderr: str = "", hint: str = ""
    ) -> None:
        super().__init__(operation, namespace, 0, stderr or f"exit status {returncode}", hint)
        self.args = (operation, namespace, returncode, stderr, hint)
        self.returncode = returncode


class TimedOut(KernelError):
    """Nothing came within the time allowed."""


class Unsupported(KernelError):
    """A feature this kernel, or this machine's set of commands, does not have."""


def from_os_error(error: OSError, operation: str, namespace: str = "", hint: str = "") -> KernelError:
    """The KernelError for an OSError of a system call."""
    return KernelError(operation, namespace, error.errno or 0, hint=hint)
