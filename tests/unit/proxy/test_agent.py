"""The agent against an API server in memory and a fake of iptables: when it writes, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.client_fake import FakeApi
from support.client_wait import running, until
from support.proxy import FakeNodeKernel, Object, endpoint, service, slice_of

from controlplane.errors import NotFound, StatusError
from controlplane.resources.catalog import ENDPOINT_SLICE, EVENT, NODE, SERVICE, SERVICE_CIDR
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.backend import NodeFacts, SyncReport
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

QUICK = ProxySettings(cluster_cidr="10.0.0.0/8", min_sync_period=0, sync_period=0.02)
CALM = ProxySettings(cluster_cidr="10.0.0.0/8", min_sync_period=0)


@dataclass
class Setup:
    """An API, a node's fake kernel, and agents on it."""

    api: FakeApi = field(default_factory=FakeApi)
    rules: FakeIPTables = field(default_factory=FakeIPTables)
    kernel: FakeNodeKernel = field(default_factory=FakeNodeKernel)

    def agent(self, settings: ProxySettings = CALM, *more: FakeIPTables) -> ProxyAgent:
        backends = [
            IPTablesBackend("here", settings, rules, self.kernel)  # type: ignore[arg-type]
            for rules in (self.rules, *more)
        ]
        return ProxyAgent(self.api.client(), "here", settings, backends)

    async def add(self, *objects: Object) -> None:
        kinds = {"Service": SERVICE, "EndpointSlice": ENDPOINT_SLICE, "Node": NODE}
        for obj in objects:
            kind = kinds[obj["kind"]]
            await self.api.client().create(kind, obj, obj["metadata"].get("namespace", ""))

    @asynccontextmanager
    async def working(self, settings: ProxySettings = CALM) -> AsyncIterator[ProxyAgent]:
        agent = self.agent(settings)
        async with running(agent.run()):
            async with asyncio.timeout(5):
                await agent.synced()
            yield agent

    def nat(self) -> str:
        return "\n".join(
            f"{chain} {rule}" for chain, rules in self.rules.tables["nat"].items() for rule in rules
        )


@pytest.fixture
def setup() -> Setup:
    return Setup()


def node(**labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "here", "labels": labels},
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]},
    }


async def test_first_sync_writes_everything_once(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working() as agent:
        await agent.settled()
        assert len(setup.rules.documents) == 1
        assert "10.0.0.1:80" in setup.nat()
        assert setup.kernel.localnet
        ((family, metrics),) = agent.metrics
        assert family == "IPv4"
        assert metrics.sync_full_proxy_rules_duration_seconds.count == 1
        assert metrics.sync_proxy_rules_iptables_total["nat"] > 5


async def test_nothing_is_written_before_both_lists_are_there(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    slices = asyncio.Event()
    answer = setup.api.request

    async def request(method, path, query=(), headers=None, body=b""):
        if method == "GET" and path.endswith("/endpointslices"):
            await slices.wait()
        return await answer(method, path, query, headers, body)

    setup.api.request = request  # type: ignore[method-assign]
    agent = setup.agent()
    async with running(agent.run()):
        await until(lambda: ("GET", "/api/v1/services") in setup.api.calls)
        await until(lambda: setup.api.watches >= 2)
        assert setup.rules.documents == []
        slices.set()
        async with asyncio.timeout(5):
            await agent.synced()
    assert len(setup.rules.documents) == 1


async def test_a_change_is_written_and_an_unchanged_state_is_not(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working(QUICK) as agent:
        setup.api.edit(
            ENDPOINT_SLICE, "svc1-a", "ns1", lambda obj: obj["endpoints"].append(endpoint("10.0.0.2"))
        )
        await until(lambda: "10.0.0.2:80" in setup.nat())
        assert "*filter" not in setup.rules.documents[-1]
        written = len(setup.rules.documents)
        before = agent.metrics[0][1].unchanged_syncs_total
        setup.api.edit(
            ENDPOINT_SLICE,
            "svc1-a",
            "ns1",
            lambda obj: obj["endpoints"][0].update(nodeName="there"),
        )
        await until(lambda: agent.metrics[0][1].unchanged_syncs_total > before)
        await asyncio.wait_for(agent.settled(), 5)
        assert len(setup.rules.documents) == written


async def test_deleted_service_leaves_no_chain(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working():
        setup.api.remove(SERVICE, "svc1", "ns1")
        await until(lambda: "svc1" not in setup.nat())
        assert not [
            chain for chain in setup.rules.tables["nat"] if chain.startswith(("KUBE-SVC-", "KUBE-SEP-"))
        ]


async def test_a_restarted_agent_adopts_what_stands(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"), service("ns2/gone", "172.30.0.9"))
    await setup.add(slice_of("ns2/gone", "10.0.0.9"))
    async with setup.working():
        pass
    assert "ns2/gone" in setup.nat()
    setup.api.remove(SERVICE, "gone", "ns2")
    async with setup.working():
        assert "ns2/gone" not in setup.nat()
        standing = str(setup.rules)
    async with setup.working():
        assert sorted(str(setup.rules).splitlines()) == sorted(standing.splitlines())


async def test_a_failed_restore_is_told_and_mended_by_a_full_sync(setup: Setup) -> None:
    await setup.add(node(), service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working(QUICK) as agent:
        setup.rules.failures = 2
        setup.api.edit(
            ENDPOINT_SLICE, "svc1-a", "ns1", lambda obj: obj["endpoints"].append(endpoint("10.0.0.2"))
        )
        await until(lambda: "10.0.0.2:80" in setup.nat())
        partial, retry, mended = setup.rules.documents[-3:]
        assert partial == retry == mended, "a full sync writes what the kernel lacks"
        assert "*filter" not in mended
        metrics = agent.metrics[0][1]
        assert metrics.sync_proxy_rules_iptables_restore_failures_total == 2
        assert metrics.sync_proxy_rules_iptables_partial_restore_failures_total == 1
        await until(lambda: setup.api.all(EVENT))
        event = setup.api.all(EVENT)[0]
        assert (event["reason"], event["involvedObject"]["kind"]) == ("FailedToSyncProxyRules", "Node")
        assert "line 1: injected" in event["message"]


async def test_lost_rules_are_noticed_and_written_again(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working(QUICK):
        standing = sorted(str(setup.rules).splitlines())
        setup.rules.tables.clear()
        await until(lambda: sorted(str(setup.rules).splitlines()) == standing)


async def test_an_intact_state_is_only_looked_at(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    looks = 0
    original = setup.rules.chain_exists

    async def counted(table: str, chain: str) -> bool:
        nonlocal looks
        looks += 1
        return await original(table, chain)

    setup.rules.chain_exists = counted  # type: ignore[method-assign]
    async with setup.working(QUICK):
        await until(lambda: looks >= 9)
        assert len(setup.rules.documents) == 1


async def test_full_syncs_come_by_themselves_and_adopt_what_stands(setup: Setup) -> None:
    often = ProxySettings(min_sync_period=0, sync_period=0.01, full_sync_period=0.02)
    async with setup.working(often) as agent:
        await until(lambda: agent.metrics[0][1].unchanged_syncs_total >= 3)
        assert len(setup.rules.documents) == 1


async def test_a_single_changed_rule_is_noticed_and_mended(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working(QUICK):
        before = setup.nat()
        setup.rules.tables["nat"]["KUBE-SERVICES"].insert(0, "-j ACCEPT")
        await until(lambda: setup.nat() == before)
        assert "*filter" not in setup.rules.documents[-1]


async def test_a_changed_zone_takes_effect_at_once(setup: Setup) -> None:
    hinted = [endpoint("10.0.0.1", zones=["zone-a"]), endpoint("10.0.0.2", zones=["zone-b"])]
    await setup.add(node(), service(), slice_of("ns1/svc1", *hinted))
    async with setup.working():
        assert "10.0.0.1:80" in setup.nat()
        assert "10.0.0.2:80" in setup.nat()
        setup.api.edit(
            NODE,
            "here",
            "",
            lambda obj: obj["metadata"]["labels"].update({"topology.kubernetes.io/zone": "zone-b"}),
        )
        await until(lambda: "10.0.0.1:80" not in setup.nat())
        assert "10.0.0.2:80" in setup.nat()


async def test_other_news_of_the_node_cost_nothing(setup: Setup) -> None:
    await setup.add(node(), service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working() as agent:
        setup.api.edit(NODE, "here", "", lambda obj: obj["spec"].update(podCIDRs=["10.0.1.0/24"]))
        setup.api.edit(
            ENDPOINT_SLICE, "svc1-a", "ns1", lambda obj: obj["endpoints"].append(endpoint("10.0.0.2"))
        )
        await until(lambda: "10.0.0.2:80" in setup.nat())
        await asyncio.wait_for(agent.settled(), 5)
        assert sum("*mangle" in document for document in setup.rules.documents) == 1


async def test_node_cidr_mode_waits_for_the_pod_range(setup: Setup) -> None:
    await setup.add(node(), service(), slice_of("ns1/svc1", "10.0.0.1"))
    by_node = ProxySettings(detect_local_mode=DetectLocalMode.NODE_CIDR, min_sync_period=0)
    agent = setup.agent(by_node)
    async with running(agent.run()):
        await until(lambda: setup.api.watches >= 3)
        assert setup.rules.documents == []
        setup.api.edit(NODE, "here", "", lambda obj: obj["spec"].update(podCIDR="10.0.7.0/24"))
        async with asyncio.timeout(5):
            await agent.synced()
    assert "! -s 10.0.7.0/24 -d 172.30.0.41/32 " in setup.nat()


async def test_one_familys_failure_does_not_stop_the_other(setup: Setup) -> None:
    dual = {"clusterIPs": ["172.30.0.41", "fd00::41"], "cluster_ip": "172.30.0.41"}
    six = slice_of("ns1/svc1", "fd00:1::1", suffix="six", address_type="IPv6")
    await setup.add(service(**dual), slice_of("ns1/svc1", "10.0.0.1"), six)
    broken = FakeIPTables(version=6)
    broken.failures = 1_000_000
    agent = setup.agent(QUICK, broken)
    async with running(agent.run()):
        await until(lambda: setup.rules.documents and len(broken.documents) >= 2)
        await until(lambda: "10.0.0.1:80" in setup.nat())
        broken.failures = 0
        async with asyncio.timeout(5):
            await agent.synced()
    assert "[fd00:1::1]:80" in str(broken)
    assert "fd00" not in str(setup.rules)


async def test_without_localhost_node_ports_the_kernel_is_left_alone(setup: Setup) -> None:
    async with setup.working(ProxySettings(localhost_node_ports=False, min_sync_period=0)):
        assert not setup.kernel.localnet


async def test_cleanup_leaves_nothing_of_ours(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working() as agent:
        pass
    await agent.cleanup()
    await agent.cleanup()
    assert "KUBE" not in str(setup.rules)


async def test_many_changes_at_once_are_few_syncs(setup: Setup) -> None:
    await setup.add(service())
    paced = ProxySettings(min_sync_period=0.05, sync_burst=1)
    async with setup.working(paced):
        for number in range(30):
            await setup.add(slice_of("ns1/svc1", f"10.0.1.{number}", suffix=f"s{number}"))
        await until(lambda: setup.nat().count("-j DNAT") == 30)
        assert len(setup.rules.documents) < 10


async def test_programming_latency_is_measured_from_the_slices_annotation(setup: Setup) -> None:
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    async with setup.working() as agent:
        metrics = agent.metrics[0][1]
        assert metrics.network_programming_duration_seconds.count == 0

        def change(obj: Object) -> None:
            obj["endpoints"].append(endpoint("10.0.0.2"))
            obj["metadata"]["annotations"] = {
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"
            }

        setup.api.edit(ENDPOINT_SLICE, "svc1-a", "ns1", change)
        await until(lambda: metrics.network_programming_duration_seconds.count == 1)
        assert sum(metrics.network_programming_duration_seconds.buckets) == 1


class Told:
    """A back end that notes what it is told of the node, and has no rules."""

    family = Family.IPV4

    def __init__(self) -> None:
        self.facts: list[NodeFacts] = []

    def configure(self, facts: NodeFacts) -> bool:
        self.facts.append(facts)
        return True

    async def sync(self, state: ProxyState, changes: object) -> SyncReport:
        return SyncReport(wrote=False, full=changes is None)

    async def intact(self) -> bool:
        return True

    async def disturbed(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def cidr(name: str, *cidrs: str) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": list(cidrs)},
    }


async def test_the_nftables_mode_learns_the_ranges_of_services(setup: Setup) -> None:
    client = setup.api.client()
    await client.create(SERVICE_CIDR, cidr("kubernetes", "10.96.0.0/12"))
    told = Told()
    settings = ProxySettings(mode=ProxyMode.NFTABLES)
    async with running(ProxyAgent(client, "here", settings, [told]).run()):  # type: ignore[list-item]
        await until(lambda: told.facts[-1:] == [NodeFacts(service_cidrs=("10.96.0.0/12",))])
        await setup.add(node(**{"topology.kubernetes.io/zone": "a"}))
        await until(lambda: told.facts[-1].zone == "a")
        assert told.facts[-1].service_cidrs == ("10.96.0.0/12",)
        await client.create(SERVICE_CIDR, cidr("more", "10.200.0.0/16"))
        await until(lambda: told.facts[-1].service_cidrs == ("10.200.0.0/16", "10.96.0.0/12"))
        assert told.facts[-1].zone == "a"


@pytest.mark.parametrize(
    ("versions", "followed"),
    [(("v1", "v1beta1"), "v1"), (("v1beta1",), "v1beta1"), (("v1",), "v1"), ((), "")],
)
async def test_the_ranges_come_in_the_version_that_is_served(
    setup: Setup, versions: tuple[str, ...], followed: str
) -> None:
    client = setup.api.client()
    await client.create(SERVICE_CIDR, cidr("kubernetes", "10.96.0.0/12"))
    setup.api.calls.clear()

    def not_served(method: str, path: str, body: Object | None) -> StatusError | None:
        served = not path.endswith("/servicecidrs") or path.split("/")[3] in versions
        return None if served else NotFound("the server could not find the requested resource")

    setup.api.reject.append(not_served)
    told = Told()
    agent = ProxyAgent(client, "here", ProxySettings(mode=ProxyMode.NFTABLES), [told])  # type: ignore[list-item]
    async with running(agent.run()):
        await agent.synced()
        await until(lambda: not followed or told.facts[-1:] == [NodeFacts(service_cidrs=("10.96.0.0/12",))])
        asked = [path.split("/")[3] for _, path in setup.api.calls if path.endswith("/servicecidrs")]
        assert asked[-1] == (followed or "v1beta1")


async def test_other_modes_do_not_ask_for_the_ranges_of_services(setup: Setup) -> None:
    async with setup.working():
        assert not [path for _, path in setup.api.calls if "servicecidrs" in path]
