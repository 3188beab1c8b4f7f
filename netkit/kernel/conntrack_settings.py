"""The kernel's settings of connection tracking as one namespace sees them, and the size of its hash table.

Called by the proxy at its start. How many connections may be tracked belongs to the machine: only the machine's own
namespace may say it, in all others `max` and the hash table are read-only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from netkit.kernel import netns, sysctl
from netkit.kernel.errors import from_os_error
from netkit.kernel.netns import Namespace

HASH_SIZE: Final = "/sys/module/nf_conntrack/parameters/hashsize"


class ConntrackKernel(Protocol):
    """Driver interface; `ConntrackSettings` is the real one. Raises KernelError."""

    def read(self, name: str) -> int: ...

    def write(self, name: str, value: int) -> None: ...

    def hash_size(self) -> int: ...

    def set_hash_size(self, buckets: int) -> None: ...


class ConntrackSettings:
    """The settings in one namespace. `name` is without the prefix: `max`, `udp_timeout`, ..."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns

    def read(self, name: str) -> int:
        """The value now."""
        return int(sysctl.read(self._ns, _key(name)))

    def write(self, name: str, value: int) -> None:
        """Set it; `is_permission` where it is another namespace's."""
        sysctl.write(self._ns, _key(name), value)

    def hash_size(self) -> int:
        """Buckets of the hash table, the machine's."""
        try:
            return int(Path(HASH_SIZE).read_text())
        except OSError as error:
            raise from_os_error(error, f"read {HASH_SIZE}", self._ns.name) from error

    def set_hash_size(self, buckets: int) -> None:
        """Have the table rebuilt with so many buckets; refused outside the machine's own namespace."""
        try:
            with netns.entered(self._ns):
                Path(HASH_SIZE).write_text(str(buckets))
        except OSError as error:
            raise from_os_error(error, f"echo {buckets} > {HASH_SIZE}", self._ns.name) from error


def _key(name: str) -> str:
    return f"net.netfilter.nf_conntrack_{name}"
