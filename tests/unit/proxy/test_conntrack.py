"""Which tracked flows are stale, and when the cleaner looks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.proxy import Object, draining, endpoint, service, slice_of, state_of, unready

from netkit.kernel.conntrack import Entry
from netkit.kernel.conntrack_fake import FakeConntrack, entry
from netkit.kernel.errors import KernelError
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Synced, SyncReport
from netkit.proxy.conntrack import UDPServices
from netkit.proxy.conntrack_cleaner import ConntrackCleaner
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.state import Changes, ProxyState

TCP, UDP, SCTP = 6, 17, 132
CLIENT = "10.244.1.9:4000"
DNS_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]
POD_PORTS = [{"name": "dns", "port": 5353, "protocol": "UDP"}]
EVERYWHERE: dict[str, Any] = {
    "type": "LoadBalancer",
    "externalIPs": ["1.2.3.4"],
    "ingress": [{"ip": "5.6.7.8"}],
}
NAME = ServicePortName("kube-system", "dns", "dns", Protocol.UDP)


def dns(*endpoints: Object | str, **spec: Any) -> list[Object]:
    return [
        service("kube-system/dns", "10.96.0.10", DNS_PORTS, **{**EVERYWHERE, **spec}),
        slice_of("kube-system/dns", *endpoints, ports=POD_PORTS),
    ]


def judged(flow: Entry, *objects: Object, family: Family = Family.IPV4) -> bool:
    return UDPServices.of(state_of(*objects, family=family)).judge(flow).stale


@pytest.mark.parametrize("called", ["10.96.0.10:53", "1.2.3.4:53", "5.6.7.8:53", "192.168.0.2:30053"])
def test_a_flow_to_an_endpoint_that_is_gone_is_stale_by_whatever_address(called: str) -> None:
    assert judged(entry(UDP, CLIENT, called, "10.244.1.1:5353"), *dns("10.244.1.2"))
    assert not judged(entry(UDP, CLIENT, called, "10.244.1.2:5353"), *dns("10.244.1.2"))


@pytest.mark.parametrize("called", ["10.96.0.10:53", "1.2.3.4:53", "5.6.7.8:53", "192.168.0.2:30053"])
def test_the_last_endpoint_takes_its_flows_along(called: str) -> None:
    assert judged(entry(UDP, CLIENT, called, "10.244.1.1:5353"), *dns())
    assert judged(entry(UDP, CLIENT, called, "10.244.1.1:5353"), *dns(unready("10.244.1.1")))


def test_a_flow_made_before_the_rules_is_stale() -> None:
    services = UDPServices.of(state_of(*dns("10.244.1.2")))
    judgement = services.judge(entry(UDP, CLIENT, "10.96.0.10:53"))
    assert judgement.stale
    assert judgement.port == NAME
    assert "before" in judgement.reason


def test_a_renumbered_endpoint_is_another_one() -> None:
    assert judged(entry(UDP, CLIENT, "10.96.0.10:53", "10.244.1.2:5300"), *dns("10.244.1.2"))


def test_a_masqueraded_flow_is_known_by_who_answers() -> None:
    flow = entry(UDP, CLIENT, "10.96.0.10:53", "10.244.1.2:5353", "192.168.0.2:61000")
    assert not judged(flow, *dns("10.244.1.2"))
    assert judged(flow, *dns("10.244.1.3"))


def test_policies_hints_and_terminating_endpoints_disturb_no_flow() -> None:
    flow = entry(UDP, CLIENT, "1.2.3.4:53", "10.244.1.2:5353")
    there = endpoint("10.244.1.2", "elsewhere", zones=["zone-b"])
    local = dns(there, externalTrafficPolicy="Local", internalTrafficPolicy="Local")
    assert not judged(flow, *local)
    assert not judged(flow, *dns(draining("10.244.1.2"), "10.244.1.3"))


@pytest.mark.parametrize("protocol", [TCP, SCTP])
def test_other_protocols_are_never_touched(protocol: int) -> None:
    assert not judged(entry(protocol, CLIENT, "10.96.0.10:53", "10.244.1.1:5353"), *dns("10.244.1.2"))


@pytest.mark.parametrize(
    "called",
    [
        "10.96.0.10:54",  # another port of the Service's address
        "10.96.0.11:53",
        "8.8.8.8:53",
        "10.244.1.1:5353",  # the pod itself, past the Service
        "192.168.0.2:53",  # the Service's port on the node
    ],
)
def test_flows_to_what_is_no_service_port_are_never_touched(called: str) -> None:
    assert not judged(entry(UDP, CLIENT, called, "10.244.1.1:5353"), *dns("10.244.1.2"))
    assert not judged(entry(UDP, CLIENT, called), *dns("10.244.1.2"))


def test_a_tcp_service_port_does_not_make_udp_flows_stale() -> None:
    ports = [{"name": "dns", "port": 53, "nodePort": 30053}]
    tcp = [service("kube-system/dns", "10.96.0.10", ports), slice_of("kube-system/dns", "10.244.1.2")]
    assert not judged(entry(UDP, CLIENT, "10.96.0.10:53", "10.244.1.1:5353"), *tcp)
    assert not judged(entry(UDP, CLIENT, "192.168.0.2:30053", "10.244.1.1:5353"), *tcp)


def test_an_address_of_a_service_goes_before_a_node_port() -> None:
    """An external IP with the number of another Service's node port: only its own endpoints count."""
    ports = [{"name": "x", "port": 30053, "protocol": "UDP"}]
    other = [
        service("ns1/x", "10.96.0.30", ports, externalIPs=["9.9.9.9"]),
        slice_of("ns1/x", "10.244.3.3", ports=[{"name": "x", "port": 1, "protocol": "UDP"}]),
    ]
    assert not judged(entry(UDP, CLIENT, "9.9.9.9:30053", "10.244.3.3:1"), *dns("10.244.1.2"), *other)


def test_of_two_claims_the_older_service_counts() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    younger = [
        service("ns1/young", "10.96.0.30", ports, externalIPs=["1.2.3.4"], created="2026-02-01T00:00:00Z"),
        slice_of("ns1/young", "10.244.3.3", ports=POD_PORTS),
    ]
    assert judged(entry(UDP, CLIENT, "1.2.3.4:53", "10.244.3.3:5353"), *younger, *dns("10.244.1.2"))
    assert not judged(entry(UDP, CLIENT, "1.2.3.4:53", "10.244.1.2:5353"), *younger, *dns("10.244.1.2"))


def test_ipv6() -> None:
    six = [
        service("kube-system/dns", "fd00::10", DNS_PORTS),
        slice_of("kube-system/dns", "fd01::2", ports=POD_PORTS, address_type="IPv6"),
    ]
    gone = entry(UDP, "[fd01::9]:4000", "[fd00::10]:53", "[fd01::1]:5353")
    there = entry(UDP, "[fd01::9]:4000", "[fd00::10]:53", "[fd01::2]:5353")
    assert judged(gone, *six, family=Family.IPV6)
    assert not judged(there, *six, family=Family.IPV6)


addresses = st.sampled_from(
    ["10.96.0.10", "10.96.0.11", "10.244.1.1", "10.244.1.2", "8.8.8.8", "192.168.0.2"]
)
numbers = st.sampled_from([53, 5353, 30053, 80])
places = st.builds("{}:{}".format, addresses, numbers)


@given(st.sampled_from([TCP, UDP, SCTP]), places, places)
def test_only_udp_flows_to_service_ports_away_from_endpoints_go(
    protocol: int, called: str, answers: str
) -> None:
    to_service = called == "10.96.0.10:53" or called.endswith(":30053")
    flow = entry(protocol, CLIENT, called, answers)
    assert judged(flow, *dns("10.244.1.2")) == (
        protocol == UDP and to_service and answers != "10.244.1.2:5353"
    )


# the cleaner

GONE = entry(UDP, CLIENT, "10.96.0.10:53", "10.244.1.1:5353")
ALIVE = entry(UDP, CLIENT, "10.96.0.10:53", "10.244.1.2:5353")
OVER_TCP = entry(TCP, CLIENT, "10.96.0.10:53", "10.244.1.1:5353")
OTHERS = ServicePortName("ns1", "web", "http", Protocol.TCP)
NOTHING = Changes(frozenset(), frozenset())
QUIET, PARTIAL, FULL = SyncReport(False, False), SyncReport(True, False), SyncReport(True, True)


def synced(state: ProxyState, changes: Changes, report: SyncReport = PARTIAL) -> Synced:
    return Synced(state, changes, report, ProxyMetrics())


async def test_the_cleaner_deletes_what_is_stale_and_counts_it() -> None:
    table = FakeConntrack([GONE, ALIVE, OVER_TCP])
    happened = synced(state_of(*dns("10.244.1.2")), Changes(frozenset({NAME}), frozenset()))
    await ConntrackCleaner("here", table).after_sync(happened)
    assert table.entries == [ALIVE, OVER_TCP]
    assert happened.metrics.conntrack_reconciler_deleted_entries_total == 1
    assert happened.metrics.conntrack_reconciler_sync_duration_seconds.count == 1


@pytest.mark.parametrize(
    ("changes", "report", "looks"),
    [
        (Changes(frozenset({NAME}), frozenset()), PARTIAL, True),
        (Changes(frozenset({NAME}), frozenset()), QUIET, True),
        (Changes(frozenset(), frozenset({NAME})), PARTIAL, True),
        (Changes(frozenset({OTHERS}), frozenset()), PARTIAL, False),
        (Changes(frozenset(), frozenset({OTHERS})), PARTIAL, False),
        (NOTHING, FULL, True),
        (NOTHING, QUIET, False),
        (NOTHING, SyncReport(False, True), False),
    ],
)
async def test_the_table_is_read_only_when_udp_is_concerned(
    changes: Changes, report: SyncReport, looks: bool
) -> None:
    table = FakeConntrack([GONE])
    await ConntrackCleaner("here", table).after_sync(synced(state_of(*dns()), changes, report))
    assert table.dumps == looks


async def test_without_udp_services_the_table_is_not_read() -> None:
    table = FakeConntrack([GONE])
    await ConntrackCleaner("here", table).after_sync(synced(state_of(service()), NOTHING, FULL))
    assert table.dumps == 0


async def test_what_failed_is_done_after_the_next_sync() -> None:
    table = FakeConntrack([GONE])
    table.failures = 1
    cleaner = ConntrackCleaner("here", table)
    happened = synced(state_of(*dns()), Changes(frozenset({NAME}), frozenset()))
    with pytest.raises(KernelError, match="injected"):
        await cleaner.after_sync(happened)
    other = dataclasses.replace(happened, changes=NOTHING, report=QUIET)
    await cleaner.after_sync(other)
    assert table.entries == []
    await cleaner.after_sync(other)
    assert table.dumps == 2
