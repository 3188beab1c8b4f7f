"""A kubelet's HTTPS server over processes of this machine: logs, exec and port-forward on WebSockets.

What a pod "runs" are this machine's programs; its only port that answers is the one a test gave in `ports`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from aiohttp import WSMsgType, web

from controlplane.apiserver.pki import CertificateAuthority

_CLOSE = 255


@dataclass(slots=True)
class StreamingKubelet:
    """`log` is what every container wrote. `ports` leads from a pod's port to one of this machine."""

    port: int
    client_tls: ssl.SSLContext
    log: list[str] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def serving(cls, directory: Path) -> AsyncIterator[StreamingKubelet]:
        authority = CertificateAuthority.load_or_create(directory / "kubelet-pki")
        own = authority.ensure("kubelet", "kubelet", ips=[ip_address("127.0.0.1")], client=False, server=True)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(own.cert, own.key)
        client_tls = ssl.create_default_context(cafile=authority.certificate_path)
        client_tls.check_hostname = False
        sock = socket.create_server(("127.0.0.1", 0))
        made = cls(sock.getsockname()[1], client_tls)
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", made._logs)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", made._exec)
        app.router.add_get("/portForward/{namespace}/{pod}", made._forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=tls).start()
        try:
            yield made
        finally:
            await runner.cleanup()

    async def dial(self, host: str, port: int) -> socket.socket:
        """Every node's address leads here."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        lines = self.log[-int(request.query.get("tailLines", 0)) :]
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        for line in lines:
            await answer.write(line.encode() + b"\n")
        return answer

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        client = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await client.prepare(request)
        process = await asyncio.create_subprocess_exec(
            *request.query.getall("command"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        feeding = asyncio.create_task(_feed(client, process.stdin))
        if not request.query.get("input"):
            process.stdin.close()
        await asyncio.gather(_pass(client, 1, process.stdout), _pass(client, 2, process.stderr))
        code = await process.wait()
        status: dict[str, object] = {"metadata": {}, "status": "Success"}
        if code:
            status = {
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": f"command terminated with non-zero exit code: exit status {code}",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        await client.send_bytes(b"\x03" + json.dumps(status).encode())
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await client.close()
        return client

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        client = web.WebSocketResponse(protocols=("v4.channel.k8s.io", "portforward.k8s.io"))
        await client.prepare(request)
        number = int(request.query["port"])
        for channel in (0, 1):
            await client.send_bytes(bytes([channel]) + struct.pack("<H", number))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[number])
        feeding = asyncio.create_task(_feed(client, writer))
        await _pass(client, 0, reader)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        writer.close()
        await client.close()
        return client


async def _pass(client: web.WebSocketResponse, channel: int, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(65536):
        await client.send_bytes(bytes([channel]) + data)


async def _feed(client: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """Channel 0 to `writer`, until the client is gone or closes the channel."""
    while (message := await client.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
        data = message.data.encode() if isinstance(message.data, str) else message.data
        if data[:1] == b"\x00" and len(data) > 1:
            writer.write(data[1:])
            await writer.drain()
        elif data[:2] == bytes([_CLOSE, 0]):
            writer.close()
