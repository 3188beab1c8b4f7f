"""The runtime's Unix socket: one JSON object per line, requests answered by `id`, exits told as events.

A request is `{"id": n, "op": name, ...}`, its answer `{"id": n, "result": ...}` or `{"id": n, "error":
{"kind", "message"}}`. Every connection gets `{"event": "exited", "state": {...}}`. After the answer to
`stream` the connection carries frames (`frames`) until it closes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
from typing import Any

import orjson

from netkit.kernel.container import StartFailure
from netkit.kernel.container_root import overlay_available
from netkit.node.runtime.containers import Containers, UnknownContainer
from netkit.node.runtime.exec_session import ExecSession, attach, gather
from netkit.node.runtime.meter import Meter
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerState, config_from_json, exec_request_from_json

log = logging.getLogger(__name__)

PROTOCOL = 1
_LONGEST_LINE = 8 << 20


class RuntimeServer:
    """Serves one node's containers. `start`, then `close`."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._containers = Containers(settings, self._tell_exit)
        self._meter = Meter()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._overlay = overlay_available()

    async def start(self) -> None:
        """Listen on the socket; a stale one of a dead runtime is replaced. Raises OSError."""
        self._settings.scratch.mkdir(parents=True, exist_ok=True)
        path = self._settings.socket
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=_LONGEST_LINE)
        path.chmod(0o600)
        if not self._overlay:
            log.warning(
                "%s: no overlayfs: containers see the machine's files read-only", self._settings.node_name
            )

    async def close(self) -> None:
        """Kill all containers and stop serving."""
        if self._server is not None:
            self._server.close()
        await self._containers.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.close()
        self._settings.socket.unlink(missing_ok=True)

    def _tell_exit(self, state: ContainerState) -> None:
        log.info("%s: exited with code %d", state.config.key, state.exit_code)
        line = orjson.dumps({"event": "exited", "state": state}, option=orjson.OPT_APPEND_NEWLINE)
        for writer in self._writers:
            writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                request = orjson.loads(line)
                if request.get("op") == "stream":
                    self._writers.discard(writer)
                    await self._stream(request, reader, writer)
                    break
                task = asyncio.create_task(self._answer(request, writer), name=f"request {request.get('op')}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (ConnectionError, orjson.JSONDecodeError, ValueError) as error:
            log.warning("%s: connection dropped: %s", self._settings.node_name, error)
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer: dict[str, Any] = {"id": request.get("id")}
        try:
            answer["result"] = await self._perform(request)
        except (StartFailure, UnknownContainer, RuntimeError, KeyError, TypeError, OSError) as error:
            answer["error"] = _error(error)
        if writer.is_closing():
            return
        writer.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def _perform(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "hello":
                return {"protocol": PROTOCOL, "pid": os.getpid(), "overlay": self._overlay}
            case "list":
                return self._containers.states()
            case "usage":
                return self._meter.measure(self._containers.running())
            case "start":
                return await self._containers.start(config_from_json(request["config"]))
            case "stop":
                self._containers.get(request["container"]).stop(float(request["grace"]))
                return None
            case "remove":
                await self._containers.remove(request["container"])
                return None
            case "run":
                result = await gather(
                    self._containers.get(request["container"]),
                    request["argv"],
                    float(request["timeout"]),
                    int(request["limit"]),
                )
                return {
                    "exit_code": result.exit_code,
                    "output": base64.b64encode(result.output).decode(),
                    "timed_out": result.timed_out,
                }
            case unknown:
                raise KeyError(f"unknown operation {unknown}")

    async def _stream(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer: dict[str, Any] = {"id": request.get("id")}
        session: ExecSession | None = None
        try:
            wanted = exec_request_from_json(request["request"])
            container = self._containers.get(wanted.container)
            if not wanted.attach:
                session = await ExecSession.open(container, wanted)
            answer["result"] = {}
        except (StartFailure, UnknownContainer, RuntimeError, KeyError, TypeError, OSError) as error:
            answer["error"] = _error(error)
        writer.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
        if "error" in answer:
            return
        if session is not None:
            await session.serve(reader, writer)
        else:
            await attach(container, wanted, reader, writer)


def _error(error: BaseException) -> dict[str, Any]:
    if isinstance(error, StartFailure):
        return {"kind": "start", "message": str(error), "missing": error.missing, "errno": error.errno}
    if isinstance(error, UnknownContainer):
        return {"kind": "unknown-container", "message": str(error)}
    if isinstance(error, RuntimeError):
        return {"kind": "not-running", "message": str(error)}
    return {"kind": "invalid", "message": f"{type(error).__name__}: {error}"}
