"""Capability names and the sets containers get; pure.

`container` applies what `bounding_set` gives. The default set is the one container engines use, so that
what needs NET_ADMIN in a real cluster needs it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NAMES: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Index = the kernel's number (linux/capability.h)."""

DEFAULT: Final = frozenset(
    (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
    )
)  # fmt: skip
ALL: Final = frozenset(NAMES)


def bounding_set(
    add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False
) -> frozenset[str]:
    """The capabilities of a container with a pod's `securityContext.capabilities`.

    Names come with or without `CAP_`, in any case, `ALL` included. Unknown names are ignored, as runtimes
    that lack them do.
    """
    if privileged:
        return ALL
    added, dropped = {_plain(name) for name in add}, {_plain(name) for name in drop}
    base = frozenset() if "ALL" in dropped else DEFAULT - dropped
    return ALL - (dropped - added) if "ALL" in added else (base | (added & ALL))


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def to_drop(kept: frozenset[str], last: int) -> tuple[int, ...]:
    """Numbers of all capabilities up to `last` (`/proc/sys/kernel/cap_last_cap`) that are not in `kept`."""
    return tuple(number for number in range(last + 1) if number >= len(NAMES) or NAMES[number] not in kept)
