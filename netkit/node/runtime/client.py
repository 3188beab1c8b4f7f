"""The agent's connection to its node's runtime process: calls, exit events, streams; reconnects by itself.

Used by the pod workers, the prober and the kubelet server. A lost connection means that the runtime died
and all its containers with it: `on_connect` hands what a new one has to the agent, which compares.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from netkit.node.runtime.frames import Channel, FrameDecoder, encode
from netkit.node.runtime.spec import (
    ContainerConfig,
    ContainerState,
    ExecRequest,
    RuntimeUsage,
    state_from_json,
    usage_from_json,
)

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.05
_LONGEST_LINE = 8 << 20


class RuntimeGone(Exception):
    """The runtime process is not there, or went while it was asked."""


class RuntimeRefused(Exception):
    """The runtime could not do it. `kind`: start, unknown-container, not-running or invalid."""

    def __init__(self, kind: str, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.missing = missing


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a program run for a probe or a hook gave."""

    exit_code: int
    output: bytes
    timed_out: bool


class RuntimeClient:
    """One connection for calls and events; each stream opens its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._connected = asyncio.Event()
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self.on_exit: Callable[[ContainerState], None] | None = None
        self.on_connect: Callable[[list[ContainerState]], None] | None = None

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        try:
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(
                        str(self._socket), limit=_LONGEST_LINE
                    )
                except OSError:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                await self._use(reader, writer)
        finally:
            self._fail_all()

    async def connected(self) -> None:
        """Return once the runtime is there and its containers were handed to `on_connect`."""
        await self._connected.wait()

    async def disconnected(self) -> None:
        """Return once (or while) the runtime is not there."""
        await self._disconnected.wait()

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    async def states(self) -> list[ContainerState]:
        return [state_from_json(item) for item in await self._call("list")]

    async def usage(self) -> RuntimeUsage:
        """What the running containers use. Raises RuntimeGone."""
        return usage_from_json(await self._call("usage"))

    async def start(self, config: ContainerConfig) -> ContainerState:
        """Raises RuntimeRefused (kind start) with the reason in container runtimes' words."""
        return state_from_json(await self._call("start", config=config))

    async def stop(self, container: str, grace: float) -> None:
        """Begin to stop; the exit comes as an event."""
        await self._call("stop", container=container, grace=grace)

    async def remove(self, container: str) -> None:
        await self._call("remove", container=container)

    async def run_program(
        self, container: str, argv: list[str], timeout: float, limit: int = 10 * 1024
    ) -> RunResult:
        """Run a program in a container and gather its output."""
        result = await self._call("run", container=container, argv=argv, timeout=timeout, limit=limit)
        return RunResult(result["exit_code"], base64.b64decode(result["output"]), result["timed_out"])

    async def stream(self, request: ExecRequest) -> RuntimeStream:
        """Open an exec or attach stream. Raises RuntimeRefused or RuntimeGone."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=_LONGEST_LINE)
            writer.write(_line({"id": 0, "op": "stream", "request": request}))
            line = await reader.readline()
        except OSError as error:
            raise RuntimeGone(f"container runtime is down: {error}") from error
        try:
            if not line:
                raise RuntimeGone("container runtime is down")
            _result(orjson.loads(line))
        except BaseException:
            writer.close()
            raise
        return RuntimeStream(reader, writer)

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        hello = asyncio.create_task(self._greet())
        try:
            while line := await reader.readline():
                self._take(orjson.loads(line))
        except (ConnectionError, orjson.JSONDecodeError) as error:
            log.warning("runtime connection: %s", error)
        finally:
            hello.cancel()
            await asyncio.gather(hello, return_exceptions=True)
            self._writer = None
            self._fail_all()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            if self._connected.is_set():
                self._connected.clear()
                self._disconnected.set()

    async def _greet(self) -> None:
        try:
            states = await self.states()
        except RuntimeGone:
            return
        if self.on_connect is not None:
            self.on_connect(states)
        self._disconnected.clear()
        self._connected.set()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exited":
            if self.on_exit is not None:
                self.on_exit(state_from_json(message["state"]))
            return
        future = self._waiting.pop(message["id"], None)
        if future is None or future.done():
            return
        try:
            future.set_result(_result(message))
        except RuntimeRefused as error:
            future.set_exception(error)

    async def _call(self, operation: str, **arguments: Any) -> Any:
        if self._writer is None:
            raise RuntimeGone("container runtime is down")
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._writer.write(_line({"id": number, "op": operation, **arguments}))
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def _fail_all(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RuntimeGone("container runtime went down"))
        self._waiting.clear()


class RuntimeStream:
    """The streams of one exec or attach."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder()

    async def write(self, data: bytes) -> None:
        """Input for the program; waits while it does not read."""
        if data:
            await self._send(Channel.STDIN, data)

    async def end_of_input(self) -> None:
        await self._send(Channel.STDIN, b"")

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters."""
        await self._send(Channel.RESIZE, orjson.dumps({"width": width, "height": height}))

    async def read(self) -> list[tuple[Channel, bytes]]:
        """The next output frames; STDOUT, STDERR and finally EXIT. Empty when the stream has ended."""
        while True:
            data = await self._reader.read(64 * 1024)
            if not data:
                return []
            frames = list(self._decoder.feed(data))
            if frames:
                return frames

    async def close(self) -> None:
        """Leave; a program that still runs keeps running without input."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _send(self, channel: Channel, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(encode(channel, payload))
            await self._writer.drain()


def exit_code_of(payload: bytes) -> int:
    """The program's exit code in an EXIT frame."""
    return int(orjson.loads(payload)["exit_code"])


def _line(message: dict[str, Any]) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error:
        raise RuntimeRefused(error["kind"], error["message"], missing=bool(error.get("missing")))
    return message["result"]
