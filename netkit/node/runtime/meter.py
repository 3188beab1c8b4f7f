"""Measures what the containers of a runtime use. Used by `server`; takes one look at /proc for all of them.

There are no cgroups here. The CPU time of a container is that of its processes; as a program executed in it takes its
time along when it ends, what is lost is added again, so that the sum never falls. A builtin container has no process:
the runtime counts the time of its one thread while it answers for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from netkit.kernel.process_usage import Usage, by_mount_namespace, usage_of
from netkit.node.runtime.spec import ContainerConfig, ContainerUsage, RuntimeUsage


class Spent:
    """Adds up the thread's CPU time of the blocks it is used for."""

    __slots__ = ("_began", "nanos")

    def __init__(self) -> None:
        self.nanos = 0
        self._began = 0

    def __enter__(self) -> None:
        self._began = time.thread_time_ns()

    def __exit__(self, *exc: object) -> None:
        self.nanos += time.thread_time_ns() - self._began


class Measurable(Protocol):
    """What the meter asks of a container."""

    @property
    def config(self) -> ContainerConfig: ...

    @property
    def handling_nanos(self) -> int: ...

    def mount_namespaces(self) -> tuple[int, ...]: ...


class Meter:
    """Remembers of each container what it used last."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._lost: dict[str, int] = {}

    def measure(self, containers: Sequence[Measurable]) -> RuntimeUsage:
        """All of these, which run."""
        namespaces = {each.config.id: each.mount_namespaces() for each in containers}
        members = by_mount_namespace(number for numbers in namespaces.values() for number in numbers)
        own = usage_of([os.getpid()])
        builtin = sum(each.config.builtin is not None for each in containers)
        share = own.rss // builtin if builtin else 0
        measured = []
        for each in containers:
            pids = [pid for number in namespaces[each.config.id] for pid in members[number]]
            used = usage_of(pids)
            is_builtin = each.config.builtin is not None
            measured.append(self._usage(each, used, share if is_builtin else 0))
        self._forget(namespaces.keys())
        handling = sum(each.handling_nanos for each in containers)
        return RuntimeUsage(
            containers=tuple(measured),
            # Children that were waited for are containers: their time is not the runtime's.
            own_cpu_nanos=max(time.process_time_ns() - handling, 0),
            own_memory=own.rss - share * builtin,
        )

    def _usage(self, container: Measurable, used: Usage, share: int) -> ContainerUsage:
        name = container.config.id
        last = self._last.get(name, 0)
        if used.cpu_nanos < last:
            self._lost[name] = self._lost.get(name, 0) + last - used.cpu_nanos
        self._last[name] = used.cpu_nanos
        return ContainerUsage(
            id=name,
            cpu_nanos=used.cpu_nanos + self._lost.get(name, 0) + container.handling_nanos,
            memory=used.rss + share,
            shared_memory=used.shared,
            faults=used.faults,
            major_faults=used.major_faults,
            processes=used.processes,
        )

    def _forget(self, present: Collection[str]) -> None:
        for known in (self._last, self._lost):
            for name in [name for name in known if name not in present]:
                del known[name]
