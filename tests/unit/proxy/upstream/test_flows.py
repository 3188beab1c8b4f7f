"""What becomes of packets by the rules we write, against what becomes of them by kube-proxy's."""

from __future__ import annotations

import pytest
from unit.proxy.upstream.flows import CASES, END_OF_ENDPOINTS, IPTABLES, NFTABLES, Case
from unit.proxy.upstream.tracer import Fate, IPTablesTracer, NftTracer, Packet, Tracer
from unit.proxy.upstream.world import IPTablesProxier, NftablesProxier, Proxier

from netkit.proxy.settings import ProxyMode

PAIRS = [
    pytest.param(case, mode, id=f"{mode}: {name}")
    for name, case in CASES.items()
    for mode in (IPTABLES, NFTABLES)
    if case.only in (None, mode)
]


def made(case: Case, mode: ProxyMode) -> Proxier:
    if mode is IPTABLES:
        return IPTablesProxier(case.family, **{"node_port_addresses": (), **case.settings})
    return NftablesProxier(case.family, **case.settings)


async def tracer(proxier: Proxier) -> Tracer:
    """Of what is in the kernel now."""
    if isinstance(proxier, IPTablesProxier):
        tables = proxier.tables.tables.items()
        return IPTablesTracer(
            {f"{table} {chain}": rules for table, chains in tables for chain, rules in chains.items()}
        )
    found = {tuple(name.split(" ")): section.entries for name, section in (await proxier.rules()).items()}
    return NftTracer(
        {name: entries for (kind, name), entries in found.items() if kind == "chain"},
        {name: entries for (kind, name), entries in found.items() if kind != "chain"},
    )


@pytest.mark.parametrize(("case", "mode"), PAIRS)
async def test_packets(case: Case, mode: ProxyMode) -> None:
    proxier = made(case, mode)
    proxier.add(*case.objects)
    await proxier.sync()
    traced = await tracer(proxier)
    for row in case.rows:
        if row.only not in (None, mode):
            continue
        fate = traced.trace(Packet(row.source, row.target, row.port, row.protocol))
        assert fate == Fate(frozenset(row.output.split(", ")), row.masqueraded), row


@pytest.mark.parametrize("mode", [IPTABLES, NFTABLES])
@pytest.mark.parametrize("name", END_OF_ENDPOINTS)
async def test_packets_after_the_last_endpoint(name: str, mode: ProxyMode) -> None:
    """The slice goes: all that was sent somewhere is refused."""
    case = CASES[name]
    proxier = made(case, mode)
    proxier.add(*case.objects)
    await proxier.sync()
    proxier.remove(*(item for item in case.objects if item["kind"] == "EndpointSlice"))
    await proxier.sync()
    traced = await tracer(proxier)
    for row in case.rows:
        fate = traced.trace(Packet(row.source, row.target, row.port, row.protocol))
        assert fate == Fate(frozenset({"REJECT"}), False), row
