from __future__ import annotations

import os
import random
import select
import signal
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from support.host import host_network
from support.kernel import machine_ns, own_host, ping, source_seen, spec_of, wait_for

from netkit.fabric.build import build
from netkit.fabric.host import networks_in_use
from netkit.fabric.segment import choose_segment
from netkit.kernel import netns, process, rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all
from netkit.kernel.netns import HOST
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.teardown import teardown

MACHINES = ("control-plane", "worker1", "worker2", "worker3", "client")


@own_host
def test_machines_and_host_reach_each_other_with_full_packets(tmp_path: Path) -> None:
    with build(spec_of(*MACHINES), Ledger(tmp_path, "me")) as fabric:
        one, client = machine_ns(fabric, "worker1"), machine_ns(fabric, "client")
        assert ping(one, "172.18.0.6", size=1472)
        assert not ping(one, "172.18.0.6", size=1473, patience=0.2)
        assert ping(one, "172.18.0.1", size=1472)
        assert ping(HOST, "172.18.0.3", size=1472)
        assert source_seen(client, one, "172.18.0.3") == "172.18.0.6"
        assert source_seen(HOST, one, "172.18.0.3") == "172.18.0.1"
        assert source_seen(one, HOST, "172.18.0.1") == "172.18.0.3"
        default = [r for r in rtnl_read.routes(one) if r.target.prefixlen == 0]
        assert [str(route.via) for route in default] == ["172.18.0.1"]
        assert rtnl_read.links(one)["eth0"].mac == "0a:58:ac:12:00:03"
    teardown(tmp_path)


@own_host
def test_the_host_gets_one_link_one_address_one_route(tmp_path: Path) -> None:
    before = host_network()
    with build(spec_of(*MACHINES), Ledger(tmp_path, "me")):
        after = host_network()
        assert [line.split()[1].split("@")[0] for line in after.links if line not in before.links] == [
            "nk-kt"
        ]
        added = [line for line in after.addresses if line not in before.addresses]
        assert len(added) == 1
        assert "inet 172.18.0.1/16" in added[0]
        routes = [line for line in after.routes if line not in before.routes]
        assert "172.18.0.0/16 dev nk-kt proto kernel scope link src 172.18.0.1" in routes
        assert all(
            "table local" in line or line.startswith("172.18.0.0/16 ")
            for line in routes
            if "inet6" not in line
        )
        assert not [line for line in routes if "fe80" in line]
        assert (after.rules, after.filters) == (before.rules, before.filters)
        assert {k: v for k, v in after.sysctls.items() if "/nk-kt/" not in k} == before.sysctls
    teardown(tmp_path)


@own_host
def test_the_switch_keeps_frames_out_of_iptables(tmp_path: Path) -> None:
    with build(spec_of("a", "b"), Ledger(tmp_path, "me")) as fabric:
        assert sysctl.read(fabric.switch, "net.bridge.bridge-nf-call-iptables") == "0"
        process.run(["iptables-legacy", "-P", "FORWARD", "DROP"], ns=fabric.switch, check=True)
        assert ping(machine_ns(fabric, "a"), "172.18.0.3")
    teardown(tmp_path)


@own_host
def test_machines_have_no_ipv6_but_on_lo(tmp_path: Path) -> None:
    with build(spec_of("a"), Ledger(tmp_path, "me")) as fabric:
        six = [e for e in rtnl_read.addresses(machine_ns(fabric, "a")) if e.address.version == 6]
        assert [str(entry.address) for entry in six] == ["::1/128"]
    teardown(tmp_path)


@own_host
def test_what_stands_is_adopted_and_connections_live_on(tmp_path: Path) -> None:
    spec = spec_of(*MACHINES)
    with Ledger(tmp_path, "me") as ledger, build(spec, ledger) as first:
        inodes = {name: machine.ns.inode for name, machine in first.machines.items()}
        links = {name: rtnl_read.links(machine.ns) for name, machine in first.machines.items()}
    with Ledger(tmp_path, "me") as ledger, build(spec, ledger) as second:
        assert {name: machine.ns.inode for name, machine in second.machines.items()} == inodes
        assert {name: rtnl_read.links(machine.ns) for name, machine in second.machines.items()} == links
        assert len(ledger.entries()) == len(MACHINES) + 3
        assert ping(machine_ns(second, "worker1"), "172.18.0.6")
    teardown(tmp_path)


@own_host
@pytest.mark.parametrize(
    "damage",
    [
        "machine",
        "switch",
        "port",
        "uplink",
        "address",
        "route",
        "down",
        "host-link",
        "bridge",
        "out-of-bridge",
    ],
)
def test_what_is_missing_is_repaired(tmp_path: Path, damage: str) -> None:
    spec = spec_of("a", "b")
    ledger = Ledger(tmp_path, "me")
    with build(spec, ledger) as fabric:
        a = machine_ns(fabric, "a")
        with Rtnl(a) as inside, Rtnl(fabric.switch) as switch, Rtnl(HOST) as host:
            index = inside.link_index("eth0")
            assert index is not None
            match damage:
                case "machine":
                    netns.delete("kt.a")
                case "switch":
                    netns.delete("kt.switch")
                case "port":
                    switch.apply(rtnl.link_delete("a"))
                case "uplink":
                    inside.apply(rtnl.link_delete("eth0"))
                case "address":
                    inside.apply(rtnl.address_delete(IPv4Interface("172.18.0.2/16"), index))
                    inside.apply(rtnl.address_add(IPv4Interface("172.18.7.7/16"), index))
                case "route":
                    inside.apply(rtnl.route_delete(IPv4Network("0.0.0.0/0"), index))
                case "down":
                    inside.apply(rtnl.link_down("eth0"))
                    switch.apply(rtnl.link_down("b"), rtnl.link_down("br0"))
                    host.apply(rtnl.link_down("nk-kt"))
                case "host-link":
                    host.apply(rtnl.link_delete("nk-kt"))
                case "bridge":
                    switch.apply(rtnl.link_delete("br0"))
                case "out-of-bridge":
                    switch.apply(rtnl.link_master("a", 0), rtnl.link_master("host", 0))
    with build(spec, ledger) as fabric:
        assert ping(machine_ns(fabric, "a"), "172.18.0.3")
        assert ping(HOST, "172.18.0.2")
        addresses = [
            str(e.address) for e in rtnl_read.addresses(machine_ns(fabric, "a")) if e.address.version == 4
        ]
        assert addresses == ["127.0.0.1/8", "172.18.0.2/16"]
    teardown(tmp_path)


@own_host
def test_a_changed_spec_is_followed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "me")
    build(spec_of("a", "b"), ledger).close()
    with build(spec_of("a", "b", "c", mtu=9000), ledger) as fabric:
        assert ping(machine_ns(fabric, "c"), "172.18.0.2", size=8972)
        assert ping(HOST, "172.18.0.2", size=8972)
    teardown(tmp_path)


@own_host
def test_clusters_side_by_side_choose_different_segments(tmp_path: Path) -> None:
    built = []
    for cluster in ("ka", "kb", "kc"):
        segment = choose_segment(None, networks_in_use())
        fabric = build(spec_of("a", cluster=cluster, segment=str(segment)), Ledger(tmp_path / cluster, "me"))
        built.append(fabric)
    assert [str(fabric.spec.segment) for fabric in built] == [
        "172.18.0.0/16",
        "172.19.0.0/16",
        "172.20.0.0/16",
    ]
    assert [ping(machine_ns(fabric, "a"), str(fabric.spec.host_address.ip)) for fabric in built] == [True] * 3
    teardown(tmp_path / "kb")
    assert choose_segment(None, networks_in_use()) == IPv4Network("172.19.0.0/16")
    assert ping(HOST, "172.20.0.2")
    assert choose_segment(IPv4Network("172.18.0.0/16"), networks_in_use("nk-ka")) == IPv4Network(
        "172.18.0.0/16"
    )
    for cluster in ("ka", "kc"):
        teardown(tmp_path / cluster)
    for fabric in built:
        fabric.close()


@own_host
def test_what_others_have_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "one", "me")
    build(spec_of("a"), ledger).close()
    with pytest.raises(KernelError, match="uses") as clash:
        build(spec_of("a", cluster="other"), Ledger(tmp_path / "two", "me"))
    assert clash.value.hint == "choose another segment"
    with pytest.raises(KernelError) as namespace:
        build(spec_of("a"), Ledger(tmp_path / "three", "me"))
    assert namespace.value.is_exists
    with Rtnl(HOST) as host:
        host.apply(rtnl.veth("nk-foreign", "foreign-b"))
        with pytest.raises(KernelError) as link:
            build(spec_of("a", cluster="foreign", segment="172.30.0.0/16"), Ledger(tmp_path / "four", "me"))
        assert link.value.is_exists
        for name in ("one", "two", "three", "four"):
            teardown(tmp_path / name)
        assert host.link_index("nk-foreign") is not None
        host.apply(rtnl.link_delete("nk-foreign"))


@own_host
def test_a_users_shell_in_a_machine_does_not_keep_the_host_link(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "me")
    with build(spec_of("a"), ledger) as fabric:
        held = os.dup(fabric.switch.fd)
    teardown(tmp_path)
    with Rtnl(HOST) as host:
        assert host.link_index("nk-kt") is None
    os.close(held)


@own_host
@pytest.mark.parametrize("seed", range(12))
def test_killed_half_way_and_taken_down(tmp_path: Path, seed: int) -> None:
    """kill -9 at a random moment of build; teardown must leave nothing (the leak check says so)."""
    progress_read, progress_write = os.pipe()
    chosen = random.Random(seed).randrange(len(MACHINES) + 3)

    class Telling(Ledger):
        """Tells the parent of each entry, so that the kill comes at a known place."""

        def intend(self, entry: object) -> None:  # type: ignore[override]
            super().intend(entry)  # type: ignore[arg-type]
            os.write(progress_write, b".")

    pid = os.fork()
    if pid == 0:
        try:
            build(spec_of(*MACHINES), Telling(tmp_path, "me"))
        finally:
            os._exit(0)
    for _ in range(chosen + 1):
        os.read(progress_read, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read_all(tmp_path)
    if seed % 2:
        # Building on goes as well as taking down.
        with build(spec_of(*MACHINES), Ledger(tmp_path, "me")) as fabric:
            assert ping(machine_ns(fabric, "worker1"), "172.18.0.6")
    teardown(tmp_path)
    assert wait_for(lambda: not netns.names())


@own_host
def test_a_machines_address_is_the_specs(tmp_path: Path) -> None:
    spec = spec_of("a")
    with build(spec, Ledger(tmp_path, "me")) as fabric:
        assert fabric.machines["a"].address.ip == IPv4Address("172.18.0.2")
        assert fabric.machines["a"].ns.path == "/run/netns/kt.a"
    with pytest.raises(ValueError, match="not in the segment"):
        replace(spec, segments=(replace(spec.segments[0], network=IPv4Network("172.19.0.0/16")),))
    teardown(tmp_path)


@own_host
@pytest.mark.parametrize("milliseconds", [0, 1, 3, 6, 10, 15])
def test_teardown_killed_half_way_and_repeated(tmp_path: Path, milliseconds: int) -> None:
    ledger = Ledger(tmp_path / "ledger", "me")
    build(spec_of(*MACHINES), ledger).close()
    (tmp_path / "state").mkdir()
    ledger.intend(Entry(EntryKind.DIRECTORY, str(tmp_path / "state")))
    for number in range(30):
        netns.create(f"kt.default.pod{number}", ledger).close()
    pid = os.fork()
    if pid == 0:
        try:
            teardown(tmp_path / "ledger")
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [], milliseconds / 1000)
    os.close(pidfd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    teardown(tmp_path / "ledger")
    assert list(tmp_path.iterdir()) == []
