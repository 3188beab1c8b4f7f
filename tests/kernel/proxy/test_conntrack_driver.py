"""The conntrack driver against a real table, filled and read by conntrack(8)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from netkit.kernel import netns
from netkit.kernel.conntrack import Conntrack
from netkit.kernel.conntrack_settings import ConntrackSettings as KernelSettings
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.conntrack_sysctls import ConntrackSysctls
from netkit.proxy.settings import ConntrackSettings

TCP, UDP, SCTP = 6, 17, 132
_serial = iter(range(1_000_000))


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path, "conntracktest")
    name = f"nkct{os.getpid()}x{next(_serial)}"
    with netns.create(name, ledger) as made:
        yield made
    netns.delete(name, ledger)
    assert not netns.exists(name)


def add(
    space: Namespace, protocol: str, source: str, destination: str, answers: str = "", *more: str
) -> None:
    """One entry of `address port` texts."""
    words = ["conntrack", "-I", "-p", protocol, "-t", "1000"]
    address, port = source.split()
    words += ["-s", address, "--sport", port]
    called, number = destination.split()
    words += ["-d", called, "--dport", number]
    if answers:
        place, answering = answers.split()
        words += ["-r", place, "-q", address, "--reply-port-src", answering, "--reply-port-dst", port]
    run([*words, *more], ns=space, check=True)


def table(space: Namespace) -> list[str]:
    lines = []
    for version in ("ipv4", "ipv6"):
        lines += run(["conntrack", "-L", "-f", version], ns=space).stdout.decode().splitlines()
    return lines


def test_only_what_was_asked_for_is_read(space: Namespace) -> None:
    add(space, "udp", "10.0.0.1 1000", "10.96.0.10 53", "10.244.0.5 8053")
    add(space, "tcp", "10.0.0.1 1000", "10.96.0.10 53", "", "--state", "ESTABLISHED")
    add(space, "udp", "fd00::1 1000", "fd00::2 53")
    vtags = ("--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2")
    add(space, "sctp", "10.0.0.1 1000", "10.96.0.10 53", "", *vtags)
    conntrack = Conntrack(space)
    (found,) = conntrack.dump(4, UDP)
    assert (
        str(found) == "udp src=10.0.0.1 dst=10.96.0.10 sport=1000 dport=53 "
        "src=10.244.0.5 dst=10.0.0.1 sport=8053 dport=1000"
    )
    assert found.reply.source == ip_address("10.244.0.5").packed
    (six,) = conntrack.dump(6, UDP)
    assert str(six).startswith("udp src=fd00::1 dst=fd00::2 sport=1000 dport=53 src=fd00::2")
    assert [item.protocol for item in conntrack.dump(4, TCP)] == [TCP]
    assert [item.protocol for item in conntrack.dump(4, SCTP)] == [SCTP]
    assert conntrack.dump(6, TCP) == []


def test_exactly_the_given_entries_are_deleted(space: Namespace) -> None:
    for number in range(5):
        add(space, "udp", f"10.0.0.1 {1000 + number}", "10.96.0.10 53")
    add(space, "tcp", "10.0.0.1 1000", "10.96.0.10 53", "", "--state", "ESTABLISHED")
    add(space, "udp", "fd00::1 1000", "fd00::2 53")
    conntrack = Conntrack(space)
    chosen = [item for item in conntrack.dump(4, UDP) if item.original.source_port in (1001, 1003)]
    assert conntrack.delete(chosen) == 2
    assert sorted(item.original.source_port for item in conntrack.dump(4, UDP)) == [1000, 1002, 1004]
    assert conntrack.delete(conntrack.dump(6, UDP)) == 1
    assert len(table(space)) == 4


def test_entries_that_went_by_themselves_are_no_failure_and_not_counted(space: Namespace) -> None:
    add(space, "udp", "10.0.0.1 1000", "10.96.0.10 53")
    add(space, "udp", "10.0.0.1 1001", "10.96.0.10 53")
    conntrack = Conntrack(space)
    found = conntrack.dump(4, UDP)
    run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "1001"], ns=space, check=True)
    assert conntrack.delete(found) == 1
    assert conntrack.delete(found) == 0


@pytest.mark.parametrize(
    "younger",
    [
        ("10.96.0.10 53", "10.244.0.6 8053"),  # to the same address, led elsewhere
        ("10.96.0.11 53", "10.244.0.5 8053"),  # to another address, led to the same place
    ],
)
def test_a_newer_entry_of_the_same_client_stays(space: Namespace, younger: tuple[str, str]) -> None:
    """It was made after the dump, by the rules of now."""
    add(space, "udp", "10.0.0.1 1000", "10.96.0.10 53", "10.244.0.5 8053")
    conntrack = Conntrack(space)
    old = conntrack.dump(4, UDP)
    run(["conntrack", "-F"], ns=space, check=True)
    add(space, "udp", "10.0.0.1 1000", *younger)
    assert conntrack.delete(old) == 0
    assert len(conntrack.dump(4, UDP)) == 1


def test_zones_are_told_apart(space: Namespace) -> None:
    add(space, "udp", "10.0.0.1 1000", "10.96.0.10 53", "10.244.0.5 8053", "-w", "7")
    add(space, "udp", "10.0.0.1 1000", "10.96.0.10 53", "10.244.0.6 8053")
    conntrack = Conntrack(space)
    chosen = [item for item in conntrack.dump(4, UDP) if item.reply.source == ip_address("10.244.0.5").packed]
    assert conntrack.delete(chosen) == 1
    (left,) = table(space)
    assert "src=10.244.0.6" in left
    assert "zone" not in left


def test_more_than_one_batch(space: Namespace) -> None:
    with netns.entered(space):
        Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout").write_text("600")
    run(["ip", "link", "set", "lo", "up"], ns=space, check=True)
    run(["iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW"], ns=space, check=True)
    with netns.socket_in(space, 2, 2) as sender:
        for number in range(1000):
            sender.sendto(b"x", ("127.0.0.1", 20000 + number))
    conntrack = Conntrack(space)
    found = conntrack.dump(4, UDP)
    assert len(found) >= 1000
    assert conntrack.delete(found) == len(found)
    assert conntrack.dump(4, UDP) == []


async def test_settings_of_a_namespace(space: Namespace) -> None:
    """All but the limit, which is the machine's."""
    events: list[tuple[str, str]] = []
    settings = ConntrackSettings(tcp_be_liberal=True, udp_timeout=50, udp_stream_timeout=60)
    kernel = KernelSettings(space)
    limit, buckets = kernel.read("max"), kernel.hash_size()
    settings = dataclasses.replace(settings, max_per_core=limit // 2, minimum=0)
    await ConntrackSysctls("here", settings, kernel, lambda *event: events.append(event), 1).prepare()
    assert events == []
    assert (kernel.read("max"), kernel.hash_size()) == (limit, buckets)
    names = "tcp_timeout_established tcp_timeout_close_wait tcp_be_liberal udp_timeout udp_timeout_stream"
    made = [kernel.read(name) for name in names.split()]
    assert made == [86400, 3600, 1, 50, 60]
