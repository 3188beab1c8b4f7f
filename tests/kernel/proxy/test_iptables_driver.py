"""The iptables driver, and the backend on it, in a namespace of their own, with both implementations."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import endpoint, service, slice_of, state_of

from netkit.kernel import netns, nfacct, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables, Variant, chains_in, detect, installed_variants, table_in
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.listing import differences
from netkit.proxy.node_kernel import ROUTE_LOCALNET
from netkit.proxy.settings import ProxySettings

pytestmark = pytest.mark.root
_serial = iter(range(1_000_000))

SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16")
OBJECTS = (
    service(
        "ns1/svc1",
        type="LoadBalancer",
        ports=[{"name": "p80", "port": 80, "nodePort": 30001}],
        ingress=[{"ip": "5.6.7.8"}],
        loadBalancerSourceRanges=["203.0.113.0/25"],
        externalTrafficPolicy="Local",
        healthCheckNodePort=30100,
        sessionAffinity="ClientIP",
    ),
    slice_of("ns1/svc1", endpoint("10.244.1.1", "node1"), "10.244.2.1", "10.244.2.2"),
    service("ns2/empty", "172.30.0.42"),
)
SIX = (
    service("ns1/svc1", "fd00::41", ports=[{"name": "p80", "port": 80, "nodePort": 30001}], type="NodePort"),
    slice_of("ns1/svc1", "fd00:1::1", "fd00:1::2", address_type="IPv6"),
)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path, "iptablestest")
    name = f"nkipt{os.getpid()}x{next(_serial)}"
    made = netns.create(name, ledger)
    yield made
    netns.delete(name, ledger)
    made.close()
    assert not netns.exists(name)


@pytest.fixture(params=list(Variant))
def iptables(request: pytest.FixtureRequest, space: Namespace, tmp_path: Path) -> IPTables:
    if request.param not in installed_variants():
        pytest.skip(f"iptables-{request.param} is not installed")
    return IPTables(space, request.param, lock_file=tmp_path / "xtables.lock")


def rules_in(saved: str) -> list[str]:
    """What stands, without comments and counters."""
    return [line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#")]


async def test_restore_and_save(iptables: IPTables) -> None:
    await iptables.restore("*nat\n:MINE - [0:0]\n-A MINE -s 10.0.0.0/8 -j RETURN\nCOMMIT\n")
    saved = await iptables.save("nat")
    assert "-A MINE -s 10.0.0.0/8 -j RETURN" in saved
    assert "MINE" in chains_in(saved)
    assert "MINE" in await iptables.chains("nat")
    assert "MINE" not in await iptables.chains("filter")
    assert "MINE" in table_in(await iptables.save(), "nat")
    await iptables.restore("*nat\n:OTHER - [0:0]\nCOMMIT\n")
    assert "MINE" in await iptables.chains("nat"), "noflush"
    await iptables.restore("*nat\n:OTHER - [0:0]\nCOMMIT\n", noflush=False)
    assert "MINE" not in await iptables.chains("nat")


@pytest.mark.parametrize(
    "line",
    ["-A MINE -j NO-SUCH-CHAIN", "-A MINE --no-such-option", "-A MINE -s 10.0.0.1/40 -j RETURN"],
)
async def test_a_refused_line_is_named_and_nothing_is_changed(iptables: IPTables, line: str) -> None:
    await iptables.restore("*nat\n:MINE - [0:0]\n-A MINE -j RETURN\nCOMMIT\n")
    before = rules_in(await iptables.save("nat"))
    with pytest.raises(KernelError) as caught:
        await iptables.restore(f"*nat\n:MINE - [0:0]\n-A MINE -s 10.9.9.9 -j ACCEPT\n{line}\nCOMMIT\n")
    assert caught.value.namespace == iptables.ns.name
    assert line in caught.value.hint or caught.value.hint.endswith("COMMIT")
    assert rules_in(await iptables.save("nat")) == before


async def test_single_rules_and_chains(iptables: IPTables) -> None:
    rule = ("-m", "comment", "--comment", "two words", "-s", "10.0.0.0/8", "-j", "MINE")
    assert await iptables.ensure_chain("nat", "MINE")
    assert not await iptables.ensure_chain("nat", "MINE")
    assert await iptables.ensure_rule("nat", "POSTROUTING", rule)
    assert not await iptables.ensure_rule("nat", "POSTROUTING", rule)
    assert await iptables.ensure_rule("nat", "POSTROUTING", ["-j", "RETURN"], prepend=False)
    order = [line for line in rules_in(await iptables.save("nat")) if line.startswith("-A POSTROUTING")]
    assert [line.endswith("-j MINE") for line in order] == [True, False]
    with pytest.raises(KernelError, match="-X"):
        await iptables.delete_chain("nat", "MINE")
    assert await iptables.delete_rule("nat", "POSTROUTING", rule)
    assert not await iptables.delete_rule("nat", "POSTROUTING", rule)
    assert await iptables.delete_chain("nat", "MINE")
    assert not await iptables.delete_chain("nat", "MINE")
    assert not await iptables.flush_chain("nat", "MINE")


async def test_a_rule_that_makes_no_sense_is_an_error_not_an_absence(iptables: IPTables) -> None:
    with pytest.raises(KernelError):
        await iptables.ensure_rule("nat", "POSTROUTING", ["--nonsense"])
    with pytest.raises(KernelError):
        await iptables.ensure_rule("nat", "NO-SUCH-CHAIN", ["-j", "RETURN"])


async def test_the_lock_is_taken_in_the_file_given(space: Namespace, tmp_path: Path) -> None:
    if Variant.LEGACY not in installed_variants():
        pytest.skip("iptables-legacy is not installed")
    iptables = IPTables(space, Variant.LEGACY, lock_file=tmp_path / "own.lock")
    await iptables.restore("*nat\nCOMMIT\n")
    assert (tmp_path / "own.lock").exists()


async def test_detection_follows_what_stands(space: Namespace, tmp_path: Path) -> None:
    if len(installed_variants()) < 2:
        pytest.skip("only one implementation of iptables is installed")
    assert detect(space) is Variant.LEGACY
    nft, legacy = (
        IPTables(space, variant, lock_file=tmp_path / "lock") for variant in (Variant.NFT, Variant.LEGACY)
    )
    await nft.restore("*nat\n:MINE - [0:0]\nCOMMIT\n")
    assert detect(space) is Variant.NFT
    assert IPTables(space).variant is Variant.NFT
    await nft.delete_chain("nat", "MINE")
    assert detect(space) is Variant.LEGACY
    await legacy.restore("*nat\n:MINE - [0:0]\nCOMMIT\n")
    assert detect(space) is Variant.LEGACY


@pytest.mark.parametrize("chain", ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"])
@pytest.mark.parametrize("version", [4, 6])
async def test_the_kubelet_decides_over_more_rules_of_the_other(
    space: Namespace, tmp_path: Path, chain: str, version: int
) -> None:
    """Either family's chain decides for both."""
    if len(installed_variants()) < 2 or len(installed_variants(6)) < 2:
        pytest.skip("only one implementation of iptables is installed")
    for kubelet, other in ((Variant.NFT, Variant.LEGACY), (Variant.LEGACY, Variant.NFT)):
        hint = IPTables(space, kubelet, version=version, lock_file=tmp_path / "lock")
        crowd = IPTables(space, other, lock_file=tmp_path / "lock")
        await hint.restore(f"*mangle\n:{chain} - [0:0]\nCOMMIT\n")
        await crowd.restore("*nat\n-A POSTROUTING -j RETURN\n-A POSTROUTING -j RETURN\nCOMMIT\n")
        assert detect(space) is kubelet
        assert detect(space, 6) is kubelet
        await hint.restore("*mangle\nCOMMIT\n", noflush=False)
        await crowd.restore("*nat\nCOMMIT\n", noflush=False)


async def test_more_rules_decide(space: Namespace, tmp_path: Path) -> None:
    if len(installed_variants()) < 2:
        pytest.skip("only one implementation of iptables is installed")
    nft, legacy = (
        IPTables(space, variant, lock_file=tmp_path / "lock") for variant in (Variant.NFT, Variant.LEGACY)
    )
    await legacy.restore("*nat\n-A POSTROUTING -j RETURN\nCOMMIT\n")
    await nft.restore("*nat\n-A POSTROUTING -j RETURN\n-A OUTPUT -j RETURN\nCOMMIT\n")
    assert detect(space) is Variant.NFT
    await legacy.restore("*nat\n-A POSTROUTING -j RETURN\n-A OUTPUT -j RETURN\nCOMMIT\n")
    assert detect(space) is Variant.LEGACY


async def test_packet_counters_count_or_are_done_without(space: Namespace, tmp_path: Path) -> None:
    assert nfacct.packets(space, "neverthere") is None
    made = nfacct.ensure(space, "kubetest")
    if made:
        rule = "-A OUTPUT -p udp -m nfacct --nfacct-name kubetest"
        await IPTables(space, lock_file=tmp_path / "lock").restore(f"*filter\n{rule}\nCOMMIT\n")
        with netns.entered(space), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            run(["ip", "link", "set", "lo", "up"], ns=space, check=True)
            sock.sendto(b"counted", ("127.0.0.1", 9))
        assert nfacct.packets(space, "kubetest") == 1
        assert nfacct.ensure(space, "kubetest"), "it is there already"
        return
    assert nfacct.packets(space, "kubetest") is None


async def test_a_restarted_proxy_writes_nothing(iptables: IPTables) -> None:
    state = state_of(*OBJECTS)
    await IPTablesBackend("node1", SETTINGS, iptables).sync(state, None)
    before = rules_in(await iptables.save())
    assert "KUBE-SVL-XPGD46QRK7WJZT7O" in str(before)
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    report = await backend.sync(state, None)
    assert (report.wrote, report.full) == (False, True)
    assert rules_in(await iptables.save()) == before
    assert report.rules_total["nat"] > 10
    assert not (await backend.sync(state, state.collect())).wrote


async def test_one_changed_rule_is_found_and_mended(iptables: IPTables) -> None:
    state = state_of(*OBJECTS)
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    await backend.sync(state, None)
    before = rules_in(await iptables.save())
    await iptables.ensure_rule("nat", "KUBE-MARK-MASQ", ["-j", "RETURN"])
    assert not await backend.intact()
    report = await backend.sync(state, None)
    assert report.rules_written == {"nat": 1}
    assert rules_in(await iptables.save()) == before


async def test_partial_syncs_end_in_the_rules_of_a_full_one(iptables: IPTables) -> None:
    state = state_of(*OBJECTS)
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    await backend.sync(state, None)
    state.mark_synced()
    steps = [
        lambda: state.upsert_slice(slice_of("ns1/svc1", "10.244.2.1", "10.244.2.9")),
        lambda: state.upsert_slice(slice_of("ns2/empty", "10.244.2.7")),
        lambda: state.delete_service("ns1", "svc1"),
        lambda: state.upsert_service(OBJECTS[0]),
        lambda: state.upsert_slice(slice_of("ns1/svc1")),
        lambda: state.upsert_slice(OBJECTS[1]),
    ]
    for step in steps:
        step()
        report = await backend.sync(state, state.collect())
        state.mark_synced()
        assert (report.wrote, report.full) == (True, False)
        found = sorted(rules_in(await iptables.save()))
        await IPTablesBackend("node1", SETTINGS, iptables).sync(state, None)
        assert sorted(rules_in(await iptables.save())) == found
    assert not (await backend.sync(state, state.collect())).wrote


async def test_counters_of_other_peoples_rules_survive(iptables: IPTables) -> None:
    await iptables.restore("*nat\n:COUNTED - [0:0]\n[7:700] -A COUNTED -j RETURN\nCOMMIT\n", counters=True)
    state = state_of(*OBJECTS)
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    await backend.sync(state, None)
    state.upsert_slice(slice_of("ns1/svc1", "10.244.2.9"))
    await backend.sync(state, state.collect())
    program = installed_variants()[iptables.variant].replace("restore", "save")
    saved = run([program, "-c", "-t", "nat"], ns=iptables.ns, check=True).stdout.decode()
    assert "[7:700] -A COUNTED -j RETURN" in saved


async def test_canary_route_localnet_and_cleanup(iptables: IPTables) -> None:
    await iptables.restore("*filter\n:THEIRS - [0:0]\n-A INPUT -j THEIRS\nCOMMIT\n")
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    await backend.sync(state_of(*OBJECTS), None)
    assert await backend.intact()
    assert sysctl.read(iptables.ns, ROUTE_LOCALNET) == "1"
    await iptables.delete_chain("mangle", "KUBE-PROXY-CANARY")
    assert not await backend.intact()
    await backend.sync(state_of(*OBJECTS), None)
    assert await backend.intact()
    await backend.cleanup()
    left = await iptables.save()
    assert "KUBE" not in left
    assert "-A INPUT -j THEIRS" in left
    await backend.cleanup()


async def test_what_stands_is_read_back_as_it_was_wanted(iptables: IPTables) -> None:
    """Not only after both are brought to one form: each rule is written as iptables-save prints it."""
    state = state_of(*OBJECTS)
    backend = IPTablesBackend("node1", SETTINGS, iptables)
    await backend.sync(state, None)
    saved = await iptables.save()
    wanted = await backend.wanted(state)
    assert differences(wanted, await backend.standing()) == ()
    for section in wanted.values():
        table, chain = section.name.split()
        for entry in section.entries:
            assert f"-A {chain} {entry}\n" in table_in(saved, table) + "\n"


async def test_ipv6(space: Namespace, tmp_path: Path) -> None:
    for variant in installed_variants(6):
        iptables = IPTables(space, variant, version=6, lock_file=tmp_path / "lock")
        backend = IPTablesBackend("node1", ProxySettings(cluster_cidr="fd00:1::/64"), iptables)
        await backend.sync(state_of(*SIX, family=backend.family), None)
        saved = await iptables.save("nat")
        assert "-j DNAT --to-destination [fd00:1::1]:80" in saved
        assert "! -s fd00:1::/64" in saved
        state = state_of(*SIX, family=backend.family)
        assert differences(await backend.wanted(state), await backend.standing()) == ()
        await backend.cleanup()
        assert "KUBE" not in await iptables.save()
