"""Random sequences of changes end in the rules that a fresh start would write."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.proxy import FakeNodeKernel
from support.proxy_sequences import (
    HERE,
    SEQUENCES_OF,
    SETTINGS,
    Step,
    ends_like_a_fresh_start,
    sequences_played,
)

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.settings import ProxySettings


class IPTablesRig:
    """The iptables mode on a fake kernel that refuses what the real one refuses."""

    def __init__(self, family: Family) -> None:
        self.iptables = FakeIPTables(version=family.version)

    def backend(self, settings: ProxySettings) -> IPTablesBackend:
        return IPTablesBackend(HERE, settings, self.iptables, FakeNodeKernel())  # type: ignore[arg-type]

    def fail_next(self) -> None:
        self.iptables.failures = 1

    def content(self) -> Any:
        return {table: dict(sorted(chains.items())) for table, chains in self.iptables.tables.items()}


@sequences_played
@given(start=st.sampled_from(SETTINGS), steps=SEQUENCES_OF[Family.IPV4])
async def test_ipv4(start: ProxySettings, steps: list[Step]) -> None:
    await ends_like_a_fresh_start(
        IPTablesRig(Family.IPV4), IPTablesRig(Family.IPV4), Family.IPV4, start, steps
    )


@sequences_played
@given(start=st.sampled_from(SETTINGS), steps=SEQUENCES_OF[Family.IPV6])
async def test_ipv6(start: ProxySettings, steps: list[Step]) -> None:
    await ends_like_a_fresh_start(
        IPTablesRig(Family.IPV6), IPTablesRig(Family.IPV6), Family.IPV6, start, steps
    )
