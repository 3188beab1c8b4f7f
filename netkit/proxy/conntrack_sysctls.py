"""The kernel's settings of connection tracking that a proxy makes at its start. A preparation of the agent.

As kube-proxy (1.33): what differs is written, be it more or less than what somebody else had set; 0 leaves alone. Not
as kube-proxy, which gives up: what is read-only is said once, and the proxy works with what there is.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping

from netkit.kernel.conntrack_settings import ConntrackKernel
from netkit.kernel.errors import KernelError
from netkit.proxy.settings import ConntrackSettings

log = logging.getLogger(__name__)

READ_ONLY = "readOnlySysFS"
"""kube-proxy's reason of the Event."""


def wanted_sysctls(settings: ConntrackSettings, cores: int) -> Mapping[str, int]:
    """What to set, by name without `nf_conntrack_`. Pure."""
    wanted = {
        "max": max(settings.max_per_core * cores, settings.minimum) if settings.max_per_core else 0,
        "tcp_timeout_established": int(settings.tcp_established_timeout),
        "tcp_timeout_close_wait": int(settings.tcp_close_wait_timeout),
        "tcp_be_liberal": int(settings.tcp_be_liberal),
        "udp_timeout": int(settings.udp_timeout),
        "udp_timeout_stream": int(settings.udp_stream_timeout),
    }
    return {name: value for name, value in wanted.items() if value > 0}


class ConntrackSysctls:
    """Writes the settings of one node. `report` gets reason and message for an Event on the Node."""

    def __init__(
        self,
        node_name: str,
        settings: ConntrackSettings,
        kernel: ConntrackKernel,
        report: Callable[[str, str], None],
        cores: int | None = None,
    ) -> None:
        self._node_name = node_name
        self._settings = settings
        self._kernel = kernel
        self._report = report
        self._cores = cores or os.cpu_count() or 1

    async def prepare(self) -> None:
        """See `Preparation`."""
        for error in await asyncio.to_thread(self._write_all):
            if error.errno == errno.EROFS:
                self._report(
                    READ_ONLY, f"/proc/sys or /sys is read-only, conntrack limits stay as they are: {error}"
                )
            log.warning("%s: conntrack setting not made: %s", self._node_name, error)

    def _write_all(self) -> list[KernelError]:
        """Blocks. Returns what went wrong, one error per setting."""
        failed = []
        for name, value in wanted_sysctls(self._settings, self._cores).items():
            try:
                self._write(name, value)
            except KernelError as error:
                if name == "max" and error.is_permission:
                    log.info(
                        "%s: nf_conntrack_max stays %d: it belongs to the machine, not to this namespace",
                        self._node_name,
                        self._kernel.read(name),
                    )
                else:
                    failed.append(error)
        return failed

    def _write(self, name: str, value: int) -> None:
        if self._kernel.read(name) != value:
            self._kernel.write(name, value)
            log.info("%s: nf_conntrack_%s=%d", self._node_name, name, value)
        # Four connections share a bucket at most; the kernel itself counts eight when it starts.
        if name == "max" and self._kernel.hash_size() < value // 4:
            self._kernel.set_hash_size(value // 4)
            log.info("%s: hash table of conntrack has %d buckets", self._node_name, value // 4)
