"""A container that is a server of the runtime process: sockets made in the pod's network namespace.

Used by `containers`. For `exec` a quiet process of the machine stands in its place: it is started on
first use, in namespaces of its own beside the pod's network, and ends with the container.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from netkit.kernel.container import StartFailure
from netkit.kernel.netns import open_namespace, socket_in
from netkit.kernel.process_usage import mount_namespace
from netkit.node.runtime.behaviours import ANSWERS, Facts
from netkit.node.runtime.child import Child
from netkit.node.runtime.http_server import HttpServer
from netkit.node.runtime.log_writer import LogWriter
from netkit.node.runtime.meter import Spent
from netkit.node.runtime.neighbours import Neighbours, quiet_process
from netkit.node.runtime.process import Listener
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import BuiltinConfig, ContainerConfig, ContainerState, ListenPort, Phase
from netkit.node.runtime.static_files import DOCUMENT_ROOTS, StaticFiles
from netkit.node.runtime.udp_server import serve_datagrams


class BuiltinContainer:
    """One builtin container. `on_exit(state)` is called once, when it has ended."""

    def __init__(
        self,
        config: ContainerConfig,
        settings: RuntimeSettings,
        on_exit: Callable[[ContainerState], None],
        neighbours: Neighbours,
    ) -> None:
        assert config.builtin is not None
        self.state = ContainerState(config=config, phase=Phase.RUNNING)
        self._builtin: BuiltinConfig = config.builtin
        self._settings = settings
        self._neighbours = neighbours
        self._on_exit = on_exit
        self._log = LogWriter(config.log_path)
        self._listeners: set[Listener] = set()
        self._spent = Spent()
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._http: HttpServer | None = None
        self._holder: Child | None = None
        self._holder_lock = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def config(self) -> ContainerConfig:
        return self.state.config

    async def start(self) -> None:
        """Open the ports. A port that is taken ends the container with code 1, as it would a program."""
        config = self.config
        facts = Facts(
            config.hostname, config.pod_name, config.pod_namespace, config.node_name, config.addresses,
            self._builtin.text,
        )  # fmt: skip
        self.state = replace(self.state, pid=os.getpid(), started_at=time.time())
        answer = ANSWERS.get(self._builtin.behaviour)
        if answer is None:
            return
        files = None
        if self._builtin.behaviour in DOCUMENT_ROOTS:
            files = StaticFiles(self._builtin.behaviour, config.binds, self._holder_root)
        self._http = HttpServer(answer, facts, self._access, files, self._spent)
        try:
            for port in self._builtin.ports:
                await self._listen_on(port, self._http, facts)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                self._http.abort()
                self._log.close()
                raise StartFailure(f"listen: {error.strerror}", error.errno or 0) from error
            self._http.abort()
            self._end(1, "Error")

    def stop(self, grace: float) -> None:
        """Close the ports, let requests under way end for at most `grace` seconds."""
        if self._ending is None and not self._ended.is_set():
            self._ending = asyncio.create_task(self._drain(grace), name=f"drain {self.config.key}")
        elif grace <= 0 and self._http is not None:
            self._http.abort()

    async def target(self) -> tuple[int, int]:
        """(pidfd, pid) of the process that stands in for the container, started now if need be.

        Raises StartFailure, or RuntimeError when the container has ended.
        """
        async with self._holder_lock:
            if self._ended.is_set():
                raise RuntimeError(f"container {self.config.name} is not running")
            if self._holder is None or not self._holder.running:
                neighbour = await self._neighbours.pidfd(self.config)
                self._holder = await quiet_process(self.config, self._settings, neighbour)
            return self._holder.pidfd, self._holder.pid

    async def ended(self) -> None:
        """Return when it has ended and its state says so."""
        await self._ended.wait()

    def listen(self, listener: Listener) -> None:
        self._listeners.add(listener)

    def unlisten(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    async def feed(self, data: bytes) -> bool:
        """Builtin servers read no input."""
        return False

    def end_of_input(self) -> None:
        """Builtin servers read no input."""

    def resize(self, width: int, height: int) -> None:
        """Builtin servers have no terminal."""

    async def _listen_on(self, port: ListenPort, http: HttpServer, facts: Facts) -> None:
        families = [socket.AF_INET]
        if any(":" in address for address in self.config.addresses):
            families.append(socket.AF_INET6)
        for family in families:
            try:
                if port.protocol == "UDP":
                    bound = self._bound(family, socket.SOCK_DGRAM, port.number)
                    self._datagrams.append(
                        await serve_datagrams(bound, self._builtin.behaviour, facts, self._spent)
                    )
                elif port.protocol == "TCP":
                    await http.serve(self._bound(family, socket.SOCK_STREAM, port.number))
            except OSError as error:
                where = "[::]" if family == socket.AF_INET6 else "0.0.0.0"
                self._log.line(
                    "stderr",
                    f"bind() to {where}:{port.number} failed ({error.errno}: {error.strerror})",
                )
                raise

    def _bound(self, family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
        with open_namespace(self.config.network) as namespace:
            bound = socket_in(namespace, family, kind)
        try:
            bound.setblocking(False)
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(("::" if family == socket.AF_INET6 else "", port))
        except BaseException:
            bound.close()
            raise
        return bound

    def _access(self, line: str) -> None:
        self._log.line("stdout", line)
        for listener in list(self._listeners):
            listener("stdout", line.encode("utf-8", "replace") + b"\n")

    @property
    def handling_nanos(self) -> int:
        """CPU time of the runtime's thread that went into answering for this container."""
        return self._spent.nanos

    def mount_namespaces(self) -> tuple[int, ...]:
        """Where the process that stands in for it is, and what was executed beside it."""
        if self._holder is None or not self._holder.running:
            return ()
        return (mount_namespace(self._holder.pid),)

    def _holder_root(self) -> str:
        return f"/proc/{self._holder.pid}/root" if self._holder is not None and self._holder.running else ""

    async def _drain(self, grace: float) -> None:
        code = 0
        if self._http is not None:
            self._http.close_listeners()
            try:
                async with asyncio.timeout(max(grace, 0)):
                    await self._http.drained()
            except TimeoutError:
                code = 137
                self._http.abort()
        self._end(code, "Completed" if code == 0 else "Error")

    def _end(self, code: int, reason: str) -> None:
        for transport in self._datagrams:
            transport.close()
        self._datagrams.clear()
        if self._holder is not None:
            self._holder.send(9)
        self._log.close()
        self._ended.set()
        self.state = replace(
            self.state, phase=Phase.EXITED, pid=0, exit_code=code, finished_at=time.time(), reason=reason
        )
        self._on_exit(self.state)
