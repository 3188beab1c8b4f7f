"""The proxies of all service ports of one family on one node, and the NodePorts that are held for them.

Called by `backend`, which writes the rules that lead here. A proxy keeps its port for as long as its service port
exists, so that rules change only when addresses do. Proxies belong to the process, not to a back end, as rules belong
to the kernel: they go on when an agent stops, serve until another mode has taken over, and are taken over themselves by
the next back end of the same namespace.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable
from typing import Protocol as Interface

from netkit.kernel.errors import KernelError
from netkit.kernel.limits import allow_open_files
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address, Family
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import Protocol, ServicePort, ServicePortName
from netkit.proxy.userspace.listening import NodeSockets, Sockets
from netkit.proxy.userspace.node_ports import NodePorts
from netkit.proxy.userspace.roundrobin import RoundRobin
from netkit.proxy.userspace.tcp import TCPProxy
from netkit.proxy.userspace.udp import UDPProxy

log = logging.getLogger(__name__)

_OPEN_FILES = 64_000
"""Two for each connection; Kubernetes' figure."""


class Proxies(Interface):
    """Driver interface of `backend`; `NodeProxies` is the real one."""

    def hold(self, ports: Iterable[ServicePort], gone: Iterable[ServicePortName]) -> None:
        """Keep other programs from the NodePorts of `ports`, and no longer from those of `gone`.

        Raises KernelError, but not for those that another program has.
        """

    def open(
        self, port: ServicePort, endpoints: Iterable[Endpoint], wanted: int, address: Address | None
    ) -> int:
        """Proxy `port` to `endpoints`: the port on which the proxy listens, `wanted` if that is free (0: any).

        It listens on `address` of the node (None: on all). A port that is proxied there already keeps its proxy.
        Raises KernelError.
        """

    def port_of(self, name: ServicePortName) -> int:
        """Where the proxy of a service port listens; 0 if it has none."""

    def node_port_held(self, name: ServicePortName) -> bool:
        """Whether the service port's NodePort, if it has one, is its own and not another program's."""

    def endpoints_of(self, name: ServicePortName) -> tuple[Endpoint, ...]:
        """The endpoints of a proxied service port, the next one first."""

    def close_others(self, names: Iterable[ServicePortName]) -> None:
        """End the proxies of all service ports but `names`. TCP connections that are open go on."""

    def close(self, names: Iterable[ServicePortName]) -> None:
        """End the proxies of `names`. TCP connections that are open go on."""

    async def stop(self) -> None:
        """End all proxies and all connections."""


class NodeProxies:
    """Proxies whose `sockets` live in the namespace `ns`. To be had from `proxies_at`."""

    def __init__(self, ns: Namespace, family: Family, sockets: Sockets | None = None) -> None:
        self._ns = ns
        self._family = family
        self._sockets = sockets or NodeSockets(ns, family)
        self._proxies: dict[ServicePortName, TCPProxy | UDPProxy] = {}
        self._listens_on: dict[ServicePortName, Address | None] = {}
        self._ending: list[TCPProxy | UDPProxy] = []
        self._choices: dict[ServicePortName, RoundRobin] = {}
        self._node_ports = NodePorts(self._sockets)
        self._files_allowed = False

    def hold(self, ports: Iterable[ServicePort], gone: Iterable[ServicePortName]) -> None:
        """See `Proxies`."""
        self._node_ports.release(gone)
        self._node_ports.claim(ports)

    def open(
        self, port: ServicePort, endpoints: Iterable[Endpoint], wanted: int, address: Address | None
    ) -> int:
        """See `Proxies`."""
        name = port.name
        proxy = self._proxies.get(name)
        if proxy is not None and self._listens_on[name] != address:
            self._end(name)
            proxy = None
        choice = self._choices.setdefault(name, RoundRobin())
        choice.configure(port.affinity_seconds)
        choice.forget_idle(time.monotonic())
        gone = choice.update(endpoints)
        if proxy is not None:
            proxy.endpoints_gone(gone)
            return proxy.port
        sock = self._listening(name, wanted, address)
        kind = TCPProxy if name.protocol is Protocol.TCP else UDPProxy
        proxy = kind(name, self._ns, self._family, sock, choice)
        proxy.start()
        self._proxies[name], self._listens_on[name] = proxy, address
        log.debug("%s: proxied on %s port %d", name, name.protocol, proxy.port)
        return proxy.port

    def port_of(self, name: ServicePortName) -> int:
        """See `Proxies`."""
        proxy = self._proxies.get(name)
        return proxy.port if proxy is not None else 0

    def node_port_held(self, name: ServicePortName) -> bool:
        """See `Proxies`."""
        return self._node_ports.is_held(name)

    def endpoints_of(self, name: ServicePortName) -> tuple[Endpoint, ...]:
        """See `Proxies`."""
        choice = self._choices.get(name)
        return choice.endpoints if choice is not None else ()

    def close_others(self, names: Iterable[ServicePortName]) -> None:
        """See `Proxies`."""
        self.close((self._choices.keys() | self._node_ports.names) - set(names))

    def close(self, names: Iterable[ServicePortName]) -> None:
        """See `Proxies`."""
        ending = list(names)
        self._node_ports.release(ending)
        for name in ending:
            self._choices.pop(name, None)
            self._end(name)
        self._ending = [proxy for proxy in self._ending if proxy.busy]

    async def stop(self) -> None:
        """See `Proxies`."""
        self.close_others(())
        for proxy in self._ending:
            await proxy.stop()
        self._ending.clear()
        _here().pop((self._ns.inode, self._family), None)

    def _end(self, name: ServicePortName) -> None:
        proxy = self._proxies.pop(name, None)
        if proxy is not None:
            proxy.close()
            self._ending.append(proxy)

    def _listening(self, name: ServicePortName, wanted: int, address: Address | None) -> socket.socket:
        if not self._files_allowed:
            allow_open_files(_OPEN_FILES)
            self._files_allowed = True
        if wanted:
            try:
                return self._sockets.proxy(name.protocol, wanted, address)
            except KernelError as error:
                log.info("%s: its former proxy port cannot be had again: %s", name, error)
        return self._sockets.proxy(name.protocol, 0, address)


_Key = tuple[int, Family]
_ALL: dict[asyncio.AbstractEventLoop, dict[_Key, NodeProxies]] = {}
"""The proxies at work in each loop, by the inode of their namespace and by family."""


def proxies_at(ns: Namespace, family: Family) -> NodeProxies:
    """The proxies of one family in a namespace, as far as the running loop has them: always the same ones."""
    here, key = _here(), (ns.inode, family)
    if key not in here:
        here[key] = NodeProxies(ns, family)
    return here[key]


def _here() -> dict[_Key, NodeProxies]:
    """The running loop's. What a loop that is closed has left open is closed."""
    for loop in [loop for loop in _ALL if loop.is_closed()]:
        for proxies in _ALL.pop(loop).values():
            proxies.close_others(())
    return _ALL.setdefault(asyncio.get_running_loop(), {})
