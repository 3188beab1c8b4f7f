"""What sequences of changes play on in iptables mode, and the rules they end in."""

from __future__ import annotations

from typing import Any

from support.proxy import FakeNodeKernel
from support.proxy_player import ADDRESSES, Rig
from support.proxy_sequences import HERE

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.settings import ProxySettings


class IPTablesRig(Rig):
    """The iptables mode on a fake kernel that refuses what the real one refuses."""

    def __init__(self, family: Family) -> None:
        self.iptables = FakeIPTables(version=family.version)

    async def start(self, settings: ProxySettings) -> IPTablesBackend:
        return IPTablesBackend(HERE, settings, self.iptables, FakeNodeKernel(local=ADDRESSES))  # type: ignore[arg-type]

    def fail(self, place: int | None) -> None:
        self.iptables.failures = place is not None

    async def content(self) -> Any:
        return self.iptables.standing()
