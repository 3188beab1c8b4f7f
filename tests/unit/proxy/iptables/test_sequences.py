"""Random sequences of changes end in the rules that a fresh start would write."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from support.proxy import FakeNodeKernel
from support.proxy_player import ADDRESSES, Rig, ends_like_a_fresh_start
from support.proxy_sequences import HERE, PLAYS, Play, sequences

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


@sequences(15)
@given(PLAYS)
async def test_it_ends_like_a_fresh_start(play: Play) -> None:
    await ends_like_a_fresh_start(IPTablesRig, play)
