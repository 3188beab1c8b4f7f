"""A server of the proxy about itself: listens, tries again when its address is taken, answers by path.

What is answered comes from `healthz` and `metrics_pages`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.proxy.reports import Reports
from netkit.proxy.servers.http import NO_SNIFF, HttpServer, parse_bind_address, serve

log = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds, as kube-proxy."""

Page = Callable[[web.BaseRequest], Awaitable[web.Response]]


class StatusServer:
    """The pages of `pages` by path, at `bind_address` in `ns`.

    `name` says in the log what this server is, `reason` is that of the Event when the address cannot be had. With
    `hard_fail` that ends the agent.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        ns: Namespace,
        bind_address: str,
        pages: Mapping[str, Page],
        reports: Reports,
        *,
        default_port: int,
        hard_fail: bool = False,
        retry: float = RETRY,
    ) -> None:
        self._name = name
        self._reason = reason
        self._ns = ns
        self._address, self._port = parse_bind_address(bind_address, default_port)
        self._pages = pages
        self._reports = reports
        self._hard_fail = hard_fail
        self._retry = retry
        self._server: asyncio.Future[HttpServer] | None = None

    async def started(self) -> HttpServer:
        """Return once it listens."""
        if self._server is None:
            self._server = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._server)

    async def run(self) -> None:
        """See `Server`. Raises KernelError when the address is taken and that is fatal."""
        server = await self._listen()
        if self._server is None:
            self._server = asyncio.get_running_loop().create_future()
        self._server.set_result(server)
        try:
            await asyncio.Event().wait()
        finally:
            await server.close()

    async def _listen(self) -> HttpServer:
        told = False
        while True:
            try:
                return await serve(self._ns, [self._address], self._port, self._answer, both=True)
            except KernelError as error:
                log.error("%s: %s", self._name, error)
                if not told:
                    self._reports.on_node(self._reason, f"{self._name} could not be started: {error}")
                    told = True
                if self._hard_fail:
                    raise
            await asyncio.sleep(self._retry)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            return plain("404 page not found\n", 404)
        return await page(request)


def plain(text: str, status: int = 200) -> web.Response:
    """A page of text."""
    return web.Response(
        status=status,
        body=text.encode(),
        headers={"Content-Type": "text/plain; charset=utf-8", **NO_SNIFF},
    )


def json_page(body: bytes, status: int = 200) -> web.Response:
    """A JSON document."""
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **NO_SNIFF})
