"""The drivers of IPVS and ipset on the real kernel, held against ipvsadm and ipset."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.ipvs import key, target

from netkit.kernel import ipset, ipvs, netns, rtnl
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.ipset import IPSet, SetType
from netkit.kernel.ipvs import IPVS
from netkit.kernel.ipvs_values import (
    SCHEDULERS,
    SOURCE_HASH_FALLBACK,
    SOURCE_HASH_PORT,
    Timeouts,
    Transport,
    VirtualServer,
)
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.kernel.rtnl import Rtnl

_serial = itertools.count()
EVERYWHERE = [
    (address, real, transport)
    for address, real in (("10.96.0.1:80", "10.244.0.2:8080"), ("[fd00::1]:80", "[fd00:1::2]:8080"))
    for transport in Transport
]
ENTRIES = {
    4: {
        SetType.HASH_IP: "10.0.0.1",
        SetType.HASH_IP_PORT: "10.0.0.1,udp:53",
        SetType.HASH_IP_PORT_IP: "10.0.0.1,sctp:9,10.0.0.2",
        SetType.HASH_IP_PORT_NET: "10.0.0.1,tcp:80,203.0.113.0/25",
        SetType.BITMAP_PORT: "30001",
    },
    6: {
        SetType.HASH_IP: "fd00::1",
        SetType.HASH_IP_PORT: "fd00::1,udp:53",
        SetType.HASH_IP_PORT_IP: "fd00::1,sctp:9,fd00::2",
        SetType.HASH_IP_PORT_NET: "fd00::1,tcp:80,fd01::/64",
        SetType.BITMAP_PORT: "30001",
    },
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    directory: Path = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(directory, "ipvsdrivers")
    name = f"nkipvs{os.getpid()}x{next(_serial)}"
    made = netns.create(name, ledger)
    with Rtnl(made) as links:
        links.apply(rtnl.link_up("lo"))
    yield made
    netns.delete(name, ledger)
    made.close()


@pytest.fixture
def balancer(space: Namespace) -> Iterator[IPVS]:
    with IPVS(space) as opened:
        yield opened
        opened.apply(ipvs.flush())
        assert opened.servers() == []


@pytest.fixture
def sets(space: Namespace) -> Iterator[IPSet]:
    with IPSet(space) as opened:
        yield opened
        opened.apply(*(ipset.set_destroy(name) for name in opened.headers()))


def shown(space: Namespace) -> str:
    return run(["ipvsadm", "-Ln"], ns=space, check=True).stdout.decode()


@pytest.mark.parametrize(("address", "real", "transport"), EVERYWHERE)
def test_a_server_and_its_real_servers(
    space: Namespace, balancer: IPVS, address: str, real: str, transport: Transport
) -> None:
    here, first, second = (
        key(address, transport),
        target(real),
        target(real.replace("2]", "3]").replace("2:", "3:")),
    )
    server = VirtualServer(here, "wrr", 600)
    balancer.apply(ipvs.server_add(server), ipvs.real_add(here, first), ipvs.real_add(here, second, 7))
    assert balancer.servers() == [server]
    assert balancer.server(here) == server
    assert {one.target: one.weight for one in balancer.real_servers(here)} == {first: 1, second: 7}
    text = shown(space)
    assert f"{transport.name:4} {address} wrr persistent 600" in text
    assert "Masq    7" in text
    balancer.apply(ipvs.real_set(here, second, 0), ipvs.real_delete(here, first))
    assert [(one.target, one.weight, one.connections) for one in balancer.real_servers(here)] == [
        (second, 0, 0)
    ]
    balancer.apply(ipvs.server_set(VirtualServer(here, "lc")))
    assert balancer.servers() == [VirtualServer(here, "lc")]
    assert len(balancer.real_servers(here)) == 1, "setting keeps the real servers"
    balancer.apply(ipvs.server_delete(here))
    assert balancer.servers() == []


def test_all_schedulers(space: Namespace, balancer: IPVS) -> None:
    for scheduler in SCHEDULERS:
        here = key("10.96.0.1:80")
        balancer.apply(
            ipvs.server_add(VirtualServer(here, scheduler)), ipvs.real_add(here, target("10.1.0.1:80"))
        )
        assert balancer.server(here) == VirtualServer(here, scheduler)
        balancer.apply(ipvs.server_delete(here))


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_flags_of_schedulers(space: Namespace, balancer: IPVS, scheduler: str) -> None:
    here = key("10.96.0.1:80")
    server = VirtualServer(here, scheduler, 0, SOURCE_HASH_PORT | SOURCE_HASH_FALLBACK)
    balancer.apply(ipvs.server_add(server))
    assert balancer.servers() == [server]
    assert f"{here} {server.options}".split(" ", 1)[1] in shown(space)


def test_refusals_say_what_is_meant(balancer: IPVS) -> None:
    here = key("10.96.0.1:80")
    with pytest.raises(Unsupported) as missing:
        balancer.apply(ipvs.server_add(VirtualServer(here, "nosuch")))
    assert "ip_vs_nosuch" in str(missing.value)
    balancer.apply(ipvs.server_add(VirtualServer(here)))
    with pytest.raises(KernelError) as twice:
        balancer.apply(
            ipvs.server_add(VirtualServer(here)), ipvs.server_add(VirtualServer(key("10.96.0.2:80")))
        )
    assert twice.value.is_exists
    assert twice.value.operation == "ipvsadm -A -t 10.96.0.1:80 -s rr"
    assert len(balancer.servers()) == 2, "what comes behind a failure is done"
    with pytest.raises(KernelError) as unknown:
        balancer.apply(ipvs.real_set(here, target("10.1.0.1:80"), 1))
    assert unknown.value.is_not_found
    balancer.apply(ipvs.real_delete(here, target("10.1.0.1:80")), ipvs.server_delete(key("10.96.0.9:80")))
    assert balancer.server(key("10.96.0.9:80")) is None
    assert balancer.real_servers(key("10.96.0.9:80")) == []


def test_servers_by_firewall_mark_are_not_ours(space: Namespace, balancer: IPVS) -> None:
    run(["ipvsadm", "-A", "-f", "5", "-s", "rr"], ns=space, check=True)
    assert balancer.servers() == []


def test_timeouts(balancer: IPVS) -> None:
    before = balancer.timeouts()
    balancer.apply(ipvs.timeouts_set(Timeouts(tcp=1000, udp=50)))
    assert balancer.timeouts() == Timeouts(1000, before.tcp_fin, 50)


def test_many_at_once(balancer: IPVS) -> None:
    keys = [key(f"10.97.{number // 200}.{number % 200}:80") for number in range(1000)]
    balancer.apply(*(ipvs.server_add(VirtualServer(one)) for one in keys))
    reals = [target(f"10.1.{number // 200}.{number % 200}:80") for number in range(1000)]
    balancer.apply(*(ipvs.real_add(keys[0], one) for one in reals))
    assert {server.key for server in balancer.servers()} == set(keys)
    assert {real.target for real in balancer.real_servers(keys[0])} == set(reals)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", list(SetType))
def test_sets(space: Namespace, sets: IPSet, kind: SetType, version: int) -> None:
    assert sets.has_type(kind)
    entry = ENTRIES[version][kind]
    sets.apply(ipset.set_create("ONE", kind, version), ipset.set_create("ONE", kind, version))
    sets.apply(ipset.entry_add("ONE", kind, entry), ipset.entry_add("ONE", kind, entry))
    assert sets.entries("ONE") == {entry}
    header = sets.headers()["ONE"]
    assert (header.type, header.size) == (kind, 1)
    assert header.version == (4 if kind is SetType.BITMAP_PORT else version)
    assert (
        run(["ipset", "list", "ONE"], ns=space, check=True).stdout.decode().endswith(f"Members:\n{entry}\n")
    )
    sets.apply(ipset.entry_delete("ONE", kind, entry), ipset.entry_delete("ONE", kind, entry))
    assert sets.entries("ONE") == frozenset()
    assert sets.headers()["ONE"].size == 0
    sets.apply(ipset.set_destroy("ONE"), ipset.set_destroy("ONE"))
    assert sets.headers() == {}


def test_a_long_list(sets: IPSet) -> None:
    entries = {f"10.2.{number // 250}.{number % 250},tcp:{number + 1}" for number in range(5000)}
    sets.apply(ipset.set_create("LONG", SetType.HASH_IP_PORT))
    sets.apply(*ipset.entries_add("LONG", SetType.HASH_IP_PORT, entries))
    assert sets.entries("LONG") == entries
    sets.apply(ipset.set_flush("LONG"))
    assert sets.entries("LONG") == frozenset()


def test_refusals_of_sets(space: Namespace, sets: IPSet) -> None:
    with pytest.raises(KernelError) as absent:
        sets.entries("NONE")
    assert absent.value.is_not_found
    with pytest.raises(KernelError) as nowhere:
        sets.apply(ipset.entry_add("NONE", SetType.HASH_IP, "10.0.0.1"))
    assert nowhere.value.is_not_found
    sets.apply(ipset.set_create("USED", SetType.HASH_IP))
    with pytest.raises(KernelError) as other:
        sets.apply(ipset.set_create("USED", SetType.HASH_IP_PORT))
    assert other.value.is_exists
    rule = ["-m", "set", "--match-set", "USED", "dst", "-j", "DROP"]
    run(["iptables-legacy", "-A", "INPUT", *rule], ns=space, check=True)
    with pytest.raises(KernelError, match="a rule refers to the set"):
        sets.apply(ipset.set_destroy("USED"))
    run(["iptables-legacy", "-D", "INPUT", *rule], ns=space, check=True)
    with pytest.raises(ValueError, match="longer than"):
        ipset.set_create("N" * 32, SetType.HASH_IP)


def test_addresses_of_both_families(space: Namespace) -> None:
    from netkit.proxy.ipvs.node import NamespaceNode

    node = NamespaceNode(space)
    node.make_device()
    node.make_device()
    wanted = {ip_address("10.96.0.1"), ip_address("10.96.0.2"), ip_address("fd00:96::1")}
    node.bind(wanted)
    node.bind(wanted)
    assert node.addresses()["kube-ipvs0"] == wanted
    node.unbind([ip_address("10.96.0.1"), ip_address("fd00:96::1")])
    node.unbind([ip_address("10.96.0.1")])
    assert node.addresses()["kube-ipvs0"] == {ip_address("10.96.0.2")}
    node.remove_device()
    node.remove_device()
    assert "kube-ipvs0" not in node.addresses()
