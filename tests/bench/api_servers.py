"""The two servers `api.py` compares, each the whole of a process of its own: the control plane, and the floor.

    python tests/bench/api_servers.py control-plane|floor DIRECTORY

Prints its port once it answers, and ends when its standard input does. Both take their certificates from
`DIRECTORY/pki`. The floor is aiohttp's bare server: it answers what lies in `DIRECTORY/answers`, bytes that the
control plane answered before, and passes `event` on to its watchers whenever something is posted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from controlplane.apiserver.server import serve_control_plane
from controlplane.apiserver.server_certificates import prepare_pki, server_tls
from controlplane.apiserver.settings import ControlPlaneSettings

JSON = {"Content-Type": "application/json"}


def settings(directory: Path) -> ControlPlaneSettings:
    return ControlPlaneSettings(data_dir=directory / "data", pki_dir=directory / "pki")


async def no_kubelet(address: str, port: int) -> socket.socket:
    raise ConnectionRefusedError(f"connect {address}:{port}: there are no nodes here")


async def control_plane(directory: Path, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    await serve_control_plane(settings(directory), [sock], no_kubelet, on_ready=on_ready)


class Floor:
    """GET answers a file; GET of `watch` follows; POST answers `create` and tells those who follow."""

    def __init__(self, answers: Path) -> None:
        self._answers = {f"/{path.name}": path.read_bytes() for path in answers.iterdir()}
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            await request.read()
            for queue in self._queues:
                queue.put_nowait(self._answers["/event"])
            return web.Response(status=201, body=self._answers["/create"], headers=JSON)
        if request.path == "/watch":
            return await self._follow(request)
        return web.Response(body=self._answers[request.path], headers=JSON)

    async def _follow(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers=JSON)
        response.enable_chunked_encoding()
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                await response.write(await queue.get())
        finally:
            self._queues.discard(queue)


async def floor(directory: Path, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    server = web.Server(Floor(directory / "answers").respond, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        tls = server_tls(prepare_pki(settings(directory)), [directory / "pki" / "ca.crt"])
        await web.SockSite(runner, sock, ssl_context=tls, backlog=512).start()
        on_ready()
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


async def main() -> None:
    serve = {"control-plane": control_plane, "floor": floor}[sys.argv[1]]
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    serving = asyncio.create_task(serve(Path(sys.argv[2]), sock, lambda: print(port, flush=True)))
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        # The thread that waits for the input's end would hold back an exception for ever.
        logging.error("the server ended", exc_info=serving.exception())
        os._exit(1)
    serving.cancel()
    await asyncio.wait((serving,))


if __name__ == "__main__":
    asyncio.run(main())
