"""What an agent tells its health and its followers, against an API server in memory and a fake of iptables."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from support.client_fake import FakeApi
from support.client_wait import running, until
from support.proxy import FakeNodeKernel, Object, endpoint, service, slice_of

from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.backend import Synced
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.metrics import AgentMetrics
from netkit.proxy.settings import ProxyMode, ProxySettings

NODE_HERE: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}, "spec": {}}


@dataclass
class Recorder:
    """A follower and a preparation that remember; `broken` makes it fail."""

    syncs: list[Synced] = field(default_factory=list)
    prepared: int = 0
    broken: bool = False

    async def after_sync(self, synced: Synced) -> None:
        self.syncs.append(synced)
        if self.broken:
            raise KernelError("follow", stderr="injected")

    async def prepare(self) -> None:
        assert not self.syncs
        self.prepared += 1


@dataclass
class Setup:
    api: FakeApi = field(default_factory=FakeApi)
    rules: FakeIPTables = field(default_factory=FakeIPTables)
    follower: Recorder = field(default_factory=Recorder)
    passed: float = 0.0

    def __post_init__(self) -> None:
        self.health = ProxyHealth(60, lambda: self.passed)
        self.counts = AgentMetrics(ProxyMode.IPTABLES, [Family.IPV4])
        self.metrics = self.counts.families[Family.IPV4]

    def agent(self, settings: ProxySettings) -> ProxyAgent:
        backend = IPTablesBackend("here", settings, self.rules, FakeNodeKernel())  # type: ignore[arg-type]
        return ProxyAgent(
            self.api.client(),
            "here",
            settings,
            [backend],
            [self.follower],
            preparations=[self.follower],
            health=self.health,
            counts=self.counts,
        )

    async def add(self, *objects: Object) -> None:
        kinds = {"Service": SERVICE, "EndpointSlice": ENDPOINT_SLICE, "Node": NODE}
        for obj in objects:
            await self.api.client().create(kinds[obj["kind"]], obj, obj["metadata"].get("namespace", ""))

    def another_endpoint(self, address: str) -> None:
        def change(obj: Object) -> None:
            obj["endpoints"].append(endpoint(address))

        self.api.edit(ENDPOINT_SLICE, "svc1-a", "ns1", change)


QUICK = ProxySettings(min_sync_period=0, sync_period=0.02)


async def started(setup: Setup, agent: ProxyAgent) -> None:
    async with asyncio.timeout(5):
        await agent.synced()


async def test_a_change_that_cannot_be_written_makes_the_proxy_unhealthy_in_time() -> None:
    setup = Setup()
    await setup.add(NODE_HERE, service(), slice_of("ns1/svc1", "10.0.0.1"))
    agent = setup.agent(QUICK)
    async with running(agent.run()):
        await started(setup, agent)
        assert setup.health.healthz().healthy
        setup.rules.failures = 1_000_000
        setup.another_endpoint("10.0.0.2")
        await until(lambda: setup.metrics.sync_proxy_rules_iptables_restore_failures_total >= 2)
        assert setup.health.healthy
        setup.passed = 60
        assert not setup.health.healthy
        setup.rules.failures = 0
        await until(lambda: setup.health.healthy)


async def test_the_node_decides_on_healthz() -> None:
    setup = Setup()
    agent = setup.agent(QUICK)
    async with running(agent.run()):
        await started(setup, agent)
        assert setup.health.healthz().body["nodeEligible"] is False, "not registered yet"
        await setup.add(NODE_HERE)
        await until(lambda: setup.health.healthz().healthy)
        taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
        setup.api.edit(NODE, "here", "", lambda obj: obj["spec"].update(taints=[taint]))
        await until(lambda: not setup.health.healthz().healthy)
        setup.api.edit(NODE, "here", "", lambda obj: obj["spec"].update(taints=[]))
        await until(lambda: setup.health.healthz().healthy)
        setup.api.remove(NODE, "here", "")
        await until(lambda: not setup.health.healthz().healthy)
        assert setup.health.livez().healthy


async def test_changes_are_counted_and_wait_until_they_are_synced() -> None:
    setup = Setup()
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    agent = setup.agent(ProxySettings(min_sync_period=1000, sync_burst=1))
    async with running(agent.run()):
        await started(setup, agent)
        metrics = setup.metrics
        assert metrics.sync_proxy_rules_service_changes_total == 1
        assert metrics.sync_proxy_rules_endpoint_changes_total == 1
        assert metrics.sync_proxy_rules_endpoint_changes_pending == 0
        setup.another_endpoint("10.0.0.2")
        await until(lambda: metrics.sync_proxy_rules_endpoint_changes_pending == 1)
        setup.another_endpoint("10.0.0.3")
        await until(lambda: metrics.sync_proxy_rules_endpoint_changes_total == 3)
        assert metrics.sync_proxy_rules_endpoint_changes_pending == 1, "one slice"
        await setup.add(service("ns1/svc2", "172.30.0.42"))
        await until(lambda: metrics.sync_proxy_rules_service_changes_pending == 1)


async def test_followers_hear_of_good_syncs_and_their_failure_stops_nothing() -> None:
    setup = Setup()
    await setup.add(service(), slice_of("ns1/svc1", "10.0.0.1"))
    agent = setup.agent(QUICK)
    async with running(agent.run()):
        await started(setup, agent)
        assert setup.follower.prepared == 1
        first = setup.follower.syncs[0]
        assert {name.text for name in first.changes.updated} == {"ns1/svc1:p80"}
        assert first.report.full
        setup.follower.broken = True
        setup.another_endpoint("10.0.0.2")
        await until(lambda: len(setup.follower.syncs) >= 2)
        setup.another_endpoint("10.0.0.3")
        await until(lambda: len(setup.follower.syncs) >= 3)
        assert not setup.follower.syncs[-1].report.full
        assert setup.metrics.sync_proxy_rules_iptables_restore_failures_total == 0
