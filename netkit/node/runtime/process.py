"""A container that is a real process: output to the log and to who is attached, input from who is attached.

Used by `containers`. The process itself is made by `netkit.kernel.container`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from netkit.kernel.container import Spawned, Stdio, start
from netkit.kernel.process_usage import by_mount_namespace, mount_namespace
from netkit.kernel.pty_process import resize, take_master
from netkit.node.runtime import launch
from netkit.node.runtime.child import Child, exit_code
from netkit.node.runtime.log_writer import LogWriter
from netkit.node.runtime.neighbours import Neighbours
from netkit.node.runtime.pipes import Input, Output
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerConfig, ContainerState, Phase, Processes

Listener = Callable[[str, bytes], None]
"""Gets (stdout or stderr, bytes) of a container's output."""

_LINGER_SECONDS = 2.0


class ProcessContainer:
    """One process container. `on_exit(state)` is called once, when it has ended."""

    def __init__(
        self,
        config: ContainerConfig,
        settings: RuntimeSettings,
        on_exit: Callable[[ContainerState], None],
        neighbours: Neighbours,
    ) -> None:
        self.state = ContainerState(config=config, phase=Phase.RUNNING)
        self._settings = settings
        self._neighbours = neighbours
        self._namespace = 0
        self._on_exit = on_exit
        self._log = LogWriter(config.log_path)
        self._listeners: set[Listener] = set()
        self._child: Child | None = None
        self._input: Input | None = None
        self._terminal: int = -1
        self._task: asyncio.Task[None] | None = None
        self._killer: asyncio.TimerHandle | None = None

    @property
    def config(self) -> ContainerConfig:
        return self.state.config

    async def start(self) -> None:
        """Start the process. Raises StartFailure."""
        neighbour = await self._neighbours.pidfd(self.config)
        if self.config.tty:
            await self._start_with_terminal(neighbour)
        else:
            await self._start_with_pipes(neighbour)

    def mount_namespaces(self) -> tuple[int, ...]:
        """Where its processes are."""
        return (self._namespace,) if self._namespace else ()

    @property
    def handling_nanos(self) -> int:
        """All it does is done by its own processes."""
        return 0

    async def _start_with_terminal(self, neighbour: int) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    spawned = self._spawn(Stdio(console=theirs.fileno()), neighbour)
                child = await Child.started(spawned)
            except BaseException:
                self._log.close()
                raise
            master = take_master(ours)
        self._terminal = os.dup(master)
        if self.config.stdin:
            self._input = Input(os.dup(master))
        self._runs(child, {"stdout": master})

    async def _start_with_pipes(self, neighbour: int) -> None:
        outputs, stdio, owned = self._open_pipes()
        try:
            try:
                spawned = self._spawn(stdio, neighbour)
            finally:
                for fd in owned:
                    _close(fd)
            child = await Child.started(spawned)
        except BaseException:
            for fd in outputs.values():
                _close(fd)
            self._close()
            raise
        self._runs(child, outputs)

    def _spawn(self, stdio: Stdio, neighbour: int) -> Spawned:
        program = launch.program(self.config, self.config.argv, terminal=self.config.tty)
        return start(program, launch.isolation(self.config, self._settings, neighbour), stdio)

    def _runs(self, child: Child, outputs: Mapping[str, int]) -> None:
        pumps = [
            asyncio.create_task(self._pump(stream, Output(fd)), name=f"log of {self.config.key}")
            for stream, fd in outputs.items()
        ]
        self._child = child
        self._namespace = mount_namespace(child.pid)
        self.state = replace(self.state, pid=child.pid, started_at=time.time())
        self._task = asyncio.create_task(self._watch(child, pumps), name=f"container {self.config.key}")

    def stop(self, grace: float) -> None:
        """SIGTERM now, SIGKILL `grace` seconds later. A repeated stop may only shorten the time."""
        if self._child is None or not self._child.running:
            return
        loop = asyncio.get_running_loop()
        if self._killer is None:
            self._child.send(signal.SIGTERM)
        elif self._killer.when() <= loop.time() + grace:
            return
        else:
            self._killer.cancel()
        self._killer = loop.call_later(max(grace, 0), self._child.send, signal.SIGKILL)

    async def target(self) -> tuple[int, int]:
        """(pidfd, pid) of process 1, for programs executed in the container. Raises RuntimeError when
        it ended.
        """
        if self._child is None or not self._child.running:
            raise RuntimeError(f"container {self.config.name} is not running")
        return self._child.pidfd, self._child.pid

    async def ended(self) -> None:
        """Return when it has ended and its state says so."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def listen(self, listener: Listener) -> None:
        self._listeners.add(listener)

    def unlisten(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    async def feed(self, data: bytes) -> bool:
        """Input from an attached client; False when the process takes none."""
        return self._input is not None and await self._input.write(data)

    def end_of_input(self) -> None:
        """The first attached client left: with stdinOnce the input ends for good."""
        if self._input is not None and self.config.stdin_once and not self.config.tty:
            self._input.close()

    def resize(self, width: int, height: int) -> None:
        if self._terminal >= 0:
            resize(self._terminal, width, height)

    def _open_pipes(self) -> tuple[dict[str, int], Stdio, list[int]]:
        """(our reading ends by stream, what the child gets, descriptors of the child's to close here)."""
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        if self.config.stdin:
            source, sink = os.pipe2(os.O_CLOEXEC)
            self._input = Input(sink)
        else:
            source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return (
            {"stdout": out_read, "stderr": err_read},
            Stdio(source, out_write, err_write),
            [source, out_write, err_write],
        )

    async def _pump(self, stream: str, output: Output) -> None:
        async for data in output.chunks():
            self._log.write(stream, data)
            for listener in list(self._listeners):
                listener(stream, data)

    async def _watch(self, child: Child, pumps: list[asyncio.Task[None]]) -> None:
        code, number = exit_code(await child.ended())
        finished = time.time()
        if self.config.processes is not Processes.OWN:
            self._end_orphans()
        _, unfinished = await asyncio.wait(pumps, timeout=_LINGER_SECONDS)
        for pump in unfinished:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        if self._killer is not None:
            self._killer.cancel()
        self._close()
        self.state = replace(
            self.state,
            phase=Phase.EXITED,
            pid=0,
            exit_code=code,
            signal=number,
            finished_at=finished,
            reason="Completed" if code == 0 else "Error",
        )
        self._on_exit(self.state)

    def _end_orphans(self) -> None:
        """Where processes are shared the end of the main one is not the end of those it started."""
        for pid in by_mount_namespace(self.mount_namespaces()).get(self._namespace, ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _close(self) -> None:
        self._log.close()
        if self._input is not None:
            self._input.close()
        _close(self._terminal)
        self._terminal = -1


def _close(fd: int) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
