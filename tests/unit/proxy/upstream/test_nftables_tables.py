"""The whole table of the nftables mode, rule by rule, against what kube-proxy writes for the same objects."""

from __future__ import annotations

import pytest
from support.proxy import Object, service, slice_of
from unit.proxy.upstream import nftables_tables as facts
from unit.proxy.upstream.nftables_tables import (
    BAD_ADDRESSES,
    BAD_ADDRESSES_OBJECTS,
    EP1_1,
    EP1_2,
    EP2_1,
    EP3_1,
    EP3_2,
    EP3_3,
    EP4_1,
    FRAME,
    OVERALL,
    OVERALL_OBJECTS,
    SVC1,
    SVC2,
    SVC3,
    SVC4,
    cluster_ip_chains,
    cluster_ips,
)
from unit.proxy.upstream.world import NftablesProxier, tcp

from netkit.proxy.addresses import Family, parse_address
from netkit.proxy.backend import NodeFacts
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.nftables.names import endpoint_base, hashed, port_base, port_text
from netkit.proxy.services import Protocol, ServicePortName


async def same(proxier: NftablesProxier, *texts: str) -> None:
    """The kernel has the frame and the sections of `texts`, all their entries, and nothing else."""
    wanted = facts.read(FRAME, *texts)
    found = await proxier.rules()
    assert sorted(found) == sorted(wanted)
    for name, section in wanted.items():
        entries = [facts.listed(entry) for entry in section.entries]
        if name.startswith("chain "):
            assert list(found[name].entries) == entries, name
        else:
            assert sorted(found[name].entries) == sorted(entries), name


@pytest.mark.parametrize(
    ("objects", "text"),
    [(OVERALL_OBJECTS, OVERALL), (BAD_ADDRESSES_OBJECTS, BAD_ADDRESSES), ((), "")],
    ids=["overall", "addresses with leading zeros", "nothing"],
)
async def test_whole_table(objects: tuple[Object, ...], text: str) -> None:
    proxier = NftablesProxier()
    proxier.add(*objects)
    await proxier.sync()
    await same(proxier, text)
    found = await proxier.rules()
    for name, section in facts.read(FRAME, text).items():
        declared = section.declared.replace(" ;", ";").replace("timeout 10800s", "timeout 3h")
        for part in declared.split("; "):
            assert part in found[name].note, name


async def test_chains_come_and_go_with_their_ports() -> None:
    """A chain that is not needed is emptied at once, and deleted a second later or at a sync after that."""
    proxier = NftablesProxier()
    svc1, svc2 = (
        service("ns1/svc1", "172.30.0.41", tcp()),
        service("ns2/svc2", "172.30.0.42", tcp(8080, name="p8080")),
    )
    proxier.add(svc1, svc2, slice_of("ns1/svc1", "10.0.1.1"))
    proxier.add(slice_of("ns2/svc2", "10.0.2.1", ports=tcp(8080, name="p8080")))
    await proxier.sync()
    chains1 = cluster_ip_chains(SVC1, "172.30.0.41", EP1_1)
    chains2 = cluster_ip_chains(SVC2, "172.30.0.42", EP2_1)
    await same(proxier, cluster_ips("172.30.0.41", "172.30.0.42", to_41=SVC1, to_42=SVC2), chains1, chains2)

    proxier.add(service("ns3/svc3", "172.30.0.43", tcp()), slice_of("ns3/svc3", "10.0.3.1"))
    await proxier.sync()
    chains3 = cluster_ip_chains(SVC3, "172.30.0.43", EP3_1)
    leads = {"to_41": SVC1, "to_42": SVC2, "to_43": SVC3}
    addresses = ("172.30.0.41", "172.30.0.42", "172.30.0.43")
    await same(proxier, cluster_ips(*addresses, **leads), chains1, chains2, chains3)

    proxier.remove(svc2)
    await proxier.sync()
    leads, addresses = {"to_41": SVC1, "to_43": SVC3}, ("172.30.0.41", "172.30.0.43")
    emptied = f"chain {SVC2}\nchain {EP2_1}\n"
    await same(proxier, cluster_ips(*addresses, **leads), chains1, emptied, chains3)

    proxier.age_stale_chains()
    await proxier.sync()
    await same(proxier, cluster_ips(*addresses, **leads), chains1, chains3)

    proxier.add(service("ns4/svc4", "172.30.0.44", tcp()))
    await proxier.sync()
    addresses = (*addresses, "172.30.0.44")
    refused = '172.30.0.44 . tcp . 80 comment "ns4/svc4:p80"'
    await same(proxier, cluster_ips(*addresses, refused=refused, **leads), chains1, chains3)

    proxier.add(slice_of("ns4/svc4", "10.0.4.1"))
    await proxier.sync()
    chains4 = cluster_ip_chains(SVC4, "172.30.0.44", EP4_1)
    leads["to_44"] = SVC4
    everywhere = cluster_ips(*addresses, **leads)
    await same(proxier, everywhere, chains1, chains3, chains4)

    proxier.add(slice_of("ns3/svc3", "10.0.3.2"))
    await proxier.sync()
    changed = cluster_ip_chains(SVC3, "172.30.0.43", EP3_2)
    await same(proxier, everywhere, chains1, changed, f"chain {EP3_1}", chains4)

    proxier.age_stale_chains()
    grown = slice_of("ns3/svc3", "10.0.3.2", "10.0.3.3")
    proxier.add(grown)
    await proxier.sync()
    chains3 = cluster_ip_chains(SVC3, "172.30.0.43", EP3_2, EP3_3)
    await same(proxier, everywhere, chains1, chains3, chains4)

    emptied = f"chain {SVC3}\nchain {EP3_2}\nchain {EP3_3}\n"
    refused = '172.30.0.43 . tcp . 80 comment "ns3/svc3:p80"'
    left = cluster_ips(*addresses, refused=refused, to_41=SVC1, to_44=SVC4)
    proxier.add(slice_of("ns3/svc3"))
    await proxier.sync()
    await same(proxier, left, chains1, emptied, chains4)
    assert set(proxier.stale_chains()) == {SVC3, EP3_2, EP3_3}

    # Endpoints that come back at once find their chains, and nothing waits for deletion any more.
    proxier.add(grown)
    await proxier.sync()
    await same(proxier, everywhere, chains1, chains3, chains4)
    assert not proxier.stale_chains()

    # Those that come back later find them deleted.
    proxier.add(slice_of("ns3/svc3"))
    await proxier.sync()
    proxier.age_stale_chains()
    proxier.add(grown)
    await proxier.sync()
    await same(proxier, everywhere, chains1, chains3, chains4)
    assert not proxier.stale_chains()

    sent = proxier.table.transactions
    report = await proxier.sync()
    assert not report.wrote
    assert proxier.table.transactions == sent
    await same(proxier, everywhere, chains1, chains3, chains4)


async def test_a_started_proxy_adopts_what_stands() -> None:
    """Of a table that another process left, only what differs is written."""
    before, after = NftablesProxier(), NftablesProxier()
    ports2 = tcp(8080, name="p8080")
    both = (service("ns1/svc1", "172.30.0.41", tcp()), service("ns2/svc2", "172.30.0.42", ports2))
    before.add(*both, slice_of("ns1/svc1", "10.0.1.1"), slice_of("ns2/svc2", "10.0.2.1", ports=ports2))
    await before.sync()
    after.table.contents = before.table.contents
    after.add(
        *both, slice_of("ns1/svc1", "10.0.1.1", "10.0.1.2"), slice_of("ns2/svc2", "10.0.2.1", ports=ports2)
    )
    after.add(service("ns3/svc3", "172.30.0.43", tcp()))
    report = await after.sync()
    refused = '172.30.0.43 . tcp . 80 comment "ns3/svc3:p80"'
    await same(
        after,
        cluster_ips("172.30.0.41", "172.30.0.42", "172.30.0.43", refused=refused, to_41=SVC1, to_42=SVC2),
        cluster_ip_chains(SVC1, "172.30.0.41", EP1_1, EP1_2),
        cluster_ip_chains(SVC2, "172.30.0.42", EP2_1),
    )
    # The service's chain of two rules and the new endpoint's: kube-proxy writes those of svc2 again as well.
    assert sum(report.rules_written.values()) == 4


LONG_NAMESPACE = "very-long-namespace-name-abcdefghijklmnopqrstuvwxyz0123456789xx"
LONG_NAME = "very-long-service-name-why-would-you-even-do-this-i-mean-really"
LONG_PORT = "port-443-providing-the-hypertext-transmission-protocol-with-tls"
SHORT = ServicePortName("testing", "service", "http", Protocol.TCP)
LONG = ServicePortName(LONG_NAMESPACE, LONG_NAME, LONG_PORT, Protocol.SCTP)
LONG_TEXT = f"{LONG_NAMESPACE}/{LONG_NAME}/sctp/{LONG_PORT}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (SHORT, "P4ZYZVCF-testing/service/tcp/http"),
        (ServicePortName("testing", "service", "https", Protocol.TCP), "LZBRENCP-testing/service/tcp/https"),
        (LONG, f"KR6NACJP-{LONG_TEXT}"),
    ],
)
def test_names_of_ports(name: ServicePortName, expected: str) -> None:
    assert port_base(name) == expected == hashed(port_text(name))


@pytest.mark.parametrize(
    ("name", "address", "port", "expected"),
    [
        (SHORT, "10.180.0.1", 80, "JO2XBXZR-testing/service/tcp/http__10.180.0.1/80"),
        (SHORT, "10.180.0.2", 80, "5S6H3H22-testing/service/tcp/http__10.180.0.2/80"),
        (
            SHORT,
            "fd80:abcd:12::a1b2:c3d4:e5f6:9999",
            80,
            "U7E2ET36-testing/service/tcp/http__fd80.abcd.12..a1b2.c3d4.e5f6.9999/80",
        ),
        (
            LONG,
            "1234:5678:9abc:def0::abc:1234",
            443,
            f"5YS7AFEA-{LONG_TEXT}__1234.5678.9abc.def0..abc.1234/443",
        ),
        (
            LONG,
            "1234:5678:9abc:def0::abcd:1234:5678",
            443,
            f"CI6C53Q3-{LONG_TEXT}__1234.5678.9abc.def0..abcd.1234...",
        ),
        (
            LONG,
            "1234:5678:9abc:def0::abcd:1234:8765",
            443,
            f"2FLXFK6X-{LONG_TEXT}__1234.5678.9abc.def0..abcd.1234...",
        ),
    ],
)
def test_names_of_endpoints(name: ServicePortName, address: str, port: int, expected: str) -> None:
    # The text as it is: a real endpoint's is canonical, with a zero in place of a single empty group.
    target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    assert endpoint_base(port_text(name), Endpoint(parse_address(address), port, target=target)) == expected


@pytest.mark.parametrize(
    ("family", "ranges", "expected"),
    [
        (Family.IPV4, ("172.30.0.0/16", "fd00:10:96::/112"), "ip daddr 172.30.0.0/16 drop"),
        (
            Family.IPV4,
            ("172.30.0.0/16", "172.50.0.0/16", "fd00:10:96::/112", "fd00:172:30::/112"),
            "ip daddr { 172.30.0.0/16, 172.50.0.0/16 } drop",
        ),
        (Family.IPV6, ("172.30.0.0/16", "fd00:10:96::/112"), "ip6 daddr fd00:10:96::/112 drop"),
        (
            Family.IPV6,
            ("172.30.0.0/16", "172.50.0.0/16", "fd00:10:96::/112", "fd00:172:30::/112"),
            "ip6 daddr { fd00:10:96::/112, fd00:172:30::/112 } drop",
        ),
        (Family.IPV4, ("fd00:10:96::/112",), ""),
    ],
)
async def test_each_family_guards_its_service_ranges(
    family: Family, ranges: tuple[str, ...], expected: str
) -> None:
    proxier = NftablesProxier(family)
    proxier.backend.configure(NodeFacts(service_cidrs=ranges))
    await proxier.sync()
    rules = (await proxier.rules())["chain cluster-ips-check"].entries
    assert [rule.partition(" comment ")[0] for rule in rules[1:]] == ([expected] if expected else [])
