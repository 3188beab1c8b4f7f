"""Listings of the iptables mode: what is wanted, what stands, and what serves one service port."""

from support.proxy import FakeNodeKernel, endpoint, service, slice_of, state_of

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.iptables.inspection import listing_of
from netkit.proxy.listing import Difference, differences
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

HASH = "XPGD46QRK7WJZT7O"
NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
BALANCER = service(
    type="LoadBalancer",
    ports=[{"name": "p80", "port": 80, "nodePort": 3001}],
    ingress=[{"ip": "1.2.3.4"}],
    loadBalancerSourceRanges=["10.0.0.0/8"],
    externalTrafficPolicy="Local",
    healthCheckNodePort=30000,
    sessionAffinity="ClientIP",
)


async def synced(state: ProxyState) -> tuple[IPTablesBackend, FakeIPTables]:
    kernel = FakeIPTables()
    settings = ProxySettings(cluster_cidr="10.244.0.0/16")
    backend = IPTablesBackend("here", settings, kernel, FakeNodeKernel())  # type: ignore[arg-type]
    await backend.sync(state, None)
    return backend, kernel


async def test_after_a_sync_nothing_differs() -> None:
    state = state_of(BALANCER, slice_of("ns1/svc1", endpoint("10.1.0.1", "here"), "10.1.0.2"))
    backend, kernel = await synced(state)
    wanted = await backend.wanted(state)
    assert differences(wanted, await backend.standing()) == ()
    assert list(wanted)[:2] == ["nat PREROUTING", "nat OUTPUT"]
    assert wanted["nat PREROUTING"].entries == (
        '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    )
    assert wanted["mangle KUBE-PROXY-CANARY"].entries == ()
    assert len(kernel.documents) == 1, "looking changes nothing"


async def test_jumps_are_listed_in_the_order_in_which_they_stand() -> None:
    backend, _ = await synced(state_of())
    wanted = await backend.wanted(state_of())
    targets = [entry.rsplit(" ", 1)[1] for entry in wanted["filter INPUT"].entries]
    assert targets == ["KUBE-FIREWALL", "KUBE-PROXY-FIREWALL", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"]


async def test_what_somebody_changed_is_named() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.1.0.1"))
    backend, kernel = await synced(state)
    nat = kernel.tables["nat"]
    taken = nat["KUBE-SERVICES"].pop(0)
    nat["KUBE-MARK-MASQ"].append("-s 9.9.9.9 -j ACCEPT")
    nat["PREROUTING"].append("-j THEIRS")
    nat["THEIRS"] = ["-j RETURN"]
    nat["KUBE-SVC-OLD"] = []
    assert differences(await backend.wanted(state), await backend.standing()) == (
        Difference("nat KUBE-SERVICES", missing=(taken,)),
        Difference("nat KUBE-MARK-MASQ", unwanted=("-s 9.9.9.9/32 -j ACCEPT",)),
        Difference("nat KUBE-SVC-OLD", unwanted=("(the whole section)",)),
    )


def test_other_ways_to_write_a_rule_are_no_difference() -> None:
    ours = (
        "*nat\n:KUBE-SERVICES - [0:0]\n-I PREROUTING -j KUBE-SERVICES\n"
        '-A KUBE-SERVICES -d 1.2.3.4/32 -p tcp -m comment --comment "a/b" -m tcp --dport 80 -j KUBE-SVC-X\nCOMMIT\n'
    )
    theirs = (
        "# made by kube-proxy\n*nat\n:PREROUTING ACCEPT [1:2]\n:KUBE-SERVICES - [3:4]\n-A PREROUTING -j KUBE-SERVICES\n"
        "-A KUBE-SERVICES -m comment --comment a/b -m tcp -p tcp -d 1.2.3.4 --dport 80 -j KUBE-SVC-X\nCOMMIT\n"
    )
    assert listing_of(ours, Family.IPV4) == listing_of(theirs, Family.IPV4)


async def test_what_serves_a_port_in_the_order_packets_meet_it() -> None:
    local, remote = endpoint("10.1.0.1", "here"), endpoint("10.1.0.2", "there")
    other = (service("ns2/other", "172.30.0.9"), slice_of("ns2/other", "10.1.0.9"))
    state = state_of(BALANCER, slice_of("ns1/svc1", local, remote), *other)
    backend, _ = await synced(state)
    sections = await backend.serving(state, NAME)
    names = [section.name for section in sections]
    assert [name for name in names if "SEP" not in name] == [
        "nat KUBE-SERVICES",
        "nat KUBE-NODEPORTS",
        f"nat KUBE-FW-{HASH}",
        f"nat KUBE-EXT-{HASH}",
        f"nat KUBE-SVL-{HASH}",
        f"nat KUBE-SVC-{HASH}",
        "filter KUBE-PROXY-FIREWALL",
        "filter KUBE-NODEPORTS",
        "nat KUBE-MARK-MASQ",
        "filter KUBE-FORWARD",
        "nat KUBE-POSTROUTING",
    ]
    assert sum("SEP" in name for name in names) == 2
    assert "ns2/other" not in str(sections)
    assert sections[0].entries[-1].endswith("-j KUBE-NODEPORTS"), "the way to the node port"
    wanted = await backend.wanted(state)
    for section in sections:
        assert set(section.entries) <= set(wanted[section.name].entries)


async def test_a_port_without_endpoints_is_served_by_a_refusal() -> None:
    state = state_of(service())
    backend, _ = await synced(state)
    (section,) = await backend.serving(state, NAME)
    assert section.name == "filter KUBE-SERVICES"
    assert "has no endpoints" in section.entries[0]
    assert await backend.serving(state, ServicePortName("ns1", "none", "", Protocol.TCP)) == ()
