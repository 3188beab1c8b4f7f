"""Random sequences of changes end in the rules that a fresh start would write."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.proxy import FakeNodeKernel
from support.proxy_player import ADDRESSES, Rig, ends_like_a_fresh_start
from support.proxy_sequences import HERE, SEQUENCES_OF, SETTINGS, Step, sequences

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


async def ends_well(family: Family, start: ProxySettings, steps: list[Step]) -> None:
    await ends_like_a_fresh_start(IPTablesRig(family), IPTablesRig(family), family, start, steps)


@sequences(30)
@given(start=st.sampled_from(SETTINGS), steps=SEQUENCES_OF[Family.IPV4])
async def test_ipv4(start: ProxySettings, steps: list[Step]) -> None:
    await ends_well(Family.IPV4, start, steps)


@sequences(30)
@given(start=st.sampled_from(SETTINGS), steps=SEQUENCES_OF[Family.IPV6])
async def test_ipv6(start: ProxySettings, steps: list[Step]) -> None:
    await ends_well(Family.IPV6, start, steps)
