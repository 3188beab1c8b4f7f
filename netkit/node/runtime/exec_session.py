"""Programs executed in a running container, with their streams on a runtime connection or gathered for a
probe.

Used by `server`. One session per request; the program dies with the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from netkit.kernel.container import Stdio, enter
from netkit.kernel.pty_process import end_of_input, resize, take_master
from netkit.node.runtime import launch
from netkit.node.runtime.child import Child, exit_code
from netkit.node.runtime.containers import Container
from netkit.node.runtime.frames import Channel, FrameDecoder, encode
from netkit.node.runtime.pipes import Input, Output
from netkit.node.runtime.spec import ExecRequest

_CHUNK = 64 * 1024
_LINGER_SECONDS = 1.0
_MOST_WAITING = 16 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """What a gathered execution gave; `timed_out` programs were killed."""

    exit_code: int
    output: bytes
    timed_out: bool = False


async def gather(container: Container, argv: Sequence[str], timeout: float, limit: int) -> Result:
    """Run `argv` in the container, at most `timeout` seconds, and keep `limit` bytes of stdout and stderr.

    Raises StartFailure when the program cannot be executed, RuntimeError when the container has ended.
    """
    pidfd, pid = await container.target()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        program = launch.program(container.config, argv, terminal=False)
        spawned = enter(pidfd, pid, program, Stdio(null, write, write))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(null)
        os.close(write)
    collected = bytearray()

    async def collect() -> None:
        async for data in Output(read).chunks():
            if len(collected) < limit:
                collected.extend(data[: limit - len(collected)])

    reader = asyncio.create_task(collect())
    try:
        child = await Child.started(spawned)
        try:
            async with asyncio.timeout(timeout):
                status = await child.ended()
                await _linger([reader])
        except TimeoutError:
            child.send(signal.SIGKILL)
            await child.ended()
            return Result(137, bytes(collected), timed_out=True)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    return Result(exit_code(status)[0], bytes(collected))


class ExecSession:
    """One program on one connection. Make it with `open`, then `serve`."""

    def __init__(self, child: Child, outputs: dict[Channel, int], stdin: Input | None, terminal: int) -> None:
        self._child = child
        self._outputs = outputs
        self._stdin = stdin
        self._terminal = terminal

    @classmethod
    async def open(cls, container: Container, request: ExecRequest) -> ExecSession:
        """Start the program. Raises StartFailure or RuntimeError as `gather`."""
        return await (cls._with_terminal if request.tty else cls._with_pipes)(container, request)

    @classmethod
    async def _with_terminal(cls, container: Container, request: ExecRequest) -> ExecSession:
        pidfd, pid = await container.target()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                program = launch.program(container.config, request.argv, terminal=True)
                spawned = enter(pidfd, pid, program, Stdio(console=theirs.fileno()))
            child = await Child.started(spawned)
            master = take_master(ours)
        stdin = Input(os.dup(master)) if request.stdin else None
        return cls(child, {Channel.STDOUT: master}, stdin, os.dup(master))

    @classmethod
    async def _with_pipes(cls, container: Container, request: ExecRequest) -> ExecSession:
        pidfd, pid = await container.target()
        stdin: Input | None = None
        if request.stdin:
            source, sink = os.pipe2(os.O_CLOEXEC)
            stdin = Input(sink)
        else:
            source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                program = launch.program(container.config, request.argv, terminal=False)
                spawned = enter(pidfd, pid, program, Stdio(source, out_end, err_end))
            finally:
                for fd in (source, out_end, err_end):
                    os.close(fd)
            child = await Child.started(spawned)
        except BaseException:
            for fd in (out, err):
                os.close(fd)
            if stdin is not None:
                stdin.close()
            raise
        return cls(child, {Channel.STDOUT: out, Channel.STDERR: err}, stdin, -1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass streams until the program has ended and its output is through, or the client is gone."""
        lock = asyncio.Lock()
        pumps = [
            asyncio.create_task(_send_output(channel, Output(fd), writer, lock))
            for channel, fd in self._outputs.items()
        ]
        receiver = asyncio.create_task(self._receive(reader))
        ended = asyncio.create_task(self._child.ended())
        try:
            await asyncio.wait([ended, receiver], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                return
            status = await ended
            await _linger(pumps)
            report = orjson.dumps({"exit_code": exit_code(status)[0]})
            with contextlib.suppress(ConnectionError):
                async with lock:
                    writer.write(encode(Channel.EXIT, report))
                    await writer.drain()
        finally:
            for task in (*pumps, receiver, ended):
                task.cancel()
            await asyncio.gather(*pumps, receiver, ended, return_exceptions=True)
            if self._stdin is not None:
                self._stdin.close()
            if self._terminal >= 0:
                os.close(self._terminal)

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        """Pass input on until the client is gone."""
        decoder = FrameDecoder()
        while data := await reader.read(_CHUNK):
            for channel, payload in decoder.feed(data):
                await self._take(channel, payload)

    async def _take(self, channel: Channel, payload: bytes) -> None:
        if channel is Channel.RESIZE and self._terminal >= 0:
            size = orjson.loads(payload)
            resize(self._terminal, int(size["width"]), int(size["height"]))
        elif channel is Channel.STDIN and self._stdin is not None:
            if payload:
                await self._stdin.write(payload)
            elif self._terminal >= 0:
                with contextlib.suppress(OSError):
                    end_of_input(self._terminal)
            else:
                self._stdin.close()


async def attach(
    container: Container, request: ExecRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Join a container's own output and input until it ends or the client leaves."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    channels = {"stdout": Channel.STDOUT, "stderr": Channel.STDERR}
    waiting = 0

    def listener(stream: str, data: bytes) -> None:
        nonlocal waiting
        waiting += len(data)
        if waiting > _MOST_WAITING:
            # The container must not wait for who watches it, and not all it says can be kept.
            container.unlisten(listener)
            queue.put_nowait(None)
            return
        queue.put_nowait(encode(channels[stream], data))

    async def receive() -> None:
        decoder = FrameDecoder()
        while data := await reader.read(_CHUNK):
            for channel, payload in decoder.feed(data):
                if channel is Channel.RESIZE:
                    size = orjson.loads(payload)
                    container.resize(int(size["width"]), int(size["height"]))
                elif channel is Channel.STDIN and request.stdin:
                    if payload:
                        await container.feed(payload)
                    else:
                        container.end_of_input()
        queue.put_nowait(None)

    async def until_ended() -> None:
        await container.ended()
        # Attaching has no exit code of its own, as with other runtimes: clients read the pod's status for it.
        report = orjson.dumps({"exit_code": 0})
        queue.put_nowait(encode(Channel.EXIT, report))
        queue.put_nowait(None)

    container.listen(listener)
    tasks = [asyncio.create_task(receive()), asyncio.create_task(until_ended())]
    try:
        while (frame := await queue.get()) is not None:
            writer.write(frame)
            await writer.drain()
            waiting = max(waiting - len(frame), 0)
    finally:
        container.unlisten(listener)
        if request.stdin:
            container.end_of_input()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_output(
    channel: Channel, output: Output, writer: asyncio.StreamWriter, lock: asyncio.Lock
) -> None:
    async for data in output.chunks():
        async with lock:
            writer.write(encode(channel, data))
            await writer.drain()


async def _linger(readers: Sequence[asyncio.Task[None]]) -> None:
    """Let output that is on its way arrive; a background process may hold the pipe open for ever."""
    await asyncio.wait(readers, timeout=_LINGER_SECONDS)
