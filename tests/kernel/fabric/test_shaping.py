"""What emulated links do to packets: measured loosely, since other tests run beside these."""

from __future__ import annotations

import re
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.kernel import machine_ns, own_host, ping, source_seen, spec_of, wait_for

from netkit.fabric.build import Fabric, build
from netkit.fabric.shaping import FEATURES, NETEM, held, hold_back, lacking, shape
from netkit.fabric.spec import InterfaceSpec, LinkProperties
from netkit.kernel import process, qdisc
from netkit.kernel.ledger import Ledger
from netkit.kernel.probe import features
from netkit.kernel.process import Child, fork_recorded
from netkit.kernel.teardown import teardown


def present() -> set[str]:
    return {feature.name for feature in features(FEATURES) if feature.present}


def fabric_with(place: Path, link: LinkProperties) -> Fabric:
    """Machines `a`, whose link has the properties, and `b`."""
    spec = spec_of("a", "b")
    first = spec.machines[0]
    first = replace(first, interfaces=(InterfaceSpec("lan", first.address, link),))
    spec = replace(spec, machines=(first, *spec.machines[1:]))
    if why := lacking(spec, present()):
        pytest.skip("; ".join(why))
    return build(spec, Ledger(place / "ledger", "me"))


@asynccontextmanager
async def shaped(place: Path, link: LinkProperties) -> AsyncIterator[tuple[Fabric, Child | None]]:
    """The fabric with the link's properties at work, and the process that holds packets back if there is one."""
    fabric = fabric_with(place, link)
    netem = NETEM in present()
    await shape(fabric, place / "lock", netem=netem)
    child = None
    if held(fabric.spec) and not netem:
        child = fork_recorded(
            Ledger(place / "ledger", "me"), "links", lambda: hold_back(fabric.switch, fabric.spec)
        )
    try:
        yield fabric, child
    finally:
        fabric.close()
        teardown(place / "ledger")


def round_trips(fabric: Fabric, count: int, interval: float = 0.002) -> list[float]:
    """Milliseconds of echo requests from b to a that were answered."""
    argv = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1", "172.18.0.2"]
    told = process.run(argv, ns=machine_ns(fabric, "b")).stdout.decode()
    return [float(text) for text in re.findall(r"time=([\d.]+) ms", told)]


@own_host
async def test_packets_are_late_in_both_directions_and_on_time_when_nobody_holds_them(tmp_path: Path) -> None:
    async with shaped(tmp_path, LinkProperties(delay=0.02)) as (fabric, child):
        assert wait_for(lambda: min(round_trips(fabric, 3), default=0) >= 40, 10)
        assert statistics.median(round_trips(fabric, 30)) < 80
        assert (
            source_seen(machine_ns(fabric, "a"), machine_ns(fabric, "b"), "172.18.0.3", payload=1_000_000)
            == "172.18.0.2"
        )
        if child is not None:
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert wait_for(lambda: round_trips(fabric, 1) and max(round_trips(fabric, 3)) < 20)


@own_host
async def test_jitter_spreads_round_trips(tmp_path: Path) -> None:
    async with shaped(tmp_path, LinkProperties(delay=0.02, jitter=0.01)) as (fabric, _):
        assert wait_for(lambda: min(round_trips(fabric, 3), default=0) >= 15, 10)
        found = round_trips(fabric, 100)
        assert min(found) < 38
        assert max(found) > 42


@own_host
async def test_packets_are_lost_by_their_share(tmp_path: Path) -> None:
    async with shaped(tmp_path, LinkProperties(loss=0.3)) as (fabric, _):
        # Both ways: 0.7 x 0.7 = 49 % come back; 5 sigma of 400 is 12.5 %.
        assert 140 < len(round_trips(fabric, 400)) < 252


@own_host
async def test_a_link_is_as_slow_as_it_shall_be_in_both_directions(tmp_path: Path) -> None:
    async with shaped(tmp_path, LinkProperties(rate=8_000_000)) as (fabric, _):
        kinds = (qdisc.kinds(machine_ns(fabric, "a")).get("eth0"), qdisc.kinds(fabric.switch).get("a"))
        assert set(kinds) <= {"tbf", "netem"}
        for sender, receiver, address in (("a", "b", "172.18.0.3"), ("b", "a", "172.18.0.2")):
            began = time.monotonic()
            source_seen(machine_ns(fabric, sender), machine_ns(fabric, receiver), address, payload=1_000_000)
            # A megabyte needs one second; without the limit some milliseconds.
            assert time.monotonic() - began > 0.7


@own_host
async def test_a_cable_may_take_less_than_its_segment(tmp_path: Path) -> None:
    fabric = fabric_with(tmp_path, LinkProperties(mtu=1200))
    with fabric:
        assert ping(machine_ns(fabric, "a"), "172.18.0.3", size=1172)
        assert not ping(machine_ns(fabric, "a"), "172.18.0.3", size=1173, patience=0.2)
    teardown(tmp_path / "ledger")


def test_what_cannot_be_had_is_named() -> None:
    spec = spec_of("a", "b")
    link = LinkProperties(rate=1000, delay=0.01, jitter=0.001, loss=0.1)
    first = replace(spec.machines[0], interfaces=(InterfaceSpec("lan", spec.machines[0].address, link),))
    spec = replace(spec, machines=(first, spec.machines[1]))
    physdev = "iptables match physdev"
    for there, expected in (
        ({physdev}, ["rate", "delay", "jitter", "loss"]),
        ({physdev, "qdisc tbf"}, ["delay", "jitter", "loss"]),
        ({physdev, "iptables target NFQUEUE"}, ["rate", "loss"]),
        ({"iptables target NFQUEUE", "qdisc tbf", "iptables match statistic"}, ["delay", "jitter", "loss"]),
        ({"qdisc netem"}, []),
    ):
        assert [text.split()[2] for text in lacking(spec, there)] == expected
