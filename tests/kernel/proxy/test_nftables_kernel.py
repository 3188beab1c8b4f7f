"""The nftables mode in a real kernel: what nft lists, restarts that write nothing, what others do and its repair."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Object, endpoint, feed, service, slice_of, state_of

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.nft import wire
from netkit.kernel.nft.driver import NftTable
from netkit.kernel.nft.expressions import Code, Verdict
from netkit.kernel.nft.objects import Chain, TableWriter
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.backend import NodeFacts
from netkit.proxy.listing import differences
from netkit.proxy.modes import Site, backends
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

pytestmark = pytest.mark.root

SETTINGS = ProxySettings(
    mode=ProxyMode.NFTABLES,
    cluster_cidr="10.0.0.0/8,fd00:10::/64",
    node_address="192.168.0.2,2001:db8::1",
)
SERVICE_RANGES = ("172.30.0.0/16", "10.96.0.0/12", "fd00:10:96::/112")
BOTH_LAYOUTS = pytest.mark.parametrize("layout", list(NftablesLayout))
PORTS = [{"name": "p80", "port": 80, "nodePort": 3001}]
EVERY: dict[str, Any] = {
    "type": "LoadBalancer",
    "ports": PORTS,
    "externalIPs": ["192.168.99.22"],
    "ingress": [{"ip": "1.2.3.4"}],
    "loadBalancerSourceRanges": ["203.0.113.0/25", "203.0.112.0/24"],
}
OBJECTS: tuple[Object, ...] = (
    service("ns1/svc1"),
    slice_of("ns1/svc1", "10.180.0.1", "10.180.0.2", "10.180.0.3"),
    service("ns2/svc2", "172.30.0.42", **EVERY, externalTrafficPolicy="Local"),
    slice_of("ns2/svc2", "10.180.0.2", endpoint("10.180.0.4", "node1")),
    service("ns3/svc3", "172.30.0.43", sessionAffinity="ClientIP"),
    slice_of("ns3/svc3", "10.180.0.5", "10.180.0.6"),
    service("ns4/svc4", "172.30.0.44"),
    service("ns5/svc5", "172.30.0.45", internalTrafficPolicy="Local"),
    slice_of("ns5/svc5", "10.180.0.7"),
)
OBJECTS6: tuple[Object, ...] = (
    service("ns1/svc1", "fd00:10:96::41", sessionAffinity="ClientIP", externalIPs=["2001:db8::99"]),
    slice_of("ns1/svc1", "fd00:10::5", "fd00:10::6", address_type="IPv6"),
    service("ns2/svc2", "fd00:10:96::42", type="NodePort", ports=PORTS),
    slice_of("ns2/svc2", "fd00:10::7", address_type="IPv6"),
)


@pytest.fixture
def ns(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path, "nfttest")
    name = f"nknft{tmp_path.name.replace('_', '')[-40:]}"
    with netns.create(name, ledger) as space:
        try:
            yield space
        finally:
            netns.delete(name, ledger)
    assert not netns.exists(name)


def backend_of(
    ns: Namespace, layout: NftablesLayout = NftablesLayout.KUBE_PROXY, family: Family = Family.IPV4
) -> NftablesBackend:
    (found,) = backends(replace(SETTINGS, nftables_layout=layout), Site("node1", ns), [family])
    assert isinstance(found, NftablesBackend)
    found.configure(NodeFacts(service_cidrs=SERVICE_RANGES))
    return found


def nft(ns: Namespace, *words: str, input: str = "") -> str:
    return run(["nft", *words], ns=ns, input=input.encode(), check=True).stdout.decode()


def chains_of(listed: str) -> dict[str, list[str]]:
    """The rules by chain in the output of nft."""
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"^\tchain (\S+) \{\n(.*?)^\t\}", listed, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in body.splitlines()]
        found[name] = [line for line in lines if not line.startswith(("type ", "comment "))]
    return found


def elements_of(listed: str) -> dict[str, set[str]]:
    """The elements by set in the output of nft."""
    found: dict[str, set[str]] = {}
    for name, body in re.findall(r"^\t(?:set|map) (\S+) \{\n(.*?)^\t\}", listed, re.MULTILINE | re.DOTALL):
        elements = re.search(r"elements = \{(.*?)\}", body, re.DOTALL)
        found[name] = {item.strip() for item in elements[1].split(",")} if elements else set()
    return found


@BOTH_LAYOUTS
@pytest.mark.parametrize(("family", "objects"), [(Family.IPV4, OBJECTS), (Family.IPV6, OBJECTS6)])
async def test_nft_lists_what_we_say(
    ns: Namespace, layout: NftablesLayout, family: Family, objects: Sequence[Object]
) -> None:
    backend, state = backend_of(ns, layout, family), state_of(*objects, family=family)
    report = await backend.sync(state, None)
    assert report.wrote
    assert report.full
    standing = await backend.standing()
    assert not differences(await backend.wanted(state), standing)
    listed = nft(ns, "list", "ruleset")
    assert chains_of(listed) == {
        name.removeprefix("chain "): list(section.entries)
        for name, section in standing.items()
        if name.startswith("chain ")
    }
    assert elements_of(listed) == {
        name.partition(" ")[2]: set(section.entries)
        for name, section in standing.items()
        if not name.startswith("chain ")
    }
    assert sum(report.rules_total.values()) == sum(map(len, chains_of(listed).values()))


X1 = "ULMVA6XW-ns1/svc1/tcp/p80"
E1, E2 = "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80", "2ZNDXFAB-ns1/svc1/tcp/p80__10.180.0.2/80"
BY_NFT = f"""
add table ip kube-proxy {{ comment "rules for kube-proxy" ; }}
add set ip kube-proxy affinity-{E1} {{ type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ; }}
add set ip kube-proxy affinity-{E2} {{ type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ; }}
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy endpoint-{E1}
add chain ip kube-proxy endpoint-{E2}
add chain ip kube-proxy service-{X1}
add chain ip kube-proxy firewall-{X1}
add rule ip kube-proxy firewall-{X1} ip saddr != {{ 203.0.113.0/25 , 203.0.112.0/24 }} drop
add rule ip kube-proxy service-{X1} ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
add rule ip kube-proxy service-{X1} ip saddr @affinity-{E1} goto endpoint-{E1}
add rule ip kube-proxy service-{X1} ip saddr @affinity-{E2} goto endpoint-{E2}
add rule ip kube-proxy service-{X1} numgen random mod 2 vmap {{ 0 : goto endpoint-{E1} , 1 : goto endpoint-{E2} }}
add rule ip kube-proxy endpoint-{E1} ip saddr 10.180.0.1 jump mark-for-masquerade
add rule ip kube-proxy endpoint-{E1} update @affinity-{E1} {{ ip saddr }}
add rule ip kube-proxy endpoint-{E1} meta l4proto tcp dnat to 10.180.0.1:80
add rule ip kube-proxy endpoint-{E2} ip saddr 10.180.0.2 jump mark-for-masquerade
add rule ip kube-proxy endpoint-{E2} update @affinity-{E2} {{ ip saddr }}
add rule ip kube-proxy endpoint-{E2} meta l4proto tcp dnat to 10.180.0.2:80
"""


async def test_chains_written_by_kube_proxy_are_adopted(ns: Namespace) -> None:
    """They are given to nft in kube-proxy's own words; not one of them is written again."""
    nft(ns, "-f", "-", input=BY_NFT)
    balancer = {**EVERY, "sessionAffinity": "ClientIP", "externalIPs": []}
    state = state_of(service("ns1/svc1", **balancer), slice_of("ns1/svc1", "10.180.0.1", "10.180.0.2"))
    handles = re.compile(r"chain (?:endpoint|service|firewall)-.*?# handle (\d+)\n(.*?)\n\t}", re.DOTALL)
    before = handles.findall(nft(ns, "-a", "list", "ruleset"))
    assert len(before) == 4
    backend = backend_of(ns)
    await backend.sync(state, None)
    listed = nft(ns, "-a", "list", "ruleset")
    assert [item for item in handles.findall(listed) if item in before] == before
    assert not differences(await backend.wanted(state), await backend.standing())


@BOTH_LAYOUTS
async def test_a_restart_writes_nothing(ns: Namespace, layout: NftablesLayout) -> None:
    state = state_of(*OBJECTS)
    await backend_of(ns, layout).sync(state, None)
    before = nft(ns, "-a", "list", "ruleset")
    again = await backend_of(ns, layout).sync(state, None)
    assert not again.wrote
    assert nft(ns, "-a", "list", "ruleset") == before


@BOTH_LAYOUTS
async def test_changes_end_where_a_full_sync_would(ns: Namespace, layout: NftablesLayout) -> None:
    backend, state = backend_of(ns, layout), state_of(*OBJECTS)
    await backend.sync(state, None)
    state.mark_synced()
    for changed in (
        slice_of("ns1/svc1", "10.180.0.1", "10.180.0.9"),
        service("ns2/svc2", "172.30.0.42", externalTrafficPolicy="Cluster", type="NodePort", ports=PORTS),
        slice_of("ns3/svc3", "10.180.0.5"),
        slice_of("ns4/svc4", *(f"10.181.0.{n}" for n in range(1, 40))),
        service("ns3/svc3", "172.30.0.43"),
    ):
        feed(state, changed)
        await partial(backend, state)
        assert not differences(await backend.wanted(state), await backend.standing())
    state.delete_service("ns1", "svc1")
    await partial(backend, state)
    assert not differences(await backend.wanted(state), await backend.standing())
    assert not (await backend.sync(state, None)).wrote


FLOOD = """
import socket
for _ in range(60_000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"", ("172.30.0.41", 80))
        except OSError:
            pass
"""


@BOTH_LAYOUTS
async def test_no_packet_passes_between_the_old_endpoints_and_the_new(
    ns: Namespace, layout: NftablesLayout
) -> None:
    """The kernel changes over while packets are on their way through the rules; each finds an endpoint."""
    udp = [{"name": "p80", "port": 80, "protocol": "UDP"}]
    turns = [
        slice_of("ns1/svc1", *(f"10.180.0.{n}" for n in range(1, last)), ports=udp) for last in (2, 5, 3)
    ]
    backend, state = backend_of(ns, layout), state_of(service("ns1/svc1", ports=udp), turns[-1])
    for command in ("link set lo up", "route add 172.30.0.0/16 dev lo", "route add 10.0.0.0/8 dev lo"):
        run(["ip", *command.split()], ns=ns, check=True)
    nft(ns, "-f", "-", input=BEHIND_THE_TRANSLATION)
    await backend.sync(state, None)
    turns = [
        slice_of("ns1/svc1", *(f"10.180.0.{n}" for n in range(1, last)), ports=udp) for last in (2, 5, 3)
    ]
    flood = asyncio.create_task(
        asyncio.to_thread(run, [sys.executable, "-c", FLOOD], ns=ns, check=True, timeout=60)
    )
    changes = 0
    while not flood.done():
        feed(state, turns[changes % len(turns)])
        await partial(backend, state)
        changes += 1
    await flood
    assert changes > 100
    assert "counter packets 0 bytes 0" in nft(ns, "list", "table", "ip", "untranslated")


BEHIND_THE_TRANSLATION = """
table ip untranslated {
    chain out {
        type filter hook output priority -50
        ip daddr 172.30.0.41 counter
    }
}
"""


async def partial(backend: NftablesBackend, state: ProxyState) -> None:
    report = await backend.sync(state, state.collect())
    assert not report.full
    state.mark_synced()


@BOTH_LAYOUTS
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("flush ruleset", "deleted the table"),
        ("delete table ip kube-proxy", "deleted the table"),
        ("flush chain ip kube-proxy services", "deleted a rule of chain services"),
        ("insert rule ip kube-proxy masquerading accept", "added a rule to chain masquerading"),
        ("flush set ip kube-proxy cluster-ips", "deleted elements of set cluster-ips"),
    ],
)
async def test_what_others_do_is_told_and_mended(
    ns: Namespace, layout: NftablesLayout, command: str, told: str
) -> None:
    backend, state = backend_of(ns, layout), state_of(*OBJECTS)
    await backend.sync(state, None)
    state.mark_synced()
    assert await backend.intact()
    # Our own changes are nobody else's, and those of other tables are nobody's business.
    waiting = asyncio.create_task(backend.disturbed())
    feed(state, slice_of("ns1/svc1", "10.180.0.1"))
    await partial(backend, state)
    nft(ns, "add table ip filter")
    assert not waiting.done()
    nft(ns, *command.split())
    async with asyncio.timeout(60):
        what = await waiting
    assert what.startswith("nft (process ")
    assert told in what
    assert await backend.intact() == ("table" not in told)
    assert (await backend.sync(state, None)).wrote
    assert await backend.intact()
    assert not differences(await backend.wanted(state), await backend.standing())


async def test_what_happened_before_anybody_asked_is_told(ns: Namespace) -> None:
    backend = backend_of(ns)
    await backend.sync(state_of(*OBJECTS), None)
    nft(ns, "delete rule ip kube-proxy reject-chain handle " + handle(ns, "reject-chain"))
    async with asyncio.timeout(60):
        assert "deleted a rule of chain reject-chain" in await backend.disturbed()


def handle(ns: Namespace, chain: str) -> str:
    """The number of the chain's last rule."""
    return nft(ns, "-a", "list", "chain", "ip", "kube-proxy", chain).rpartition("# handle ")[2].split()[0]


async def test_cleanup_removes_the_table_and_nothing_else(ns: Namespace) -> None:
    nft(ns, "add table ip filter")
    backend = backend_of(ns)
    await backend.cleanup()
    await backend.sync(state_of(*OBJECTS), None)
    await backend.cleanup()
    await backend.cleanup()
    assert nft(ns, "list", "ruleset") == "table ip filter {\n}\n"
    assert await backend.standing() == {}


async def test_both_families_stand_side_by_side(ns: Namespace) -> None:
    four, six = backend_of(ns), backend_of(ns, family=Family.IPV6)
    await asyncio.gather(
        four.sync(state_of(*OBJECTS), None), six.sync(state_of(*OBJECTS6, family=Family.IPV6), None)
    )
    await four.cleanup()
    assert not differences(await six.wanted(state_of(*OBJECTS6, family=Family.IPV6)), await six.standing())


async def test_a_refused_transaction_changes_nothing_and_is_named(ns: Namespace) -> None:
    backend, state = backend_of(ns), state_of(*OBJECTS)
    await backend.sync(state, None)
    writer = TableWriter(wire.NFPROTO_IPV4, "kube-proxy")
    table = NftTable(ns, wire.NFPROTO_IPV4, "kube-proxy")
    with pytest.raises(KernelError) as caught:
        table.commit([writer.add_chain(Chain("new")), writer.add_rule("none", [Verdict(Code.DROP)])])
    assert "nft add rule ip kube-proxy none" in str(caught.value)
    assert caught.value.is_not_found
    with pytest.raises(KernelError, match="services"):
        table.commit([writer.delete_chain("services")])
    assert not differences(await backend.wanted(state), await backend.standing())
    assert not table.has(["new"])


async def test_a_failed_sync_is_mended_by_a_full_one(ns: Namespace) -> None:
    backend, state = backend_of(ns), state_of(*OBJECTS)
    await backend.sync(state, None)
    state.mark_synced()
    nft(ns, "delete table ip kube-proxy")
    feed(state, slice_of("ns1/svc1", "10.180.0.1"))
    with pytest.raises(KernelError):
        await backend.sync(state, state.collect())
    report = await backend.sync(state, state.collect())
    assert report.full
    assert not differences(await backend.wanted(state), await backend.standing())


@BOTH_LAYOUTS
async def test_what_serves_a_service_is_part_of_what_stands(ns: Namespace, layout: NftablesLayout) -> None:
    backend, state = backend_of(ns, layout), state_of(*OBJECTS)
    await backend.sync(state, None)
    standing = await backend.standing()
    for port in state.ports():
        found = await backend.serving(state, port.name)
        assert found[-1].name in ("chain masquerading", "set hairpin-connections")
        for section in found:
            assert set(section.entries) <= set(standing[section.name].entries)
            assert section.note == standing[section.name].note
