"""One probe, carried out: HTTP and TCP from the node's namespace, exec through the runtime. Used by `prober`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.connecting import open_stream
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace, socket_in
from netkit.node.runtime.client import RuntimeClient, RuntimeGone, RuntimeRefused

_AGENT = "kube-probe/1.32"
_LARGEST_ANSWER = 10 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """`text` is kubelet's explanation of a failure."""

    success: bool
    text: str = ""


async def http_get(
    namespace: Namespace, address: str, port: int, action: Mapping[str, Any], timeout: float
) -> Outcome:
    """GET; success is a status from 200 to 399. The answer's certificate is not checked, as upstream does not."""
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = str(action.get("host") or address)
    path = str(action.get("path") or "/")
    path = path if path.startswith("/") else f"/{path}"
    url = f"{scheme}://{_joined(host, port)}{path}"
    try:
        async with asyncio.timeout(timeout):
            status = await _status_of(namespace, host, port, path, action, tls=scheme == "https")
    except TimeoutError:
        return Outcome(
            False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        )
    except (OSError, ValueError, KernelError) as error:
        return Outcome(False, f'Get "{url}": {_dial_text(error, host, port)}')
    if 200 <= status < 400:
        return Outcome(True)
    return Outcome(False, f"HTTP probe failed with statuscode: {status}")


async def tcp_connect(namespace: Namespace, address: str, port: int, timeout: float) -> Outcome:
    """Success when the port accepts."""
    try:
        async with asyncio.timeout(timeout):
            sock = await _connected(namespace, address, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {_joined(address, port)}: i/o timeout")
    except (OSError, KernelError) as error:
        return Outcome(False, _dial_text(error, address, port))
    sock.close()
    return Outcome(True)


async def execute(runtime: RuntimeClient, container: str, command: list[str], timeout: float) -> Outcome:
    """Success when the command ends with 0."""
    try:
        result = await runtime.run_program(container, command, timeout)
    except (RuntimeGone, RuntimeRefused) as error:
        return Outcome(False, str(error))
    if result.timed_out:
        return Outcome(
            False, f"command timed out: {command!r} timed out after {timeout:g}s".replace("'", '"')
        )
    return Outcome(result.exit_code == 0, result.output.decode("utf-8", "replace"))


async def _status_of(
    namespace: Namespace, host: str, port: int, path: str, action: Mapping[str, Any], *, tls: bool
) -> int:
    context: ssl.SSLContext | None = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    sock = await _connected(namespace, host, port)
    reader, writer = await open_stream(sock, context, host, _LARGEST_ANSWER)
    try:
        headers = {"Host": _joined(host, port), "User-Agent": _AGENT, "Accept": "*/*", "Connection": "close"}
        for header in action.get("httpHeaders") or ():
            headers[str(header["name"]).title()] = str(header["value"])
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace"))
        line = (await reader.readline()).decode("latin-1")
        words = line.split(" ")
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
            raise ValueError("EOF" if not line else f"malformed HTTP response {line.strip()!r}")
        return int(words[1])
    finally:
        writer.transport.abort()


async def _connected(namespace: Namespace, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket_in(namespace, family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _dial_text(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", 0)
    if number:
        words = {errno.EHOSTUNREACH: "no route to host"}.get(number, os.strerror(number).lower())
        return f"dial tcp {_joined(host, port)}: connect: {words}"
    return str(error)
