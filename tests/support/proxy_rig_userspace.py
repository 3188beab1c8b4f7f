"""What sequences of changes play on in userspace mode, and the proxies, held ports and rules they end in.

The ports of proxies are any free ones: rules are compared with the service port's name in their place.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

from support.proxy import FakeNodeKernel
from support.proxy_modes import proxy_ports, userspace_settings, without_proxy_ports
from support.proxy_player import ADDRESSES, Rig
from support.proxy_sequences import HERE

from netkit.kernel.errors import KernelError
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.kernel.netns import HOST
from netkit.proxy.addresses import Address, Family
from netkit.proxy.services import Protocol
from netkit.proxy.settings import ProxySettings
from netkit.proxy.userspace.backend import UserspaceBackend
from netkit.proxy.userspace.proxies import NodeProxies


class FakeSocket(socket.socket):
    """A socket that no packet reaches. It takes a port from the others of its kernel until it is closed."""

    def __init__(self, kernel: FakeSockets, protocol: Protocol, port: int) -> None:
        super().__init__(
            socket.AF_UNIX, socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        )
        self.bind("")
        self.setblocking(False)
        self._taken = (protocol, port)
        self._kernel = kernel
        kernel.open[self._taken] = self

    def getsockname(self) -> Any:
        return "", self._taken[1]

    def close(self) -> None:
        if self.fileno() >= 0:
            del self._kernel.open[self._taken]
        super().close()


class FakeSockets:
    """All sockets of one node. The next `failures` times there is none to be had."""

    def __init__(self) -> None:
        self.open: dict[tuple[Protocol, int], FakeSocket] = {}
        self.failures = 0
        self._last = 40_000

    def proxy(self, protocol: Protocol, port: int, address: Address | None) -> socket.socket:
        if not port:
            self._last += 1
        return self._taken(protocol, port or self._last)

    def held(self, protocol: Protocol, port: int) -> socket.socket:
        return self._taken(protocol, port)

    def _taken(self, protocol: Protocol, port: int) -> socket.socket:
        if self.failures:
            self.failures -= 1
            raise KernelError("socket", "fake", errno.EMFILE)
        if (protocol, port) in self.open:
            raise KernelError(f"bind({protocol} port {port})", "fake", errno.EADDRINUSE)
        return FakeSocket(self, protocol, port)


class UserspaceRig(Rig):
    """The userspace mode with fake iptables and sockets."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.iptables = FakeIPTables(version=family.version)
        self.sockets = FakeSockets()
        self.proxies = NodeProxies(HOST, family, self.sockets)

    async def start(self, settings: ProxySettings) -> UserspaceBackend:
        """The proxies of the process before have died with it."""
        await self.proxies.stop()
        assert not self.sockets.open
        self.proxies = NodeProxies(HOST, self.family, self.sockets)
        kernel = FakeNodeKernel(local=ADDRESSES)
        return UserspaceBackend(
            HERE, userspace_settings(settings), cast(Any, self.iptables), kernel, self.proxies
        )

    def fail(self, place: int | None) -> None:
        self.iptables.failures = place in (0, 1)
        self.sockets.failures = place in (2, 3)

    async def content(self) -> Any:
        """The rules, and what listens where: proxy ports by their service ports."""
        rules = self.iptables.standing()
        names = proxy_ports(rules)
        listening = sorted(str(names.get(taken, taken)) for taken in self.sockets.open)
        endpoints = {
            name: {endpoint.target for endpoint in self.proxies.endpoints_of(name)} for name in names.values()
        }
        return without_proxy_ports(rules), listening, endpoints

    async def close(self) -> None:
        await self.proxies.stop()
        assert not self.sockets.open
