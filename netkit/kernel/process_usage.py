"""Which processes belong together, and what they use: read from /proc, changes nothing.

Called by the runtime process of a node. Every container has a mount namespace of its own, so the processes of one
are those in it, whatever PID namespace they live in and whoever started them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in nanoseconds (of children that were waited for too), memory in bytes.

    `rss` is what lies in memory, pages shared between processes counted once for each; `shared` the part of it that
    is backed by files. `faults` and `major_faults` are page faults.
    """

    cpu_nanos: int = 0
    rss: int = 0
    shared: int = 0
    faults: int = 0
    major_faults: int = 0
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_nanos + other.cpu_nanos,
            self.rss + other.rss,
            self.shared + other.shared,
            self.faults + other.faults,
            self.major_faults + other.major_faults,
            self.processes + other.processes,
        )


@cache
def _units() -> tuple[int, int]:
    """(nanoseconds of a clock tick, bytes of a page)."""
    return 1_000_000_000 // os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def mount_namespace(pid: int) -> int:
    """Which mount namespace a process is in, 0 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def by_mount_namespace(wanted: Iterable[int]) -> dict[int, list[int]]:
    """The processes in each of those mount namespaces; one look at /proc for all of them."""
    found: dict[int, list[int]] = {namespace: [] for namespace in wanted}
    if not found:
        return found
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            members = found.get(mount_namespace(int(entry)))
            if members is not None:
                members.append(int(entry))
    return found


def usage_of(pids: Iterable[int]) -> Usage:
    """What those processes use together; the ones that are gone count nothing."""
    total = Usage()
    for pid in pids:
        total += _usage_of_one(pid)
    return total


def _usage_of_one(pid: int) -> Usage:
    tick, page = _units()
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name may hold anything, spaces and parentheses too.
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return Usage()
    times = sum(int(field) for field in fields[11:15])
    faults, waited_faults, major, waited_major = (int(field) for field in fields[7:11])
    return Usage(
        times * tick,
        int(resident) * page,
        int(shared) * page,
        faults + waited_faults,
        major + waited_major,
        1,
    )
