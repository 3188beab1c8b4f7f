"""The chains of kube-proxy as iptables-restore itself makes them of kube-proxy's words, beside ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.proxy import state_of
from unit.proxy.upstream import iptables_tables as facts
from unit.proxy.upstream.world import NODE, SETTINGS

from netkit.kernel import netns, nfacct
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.ledger import Ledger
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.iptables.rules import COUNTERS
from netkit.proxy.settings import ProxySettings

pytestmark = pytest.mark.root


def chains(saved: str) -> dict[str, list[str]]:
    """The chains of iptables-save with their rules, but for the canaries."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":KUBE-") and "CANARY" not in line:
            found[f"{table} {line[1:].split()[0]}"] = []
        elif line.startswith("-A KUBE-"):
            found[f"{table} {line.split()[1]}"].append(line)
    return found


def uncounted(rule: str) -> bool:
    return not facts.NO_COUNTERS.match(rule)


@pytest.fixture(params=list(Variant))
def iptables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IPTables]:
    """A driver in a namespace that goes with the test."""
    if request.param not in installed_variants():
        pytest.skip(f"iptables-{request.param} is not installed")
    ledger, name = Ledger(tmp_path, "upstreamtest"), f"nkups{os.getpid()}{request.param}"
    with closing(netns.create(name, ledger)) as space:
        yield IPTables(space, request.param, lock_file=tmp_path / "xtables.lock")
        netns.delete(name, ledger)


async def test_the_same_chains(iptables: IPTables) -> None:
    wanted = facts.read(facts.FRAME.replace("-j MASQUERADE", "-j MASQUERADE --random-fully"), facts.OVERALL)
    if all(nfacct.ensure(iptables.ns, name) for name in COUNTERS):
        wanted.update(facts.read(facts.FORWARD.replace(facts.DROP_INVALID, facts.DROP_INVALID_COUNTED)))
    else:
        wanted = {name: tuple(filter(uncounted, rules)) for name, rules in wanted.items()}
    await iptables.restore(facts.script(wanted))
    theirs = chains(await iptables.save())
    await iptables.restore("*filter\nCOMMIT\n*nat\nCOMMIT\n", noflush=False)
    assert chains(await iptables.save()) == {}

    settings = ProxySettings(**{**SETTINGS, "node_port_addresses": ()})
    await IPTablesBackend(NODE, settings, iptables).sync(state_of(*facts.OBJECTS), None)
    saved = await iptables.save()
    assert chains(saved) == theirs
    met = re.findall(r"^-A (INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING) .*-j (\S+)$", saved, re.MULTILINE)
    assert sorted(met) == sorted(JUMPS)
    for chain in ("INPUT", "FORWARD"):
        assert [jump for jump in met if jump[0] == chain] == [jump for jump in JUMPS if jump[0] == chain]


JUMPS = [
    ("INPUT", "KUBE-FIREWALL"),
    ("INPUT", "KUBE-PROXY-FIREWALL"),
    ("INPUT", "KUBE-NODEPORTS"),
    ("INPUT", "KUBE-EXTERNAL-SERVICES"),
    ("FORWARD", "KUBE-PROXY-FIREWALL"),
    ("FORWARD", "KUBE-FORWARD"),
    ("FORWARD", "KUBE-SERVICES"),
    ("FORWARD", "KUBE-EXTERNAL-SERVICES"),
    ("OUTPUT", "KUBE-FIREWALL"),
    ("OUTPUT", "KUBE-PROXY-FIREWALL"),
    ("OUTPUT", "KUBE-SERVICES"),
    ("PREROUTING", "KUBE-SERVICES"),
    ("OUTPUT", "KUBE-SERVICES"),
    ("POSTROUTING", "KUBE-POSTROUTING"),
]
"""Into kube-proxy's chains; those of INPUT and FORWARD, which are of one table, in the order of packets."""
