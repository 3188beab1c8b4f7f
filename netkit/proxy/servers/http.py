"""Small HTTP servers inside a node's namespace: one handler for all paths, on a few addresses.

Used by the proxy's servers and by the Services' health servers. Knows nothing of either.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.netns import Namespace, socket_in
from netkit.proxy.addresses import Address, host_port, parse_address

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

NO_SNIFF = {"X-Content-Type-Options": "nosniff"}
_BACKLOG = 128


class HttpServer:
    """A handler that listens. Make it with `serve`."""

    def __init__(self, protocol: web.Server, listeners: Sequence[asyncio.Server]) -> None:
        self._protocol = protocol
        self._listeners = listeners

    @property
    def port(self) -> int:
        """The port of the first address; tests ask for any by 0."""
        number: int = self._listeners[0].sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Give the addresses back; requests in work are cut off."""
        for listener in self._listeners:
            listener.close()
        await self._protocol.shutdown(0)


async def serve(
    ns: Namespace, addresses: Sequence[Address], port: int, handler: Handler, *, both: bool = False
) -> HttpServer:
    """Listen on `port` of all `addresses` in `ns`. KernelError when one of them cannot be had; then on none.

    With `both`, the address that stands for all (0.0.0.0 or ::) means those of both families, as Go has it.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets.append(_listening(ns, address, port, both=both and address.is_unspecified))
    except KernelError:
        for sock in sockets:
            sock.close()
        raise
    loop = asyncio.get_running_loop()
    protocol = web.Server(handler, access_log=None)
    return HttpServer(protocol, [await loop.create_server(protocol, sock=sock) for sock in sockets])


def parse_bind_address(text: str, default_port: int) -> tuple[Address, int]:
    """Address and port of `10.0.0.1:80`, `[::]:80` or an address alone. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        return parse_address(text.strip("[]")), default_port
    return parse_address(host.strip("[]")), int(port)


def _listening(ns: Namespace, address: Address, port: int, *, both: bool) -> socket.socket:
    if both:
        try:
            return _bound(ns, socket.AF_INET6, "::", port, only=False)
        except KernelError as error:
            # No IPv6 here.
            if not error.is_unsupported and error.errno != errno.EADDRNOTAVAIL:
                raise
            return _bound(ns, socket.AF_INET, "0.0.0.0", port, only=True)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _bound(ns, family, str(address), port, only=True)


def _bound(ns: Namespace, family: int, host: str, port: int, *, only: bool) -> socket.socket:
    sock = socket_in(ns, family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        where = host_port(parse_address(host), port)
        raise from_os_error(error, f"listen tcp {where}", ns.name) from error
    return sock
