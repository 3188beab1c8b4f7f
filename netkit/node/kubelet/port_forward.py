"""Port-forward: connections into a pod's own localhost, over SPDY streams or WebSocket channels (loop)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct

from aiohttp import WSMsgType, web

from netkit.kernel.errors import KernelError
from netkit.kernel.netns import open_namespace, socket_in
from netkit.node.kubelet.spdy_session import SpdySession, SpdyStream

log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
_CONNECT_SECONDS = 10.0
_MOST_UNPAIRED = 256
_LINGER_SECONDS = 1.0
"""How long a client may go on sending to a pod that has ended its side, as with containerd."""


def parse_port(text: str) -> int | None:
    """The port a client names, None for what is none."""
    if len(text) > 5 or not (text.isascii() and text.isdigit()):
        return None
    return int(text) if 0 < int(text) < 65536 else None


class ForwardFailed(Exception):
    """The pod does not take the connection; the text goes to the client."""


async def connect(network: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to localhost inside the namespace `network`. Raises ForwardFailed."""
    reasons = []
    for family, address, word in ((socket.AF_INET, "127.0.0.1", "tcp4"), (socket.AF_INET6, "::1", "tcp6")):
        shown = f"[{address}]" if family == socket.AF_INET6 else address
        try:
            return await _connect_to(network, family, address, port)
        except TimeoutError:
            reasons.append(f"dial {word} {shown}:{port}: i/o timeout")
        except (OSError, KernelError) as error:
            text = os.strerror(error.errno).lower() if error.errno else str(error)
            reasons.append(f"dial {word} {shown}:{port}: connect: {text}")
    raise ForwardFailed(
        f'failed to connect to localhost:{port} inside namespace "{network}", IPv4: {reasons[0]} IPv6 {reasons[1]}'
    )


async def _connect_to(
    network: str, family: int, address: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with open_namespace(network) as namespace:
        sock = socket_in(namespace, family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


class SpdyForward:
    """All forwarded connections of one SPDY session: each is a pair of streams, `error` and `data`."""

    def __init__(self, session: SpdySession, network: str, pod_name: str) -> None:
        self._session = session
        self._network = network
        self._pod_name = pod_name
        self._errors: dict[str, SpdyStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the client is gone."""
        try:
            while (stream := await self._session.accept()) is not None:
                kind = stream.headers.get("streamtype", "")
                if kind == "error":
                    await self._remember(stream)
                elif kind == "data":
                    error = self._errors.pop(self._request_id(stream), None)
                    task = asyncio.create_task(self._forward(stream, error), name="port-forward")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    await stream.reset()
                    self._session.forget(stream)
        except ConnectionError as error:
            log.debug("%s: %s", self._pod_name, error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _remember(self, error: SpdyStream) -> None:
        """Its data stream is to follow; of clients that never send it only so many are waited for."""
        self._errors[self._request_id(error)] = error
        while len(self._errors) > _MOST_UNPAIRED:
            oldest = self._errors.pop(next(iter(self._errors)))
            await oldest.reset()
            self._session.forget(oldest)

    def _request_id(self, stream: SpdyStream) -> str:
        # Clients that send no id open the error stream right before its data stream.
        number = stream.number if stream.headers.get("streamtype") == "error" else stream.number - 2
        return stream.headers.get("requestid") or f"stream {number}"

    async def _forward(self, data: SpdyStream, error: SpdyStream | None) -> None:
        try:
            port = parse_port(data.headers.get("port", ""))
            if port is None:
                raise ForwardFailed(f'unable to parse "{data.headers.get("port", "")}" as a port')
            reader, writer = await connect(self._network, port)
            inwards = asyncio.create_task(_spdy_to_pod(data, writer))
            try:
                while chunk := await reader.read(_CHUNK):
                    await data.write(chunk)
                await data.finish()
                # kubectl before 1.24 closes its side only after the error stream has ended.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER_SECONDS):
                        await inwards
            finally:
                inwards.cancel()
                writer.close()
                await asyncio.gather(inwards, return_exceptions=True)
        except ForwardFailed as failure:
            text = (
                f"error forwarding port {data.headers.get('port')} to pod {self._pod_name}, uid : {failure}"
            )
            log.info("%s: %s", self._pod_name, failure)
            with contextlib.suppress(ConnectionError):
                if error is not None:
                    await error.write(text.encode())
                await data.finish()
        except (ConnectionError, OSError) as broken:
            log.debug("%s: forwarded connection ended: %s", self._pod_name, broken)
            with contextlib.suppress(ConnectionError):
                await data.reset()
        finally:
            if error is not None:
                with contextlib.suppress(ConnectionError):
                    await error.finish()
                self._session.forget(error)
            self._session.forget(data)


async def _spdy_to_pod(data: SpdyStream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await data.read():
            writer.write(chunk)
            await writer.drain()
        if data.was_reset:
            writer.transport.abort()
        elif writer.can_write_eof():
            writer.write_eof()


class WebSocketForward:
    """Forwarded ports on WebSocket channels: 2i carries data, 2i+1 errors; each begins with the port number."""

    def __init__(self, client: web.WebSocketResponse, network: str, pod_name: str, ports: list[int]) -> None:
        self._client = client
        self._network = network
        self._pod_name = pod_name
        self._ports = ports
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until the client is gone."""
        for index, port in enumerate(self._ports):
            number = struct.pack("<H", port)
            await self._client.send_bytes(bytes([2 * index]) + number)
            await self._client.send_bytes(bytes([2 * index + 1]) + number)
        for index, port in enumerate(self._ports):
            await self._open(index, port)
        try:
            while True:
                message = await self._client.receive()
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    return
                data = message.data.encode() if isinstance(message.data, str) else message.data
                if not data:
                    continue
                writer = self._writers.get(data[0] // 2)
                if writer is not None and data[0] % 2 == 0:
                    with contextlib.suppress(ConnectionError):
                        writer.write(data[1:])
                        await writer.drain()
        finally:
            for task in self._tasks:
                task.cancel()
            for writer in self._writers.values():
                writer.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, index: int, port: int) -> None:
        try:
            reader, writer = await connect(self._network, port)
        except ForwardFailed as failure:
            text = f"error forwarding port {port} to pod {self._pod_name}, uid : {failure}"
            await self._client.send_bytes(bytes([2 * index + 1]) + text.encode())
            return
        self._writers[index] = writer
        self._tasks.append(asyncio.create_task(self._pump(index, reader)))

    async def _pump(self, index: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                await self._client.send_bytes(bytes([2 * index]) + chunk)
        if not self._client.closed:
            # Its one connection has ended and there is no frame for that but the end of everything.
            await self._client.close()
