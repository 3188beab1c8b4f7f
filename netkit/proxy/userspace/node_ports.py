"""The NodePorts of one family on one node, which this process keeps from other programs while rules redirect them.

Called by `proxies`. One socket for each, however many service ports claim it: two Services may have one number for a
moment, since their changes come in any order. Which of them gets the packets is then a matter of their rules.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable

from netkit.kernel.errors import KernelError
from netkit.proxy.services import Protocol, ServicePort, ServicePortName
from netkit.proxy.userspace.listening import Sockets

log = logging.getLogger(__name__)

_Number = tuple[Protocol, int]


class NodePorts:
    """Those that are held, and those that another program has."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._claims: dict[ServicePortName, _Number] = {}
        self._held: dict[_Number, socket.socket] = {}
        self._lost: set[_Number] = set()

    @property
    def names(self) -> frozenset[ServicePortName]:
        """The service ports with a NodePort."""
        return frozenset(self._claims)

    def claim(self, ports: Iterable[ServicePort]) -> None:
        """Hold the NodePorts of `ports`, which may be others than before, as far as no other program has them.

        Raises KernelError when that cannot be found out.
        """
        wanted: dict[_Number, ServicePortName] = {}
        for port in ports:
            if port.node_port:
                number = self._claims[port.name] = (port.protocol, port.node_port)
                wanted.setdefault(number, port.name)
            else:
                self._claims.pop(port.name, None)
        self._tidy()
        for number, name in wanted.items():
            if number not in self._held:
                self._hold(number, name)

    def release(self, names: Iterable[ServicePortName]) -> None:
        """Hold the NodePorts of `names` no longer, unless others claim them as well."""
        for name in names:
            self._claims.pop(name, None)
        self._tidy()

    def is_held(self, name: ServicePortName) -> bool:
        """Whether the service port's NodePort, if it has one, is not another program's."""
        return self._claims.get(name) not in self._lost

    def _hold(self, number: _Number, name: ServicePortName) -> None:
        try:
            self._held[number] = self._sockets.held(*number)
        except KernelError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if number not in self._lost:
                log.warning("%s: NodePort %d is not opened: %s", name, number[1], error)
            self._lost.add(number)
        else:
            self._lost.discard(number)

    def _tidy(self) -> None:
        claimed = set(self._claims.values())
        self._lost &= claimed
        for number in self._held.keys() - claimed:
            self._held.pop(number).close()
