"""The IPVS back end on fakes: what it writes, in which order, and that it writes nothing twice."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ipvs import World, key, target
from support.proxy import Object, draining, endpoint, feed, service, slice_of, state_of

from netkit.kernel.address_events import AddressEvent
from netkit.kernel.errors import KernelError
from netkit.kernel.ipvs_values import Timeouts, Transport
from netkit.proxy.addresses import Family
from netkit.proxy.backend import NodeFacts
from netkit.proxy.ipvs.sets import DEVICE
from netkit.proxy.listing import differences
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.settings import IPVSSettings, ProxySettings
from netkit.proxy.state import ProxyState

SVC = service("ns1/svc1", "172.30.0.41")
NODE_PORT = [{"name": "p80", "port": 80, "nodePort": 30001}]
FULL = service(
    "ns1/full",
    "172.30.0.42",
    type="LoadBalancer",
    ports=NODE_PORT,
    externalIPs=["1.2.3.4", "192.168.0.2"],
    ingress=[{"ip": "5.6.7.8"}],
    loadBalancerSourceRanges=["203.0.113.0/25"],
    externalTrafficPolicy="Local",
    healthCheckNodePort=30100,
    sessionAffinity="ClientIP",
)
FULL_SLICE = slice_of("ns1/full", endpoint("10.244.1.1", "here"), endpoint("10.244.2.1", "there"))


async def sync(world: World, state: ProxyState) -> list[str]:
    """A partial sync of what changed; all that was done."""
    await world.backend.sync(state, state.collect())
    state.mark_synced()
    return world.take()


async def started(state: ProxyState, world: World | None = None) -> World:
    world = world or World()
    state.collect()
    await world.backend.sync(state, None)
    state.mark_synced()
    world.take()
    return world


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def no_differences(world: World, state: ProxyState) -> None:
    found = differences(await world.backend.wanted(state), await world.backend.standing())
    assert found == ()


async def test_a_service_becomes_a_virtual_server_a_bound_address_and_entries() -> None:
    world = await started(state_of(SVC, slice_of("ns1/svc1", endpoint("10.244.1.1", "here"), "10.244.2.1")))
    assert str(world.servers) == ("172.30.0.41:80/TCP rr\n  -> 10.244.1.1:80 1\n  -> 10.244.2.1:80 1")
    assert world.node.devices[DEVICE] == {ip_address("172.30.0.41")}
    assert world.sets.contents["KUBE-CLUSTER-IP"] == {"172.30.0.41,tcp:80"}
    assert world.sets.contents["KUBE-LOOP-BACK"] == {"10.244.1.1,tcp:80,10.244.1.1"}
    assert world.sets.contents["KUBE-IPVS-IPS"] == {"172.30.0.41"}


async def test_a_full_sync_of_what_stands_writes_nothing() -> None:
    state = state_of(SVC, FULL, FULL_SLICE)
    world = await started(state)
    report = await world.backend.sync(state, None)
    assert not report.wrote
    assert report.full
    assert world.take() == []
    world.restarted()
    assert not (await world.backend.sync(state, None)).wrote
    assert world.take() == []
    await no_differences(world, state)


async def test_virtual_servers_go_in_the_order_opposite_to_that_in_which_they_came() -> None:
    """The kernel searches those that went last first for each that comes."""
    places = ["172.30.0.9", "172.30.0.10", "172.30.0.100", "172.30.1.1"]
    objects = [service(f"ns1/s{number}", place) for number, place in enumerate(places)]
    state = state_of(*reversed(objects), *(slice_of(f"ns1/s{number}", "10.244.2.1") for number in range(4)))
    world = World()
    await world.backend.sync(state, None)
    done = world.take()
    assert [line.split()[3] for line in done if line.startswith("ipvsadm -A")] == [f"{p}:80" for p in places]
    backwards = [f"{place}:80" for place in reversed(places)]
    for obj in objects:
        state.delete_service("ns1", obj["metadata"]["name"])
    done = await sync(world, state)
    assert [line.split()[3] for line in done if line.startswith("ipvsadm -D")] == backwards
    feed(state, *objects)
    await sync(world, state)
    await world.backend.cleanup()
    assert [line.split()[3] for line in world.take() if line.startswith("ipvsadm -D")] == backwards


async def test_an_address_is_given_once() -> None:
    world = World()
    await world.backend.sync(state_of(SVC), None)
    assert [line for line in world.take() if line.startswith("bind")] == ["bind 172.30.0.41"]


async def test_an_endpoint_change_is_two_messages() -> None:
    state = state_of(SVC, FULL, FULL_SLICE, slice_of("ns1/svc1", "10.244.2.1"))
    world = await started(state)
    feed(state, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    assert await sync(world, state) == ["ipvsadm -a -t 172.30.0.41:80 -r 10.244.2.2:80 -m -w 1"]
    feed(state, slice_of("ns1/svc1", "10.244.2.2"))
    assert await sync(world, state) == [
        "ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.1:80 -m -w 0",
        "ipvsadm -d -t 172.30.0.41:80 -r 10.244.2.1:80",
    ]
    await no_differences(world, state)


async def test_a_new_service_is_there_before_its_address_is() -> None:
    state = state_of()
    world = await started(state)
    feed(state, SVC, slice_of("ns1/svc1", "10.244.2.1"))
    done = await sync(world, state)
    assert done[:5] == [
        "ipvsadm -A -t 172.30.0.41:80 -s rr",
        "ipvsadm -a -t 172.30.0.41:80 -r 10.244.2.1:80 -m -w 1",
        "ipset add KUBE-CLUSTER-IP 172.30.0.41,tcp:80 -exist",
        "ipset add KUBE-IPVS-IPS 172.30.0.41 -exist",
        "bind 172.30.0.41",
    ]
    assert len(done) == 6
    assert "KUBE-SERVICES" in done[5]
    assert "KUBE-POSTROUTING" not in done[5], "only chains that differ are written"
    feed(state, service("ns1/svc2", "172.30.0.43"))
    assert not any("*nat" in line for line in await sync(world, state)), "sets were filled before"
    state.delete_service("ns1", "svc2")
    assert await sync(world, state) == [
        "ipvsadm -D -t 172.30.0.43:80",
        "ipset del KUBE-CLUSTER-IP 172.30.0.43,tcp:80 -exist",
        "ipset del KUBE-IPVS-IPS 172.30.0.43 -exist",
        "unbind 172.30.0.43",
    ]
    await no_differences(world, state)


async def test_addresses_of_the_node_itself_are_not_bound() -> None:
    state = state_of(FULL, FULL_SLICE)
    world = await started(state)
    assert world.node.devices[DEVICE] == {ip_address(ip) for ip in ("172.30.0.42", "1.2.3.4", "5.6.7.8")}
    assert key("192.168.0.2:80") in world.servers.known
    assert key("192.168.0.2:30001") in world.servers.known
    assert key("127.0.0.1:30001") not in world.servers.known


async def test_who_is_wanted_again_gets_his_weight_back() -> None:
    state = state_of(SVC, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    world = await started(state)
    world.servers.connect(key("172.30.0.41:80"), target("10.244.2.2:80"), active=1)
    feed(state, slice_of("ns1/svc1", "10.244.2.1"))
    assert await sync(world, state) == ["ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.2:80 -m -w 0"]
    section = (await world.backend.standing())["172.30.0.41:80/TCP"]
    assert section.entries == ("10.244.2.1:80 weight 1", "10.244.2.2:80 weight 0")
    await no_differences(world, state)
    assert not (await world.backend.sync(state, None)).wrote
    feed(state, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    assert await sync(world, state) == ["ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.2:80 -m -w 1"]


async def test_who_leaves_twice_gets_weight_0_twice() -> None:
    state = state_of(SVC, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    world = await started(state)
    world.servers.connect(key("172.30.0.41:80"), target("10.244.2.2:80"), active=1)
    for _ in range(2):
        feed(state, slice_of("ns1/svc1", "10.244.2.1"))
        assert await sync(world, state) == ["ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.2:80 -m -w 0"]
        feed(state, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
        assert await sync(world, state) == ["ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.2:80 -m -w 1"]


async def test_a_change_that_changes_nothing_writes_nothing() -> None:
    state = state_of(SVC, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    world = await started(state)
    feed(state, slice_of("ns1/svc1", endpoint("10.244.2.1", "there"), "10.244.2.2"))
    report = await world.backend.sync(state, state.collect())
    assert (report.wrote, report.full) == (False, False)
    assert world.take() == []


@pytest.mark.parametrize(
    ("configured", "answering"),
    [
        ((), {"192.168.0.2", "10.9.9.9"}),
        (("0.0.0.0/0",), {"192.168.0.2", "10.9.9.9"}),
        (("fd00::/8",), {"192.168.0.2", "10.9.9.9"}),
        (("10.0.0.0/8",), {"10.9.9.9"}),
        (("127.0.0.0/8",), set()),
        (("primary",), {"192.168.0.2"}),
    ],
)
async def test_where_node_ports_answer(configured: tuple[str, ...], answering: set[str]) -> None:
    world = World(ProxySettings(node_port_addresses=configured, node_address="192.168.0.2"))
    world.node.devices["eth1"] = {ip_address("10.9.9.9"), ip_address("169.254.3.3")}
    await started(state_of(FULL, FULL_SLICE), world)
    found = {str(one.address) for one in world.servers.known if one.port == 30001}
    assert found == answering
    assert (world.sets.contents["KUBE-NODE-PORT-TCP"] == {"30001"}) == bool(answering)


async def test_who_leaves_goes_when_his_last_connection_has_ended() -> None:
    state = state_of(SVC, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    world = await started(state, World(look_seconds=0.01))
    here, leaver = key("172.30.0.41:80"), target("10.244.2.2:80")
    world.servers.connect(here, leaver, inactive=1)
    feed(state, slice_of("ns1/svc1", "10.244.2.1"))
    await sync(world, state)
    watching = asyncio.create_task(world.backend.disturbed())
    asked = 0
    real_servers = world.servers.real_servers

    def counted(which):
        nonlocal asked
        asked += 1
        return real_servers(which)

    world.servers.real_servers = counted
    await until(lambda: asked >= 3)
    assert leaver in world.servers.reals[here]
    world.servers.failures = 1
    world.servers.connect(here, leaver)
    await until(lambda: leaver not in world.servers.reals[here])
    assert world.take() == ["ipvsadm -d -t 172.30.0.41:80 -r 10.244.2.2:80"] * 2, "what failed is tried again"
    watching.cancel()


@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
async def test_without_tcp_nobody_waits(protocol: str) -> None:
    ports = [{"name": "p80", "port": 80, "protocol": protocol}]
    state = state_of(
        service("ns1/svc1", "172.30.0.41", ports), slice_of("ns1/svc1", "10.244.2.1", ports=ports)
    )
    world = await started(state)
    world.servers.connect(key("172.30.0.41:80", Transport[protocol]), target("10.244.2.1:80"), active=1)
    feed(state, slice_of("ns1/svc1", ports=ports))
    done = await sync(world, state)
    assert [line.split()[1] for line in done] == ["-d"]


async def test_a_restart_resets_weights_and_adopts_who_leaves() -> None:
    state = state_of(SVC, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.2"))
    world = await started(state)
    here = key("172.30.0.41:80")
    world.servers.connect(here, target("10.244.2.2:80"), active=1)
    feed(state, slice_of("ns1/svc1", "10.244.2.1"))
    await sync(world, state)
    world.restarted()
    await world.backend.sync(state, None)
    assert world.take() == [], "who leaves with connections stays as he is"
    world.servers.connect(here, target("10.244.2.2:80"))
    world.restarted()
    await world.backend.sync(state, None)
    assert world.take() == ["ipvsadm -d -t 172.30.0.41:80 -r 10.244.2.2:80"]
    world.servers.connect(here, target("10.244.2.1:80"), active=1)
    feed(state, slice_of("ns1/svc1", "10.244.2.3"))
    await sync(world, state)
    feed(state, slice_of("ns1/svc1", "10.244.2.1", "10.244.2.3"))
    state.collect()
    world.restarted()
    await world.backend.sync(state, None)
    assert world.take() == ["ipvsadm -e -t 172.30.0.41:80 -r 10.244.2.1:80 -m -w 1"]


async def test_of_two_claims_on_an_address_the_older_service_keeps_it() -> None:
    older = service("ns2/older", "172.30.0.50", externalIPs=["1.2.3.4"], created="2025-01-01T00:00:00Z")
    newer = service("ns1/newer", "172.30.0.51", externalIPs=["1.2.3.4"], created="2026-01-01T00:00:00Z")
    state = state_of(newer, slice_of("ns1/newer", "10.244.2.2"), slice_of("ns2/older", "10.244.2.1"))
    world = await started(state)
    claimed = key("1.2.3.4:80")
    assert set(world.servers.reals[claimed]) == {target("10.244.2.2:80")}
    feed(state, older)
    await sync(world, state)
    assert set(world.servers.reals[claimed]) == {target("10.244.2.1:80")}
    await no_differences(world, state)
    state.delete_service("ns2", "older")
    await sync(world, state)
    assert set(world.servers.reals[claimed]) == {target("10.244.2.2:80")}
    assert ip_address("1.2.3.4") in world.node.devices[DEVICE]
    await no_differences(world, state)


async def test_unknown_servers_go_but_excluded_ones_stay() -> None:
    from netkit.kernel import ipvs
    from netkit.kernel.ipvs_values import VirtualServer

    excluding = ProxySettings(
        cluster_cidr="10.244.0.0/16", ipvs=IPVSSettings(exclude_cidrs=("203.0.113.0/24", "fd00:9::/32"))
    )
    world = World(excluding)
    for text in ("203.0.113.9:80", "198.51.100.7:80", "[fd00::9]:80"):
        world.servers.apply(ipvs.server_add(VirtualServer(key(text), "wlc")))
    state = state_of(SVC)
    await started(state, world)
    assert set(map(str, world.servers.known)) == {
        "203.0.113.9:80/TCP", "[fd00::9]:80/TCP", "172.30.0.41:80/TCP",
    }  # fmt: skip
    await no_differences(world, state)
    await world.backend.cleanup()
    assert set(map(str, world.servers.known)) == {"203.0.113.9:80/TCP", "[fd00::9]:80/TCP"}


async def test_settings_reach_the_kernel() -> None:
    tuned = ProxySettings(
        ipvs=IPVSSettings("mh", strict_arp=True, tcp_timeout=1000, udp_timeout=50),
        cluster_cidr="10.244.0.0/16",
    )
    world = World(tuned)
    state = state_of(service("ns1/svc1", "172.30.0.41", sessionAffinity="ClientIP"))
    await started(state, world)
    assert world.servers.configured == Timeouts(1000, 120, 50)
    assert world.node.settings["net.ipv4.vs.conntrack"] == 1
    assert world.node.settings["net.ipv4.conf.all.arp_ignore"] == 1
    assert world.servers.known[key("172.30.0.41:80")].options == "mh persistent 10800 (mh-port)"
    assert not (await world.backend.sync(state, None)).wrote


async def test_a_changed_scheduler_is_set_on_standing_servers() -> None:
    state = state_of(SVC)
    world = await started(state)
    world.settings = ProxySettings(cluster_cidr="10.244.0.0/16", ipvs=IPVSSettings("lc"))
    world.restarted()
    await world.backend.sync(state, None)
    assert world.take() == ["ipvsadm -E -t 172.30.0.41:80 -s lc"]


async def test_a_failed_sync_is_mended_by_a_full_one() -> None:
    state = state_of(SVC)
    world = await started(state)
    feed(state, FULL, FULL_SLICE)
    for driver in (world.servers, world.sets, world.iptables):
        driver.failures = 1
        with pytest.raises(KernelError):
            await world.backend.sync(state, state.collect())
        await world.backend.sync(state, None)
        await no_differences(world, state)
        state.mark_synced()
        state.delete_service("ns1", "full")
        await sync(world, state)
        feed(state, FULL)


@pytest.mark.parametrize("harm", ["server", "real", "entry", "address", "device", "rule", "jump", "set"])
async def test_harm_is_found_and_mended(harm: str) -> None:
    state = state_of(SVC, FULL, FULL_SLICE, slice_of("ns1/svc1", "10.244.2.1"))
    world = await started(state)
    assert await world.backend.intact()
    match harm:
        case "server":
            del world.servers.known[key("172.30.0.41:80")], world.servers.reals[key("172.30.0.41:80")]
        case "real":
            world.servers.reals[key("172.30.0.41:80")].clear()
        case "entry":
            world.sets.contents["KUBE-CLUSTER-IP"].clear()
        case "address":
            world.node.devices[DEVICE].remove(ip_address("172.30.0.41"))
        case "device":
            del world.node.devices[DEVICE]
        case "rule":
            world.iptables.tables["nat"]["KUBE-SERVICES"].pop()
        case "jump":
            world.iptables.tables["filter"]["INPUT"].pop()
        case "set":
            del world.sets.types["KUBE-IPVS-IPS"], world.sets.contents["KUBE-IPVS-IPS"]
    assert not await world.backend.intact()
    assert differences(await world.backend.wanted(state), await world.backend.standing())
    await world.backend.sync(state, None)
    assert await world.backend.intact()
    await no_differences(world, state)


async def test_addresses_that_come_and_go_are_noticed() -> None:
    state = state_of(FULL, FULL_SLICE)
    world = await started(state)

    async def told(*events: AddressEvent) -> str:
        world.events.queue.put_nowait(events)
        return await asyncio.wait_for(world.backend.disturbed(), 5)

    vip, own = ip_address("172.30.0.42"), ip_address("192.168.0.2")
    harmless = (
        AddressEvent(True, vip),
        AddressEvent(False, ip_address("172.30.0.99")),
        AddressEvent(True, ip_address("fd00:18::3")),
        AddressEvent(True, ip_address("169.254.1.1")),
        AddressEvent(False, device="vethx"),
    )
    tried = AddressEvent(False, device=DEVICE)
    assert "172.30.0.42" in await told(tried, AddressEvent(False, vip)), "the device is there"
    bound = world.node.devices.pop(DEVICE)
    assert DEVICE in await told(*harmless, AddressEvent(False, device=DEVICE))
    world.node.devices[DEVICE] = bound
    assert "172.30.0.42" in await told(*harmless, AddressEvent(False, vip))
    assert "lost" in await told(AddressEvent(False, own))
    assert "got" in await told(AddressEvent(True, ip_address("192.168.7.7")))
    world.node.devices["eth1"] = {ip_address("192.168.7.7")}
    assert not await world.backend.intact()
    await world.backend.sync(state, None)
    assert key("192.168.7.7:30001") in world.servers.known
    assert await world.backend.intact()


async def test_cleanup_leaves_nothing_and_can_be_repeated() -> None:
    state = state_of(SVC, FULL, FULL_SLICE)
    world = World()
    await world.iptables.restore("*nat\n:MINE - [0:0]\n-A POSTROUTING -j MINE\nCOMMIT\n")
    before = str(world.iptables)
    await started(state, world)
    for _ in range(2):
        await world.backend.cleanup()
        assert world.servers.known == {}
        assert world.sets.types == {}
        assert DEVICE not in world.node.devices
        assert "KUBE" not in str(world.iptables)
    assert before in str(world.iptables)
    await started(state, world)
    await no_differences(world, state)


async def test_cleanup_spares_the_other_family_and_goes_on_after_errors() -> None:
    state = state_of(SVC)
    world = await started(state)
    world.node.devices[DEVICE].add(ip_address("fd00:96::1"))
    world.sets.used.add("KUBE-CLUSTER-IP")
    with pytest.raises(ExceptionGroup) as caught:
        await world.backend.cleanup()
    assert len(caught.value.exceptions) == 1
    assert world.node.devices[DEVICE] == {ip_address("fd00:96::1")}
    assert set(world.sets.types) == {"KUBE-CLUSTER-IP"}


async def test_ipv6() -> None:
    six = service("ns1/svc1", "fd00:96::41", type="NodePort", ports=NODE_PORT, externalIPs=["fd00:1::4"])
    state = state_of(six, slice_of("ns1/svc1", "fd00:244::1", address_type="IPv6"), family=Family.IPV6)
    world = await started(state, World(family=Family.IPV6))
    assert key("[fd00:96::41]:80") in world.servers.known
    assert key("[fd00:18::2]:30001") in world.servers.known
    assert not any("fe80" in str(one) for one in world.servers.known)
    assert world.sets.contents["KUBE-6-CLUSTER-IP"] == {"fd00:96::41,tcp:80"}
    assert "KUBE-6-LOAD-BALANCER-SOURCE-CID" in world.sets.types
    assert "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS" in world.sets.types
    await no_differences(world, state)


async def test_the_node_matters_only_as_far_as_settings_leave_open() -> None:
    backend = World().backend
    assert not backend.configure(NodeFacts(addresses=(ip_address("10.9.9.9"),)))
    assert not backend.configure(NodeFacts(pod_cidrs=("10.244.1.0/24",)))
    assert backend.configure(NodeFacts(zone="a"))


async def test_what_serves_a_port() -> None:
    state = state_of(SVC, FULL, FULL_SLICE, slice_of("ns1/svc1", "10.244.2.1"))
    world = await started(state)
    sections = await world.backend.serving(state, ServicePortName("ns1", "svc1", "p80", Protocol.TCP))
    assert [section.name for section in sections] == [
        "nat KUBE-SERVICES",
        "set KUBE-CLUSTER-IP",
        "nat KUBE-MARK-MASQ",
        "filter KUBE-IPVS-FILTER",
        "set KUBE-IPVS-IPS",
        f"device {DEVICE}",
        "172.30.0.41:80/TCP",
        "filter KUBE-FORWARD",
        "nat KUBE-POSTROUTING",
    ]
    assert sections[1].entries == ("172.30.0.41,tcp:80",)
    names = [
        section.name
        for section in await world.backend.serving(state, ServicePortName("ns1", "full", "p80", Protocol.TCP))
    ]
    assert "nat KUBE-NODE-PORT" in names
    assert "set KUBE-NODE-PORT-LOCAL-TCP" in names
    assert "filter KUBE-SOURCE-RANGES-FIREWALL" in names
    assert "192.168.0.2:30001/TCP" in names
    assert len(names) == len(set(names))
    assert await world.backend.serving(state, ServicePortName("ns1", "none", "", Protocol.TCP)) != ()


# Any series of changes ends where a fresh start would.

_ADDRESSES = ["10.244.1.1", "10.244.1.2", "10.244.2.1", "10.244.2.2"]


@st.composite
def _services(draw: st.DrawFn, name: str) -> Object:
    number = int(name[-1])
    protocol = draw(st.sampled_from(["TCP", "TCP", "UDP", "SCTP"]))
    port = {"name": "p80", "port": 80, "protocol": protocol}
    if draw(st.booleans()):
        port["nodePort"] = draw(st.sampled_from([30001, 30002]))
    return service(
        f"ns1/{name}",
        f"172.30.0.{number}",
        [port],
        type="LoadBalancer",
        created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
        externalIPs=draw(st.lists(st.sampled_from(["1.2.3.4", "1.2.3.5", "192.168.0.2"]), unique=True)),
        ingress=[{"ip": ip} for ip in draw(st.lists(st.sampled_from(["5.6.7.8", "1.2.3.4"]), unique=True))],
        loadBalancerSourceRanges=draw(
            st.lists(st.sampled_from(["203.0.113.0/25", "192.168.0.0/24"]), unique=True)
        ),
        externalTrafficPolicy=draw(st.sampled_from(["Local", "Cluster"])),
        internalTrafficPolicy=draw(st.sampled_from(["Local", "Cluster"])),
        sessionAffinity=draw(st.sampled_from(["ClientIP", "None"])),
        healthCheckNodePort=draw(st.sampled_from([0, 30100])),
    )


@st.composite
def _slices(draw: st.DrawFn, name: str) -> Object:
    ports = [{"name": "p80", "port": 8080, "protocol": draw(st.sampled_from(["TCP", "TCP", "UDP", "SCTP"]))}]
    made = draw(
        st.lists(
            st.tuples(st.sampled_from(_ADDRESSES), st.sampled_from(["here", "there"]), st.booleans()),
            unique_by=lambda item: item[0],
        )
    )
    points = [draining(ip, node) if leaves else endpoint(ip, node) for ip, node, leaves in made]
    return slice_of(f"ns1/{name}", *points, ports=ports)


_NAMES = st.sampled_from(["svc1", "svc2", "svc3"])
_CHANGE = st.one_of(
    _NAMES.flatmap(lambda name: st.tuples(st.just("feed"), _services(name))),
    _NAMES.flatmap(lambda name: st.tuples(st.just("feed"), _slices(name))),
    st.tuples(st.just("delete"), _NAMES),
    st.tuples(st.just("sync"), st.none()),
    st.tuples(st.just("connect"), st.integers(0, 1)),
    st.tuples(st.just("full"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


@given(st.lists(_CHANGE, max_size=25))
def test_any_series_of_changes_ends_as_a_fresh_start(changes: list) -> None:
    asyncio.run(_series(changes))


async def _series(changes: list) -> None:
    state = state_of()
    world = await started(state)
    for what, argument in changes:
        match what:
            case "feed":
                feed(state, argument)
            case "delete":
                state.delete_service("ns1", argument)
            case "sync":
                await sync(world, state)
            case "connect":
                for one, reals in world.servers.reals.items():
                    for who in reals:
                        world.servers.connect(one, who, active=argument)
            case "restart":
                world.restarted()
                await started(state, world)
            case "full":
                await started(state, world)
    await sync(world, state)
    assert await world.backend.intact()
    await no_differences(world, state)
    assert not (await world.backend.sync(state, None)).wrote
    fresh = await started(state)
    assert _without_leaving(world) == _without_leaving(fresh)


def _without_leaving(world: World) -> tuple:
    for reals in world.servers.reals.values():
        for who in [who for who, real in reals.items() if not real.weight]:
            del reals[who]
    tables = {
        (table, chain): rules
        for table, chains in world.iptables.tables.items()
        for chain, rules in chains.items()
        if rules or not chain.startswith("KUBE")
    }
    return str(world.servers), str(world.sets), world.node.devices, tables
