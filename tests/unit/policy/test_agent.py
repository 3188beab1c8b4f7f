"""The agent against an API server in memory and tables in memory: when it writes, what it reports, who may start."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.client_wait import running, until
from support.policy_machine import Packet, passes
from support.policy_objects import NODE, OTHER, namespace, pod, policy

from controlplane.errors import Object
from controlplane.meta.objects import uid
from controlplane.resources.catalog import NAMESPACE, NETWORK_POLICY, POD
from netkit.kernel.errors import KernelError
from netkit.kernel.nft.fake import FakeNftTable
from netkit.kernel.nft.objects import Contents
from netkit.policy import agent as module
from netkit.policy.agent import NotIsolatedYet, PolicyAgent
from netkit.policy.backend import FAMILIES, PolicyBackend
from netkit.policy.model import PROTOCOLS
from netkit.policy.render import TABLE
from netkit.policy.selection import Selection
from netkit.policy.table import Table

DENY = policy("x", "deny", policyTypes=["Ingress"])
HERE, THERE = "10.244.1.1", "10.244.1.9"


class Kernel(FakeNftTable):
    """`missing`: the kernel has no nf_tables. `refusals` transactions fail first."""

    def __init__(self, family: int) -> None:
        super().__init__(family, TABLE)
        self.missing = False
        self.refusals = 0
        self.reads = 0

    def read(self, *, all_elements: bool = False) -> Contents | None:
        self.reads += 1
        if self.missing:
            raise KernelError("nft list", NODE, errno.EOPNOTSUPP)
        return super().read(all_elements=all_elements)

    def commit(self, messages: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            raise KernelError("nft transaction", NODE, errno.ENOMEM)
        super().commit(messages)


@dataclass
class Setup:
    """An API, a node's tables, and agents on it. `reports` has what users were told: reason and message."""

    api: FakeApi = field(default_factory=FakeApi)
    tables: list[Kernel] = field(default_factory=lambda: [Kernel(family) for family in FAMILIES])
    reports: list[tuple[str, str]] = field(default_factory=list)

    def agent(self) -> PolicyAgent:
        return PolicyAgent(
            self.api.client(),
            NODE,
            PolicyBackend(self.tables),
            lambda reason, message: self.reports.append((reason, message)),
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[PolicyAgent]:
        agent = self.agent()
        async with running(agent.run()):
            async with asyncio.timeout(5):
                await agent.settled()
            yield agent

    async def add_pod(self, obj: Object, *, addresses: bool = True) -> Object:
        metadata = obj["metadata"]
        made = await self.api.client().create(
            POD, {"metadata": dict(metadata), "spec": obj["spec"]}, metadata["namespace"]
        )
        if addresses:
            self.api.edit(
                POD, metadata["name"], metadata["namespace"], lambda it: it.update(status=obj["status"])
            )
        return made

    async def add_policy(self, obj: Object) -> None:
        await self.api.client().create(
            NETWORK_POLICY,
            {"metadata": dict(obj["metadata"]), "spec": obj["spec"]},
            obj["metadata"]["namespace"],
        )

    def open(self, source: str = THERE, destination: str = HERE) -> bool:
        contents = self.tables[":" in destination].contents
        return passes(contents, Packet(source, destination, PROTOCOLS["TCP"], 80))

    def transactions(self) -> int:
        return sum(table.transactions for table in self.tables)


@pytest.fixture
async def setup() -> Setup:
    """A pod of the node, one of another node."""
    found = Setup()
    await found.api.client().create(NAMESPACE, namespace("x"))
    await found.add_pod(pod("x", "a", 1))
    await found.add_pod(pod("x", "b", 9, OTHER))
    return found


async def test_without_policies_pods_are_not_followed(setup: Setup) -> None:
    async with setup.working():
        assert setup.api.watches == 1
        assert setup.transactions() == 0
        await setup.add_policy(DENY)
        await until(lambda: not setup.open())
        assert setup.api.watches == 3


async def test_the_last_policys_end_leaves_no_table(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        assert not setup.open()
        setup.api.remove(NETWORK_POLICY, "deny", "x")
        await until(lambda: [table.contents for table in setup.tables] == [None, None])


async def test_what_an_earlier_agent_left_goes_when_there_is_no_policy_any_more(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        pass
    assert not setup.open()
    setup.api.remove(NETWORK_POLICY, "deny", "x")
    async with setup.working():
        assert [table.contents for table in setup.tables] == [None, None]
        assert setup.api.watches == 1


async def test_a_restarted_agent_adopts_the_rules(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        pass
    written = setup.transactions()
    async with setup.working():
        assert setup.transactions() == written
        await setup.add_policy(policy("x", "open", ingress=[{}]))
        await until(setup.open)


async def test_rules_stay_while_the_api_is_away_and_are_right_when_it_is_back(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        setup.api.down = True
        setup.api.break_watches()
        await until(lambda: setup.api.watches == 0)
        assert not setup.open()
        setup.api.remove(NETWORK_POLICY, "deny", "x")
        setup.api.compact()
        assert not setup.open()
        setup.api.down = False
        await until(setup.open)
    assert setup.reports == []


async def test_an_agent_that_starts_without_the_api_touches_nothing(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        pass
    setup.api.down = True
    agent = setup.agent()
    read = [table.reads for table in setup.tables]
    async with running(agent.run()):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await agent.settled()
        assert [table.reads for table in setup.tables] == read
        assert not setup.open()


async def test_a_failed_transaction_is_reported_and_tried_again(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        assert not setup.open()
        setup.tables[0].refusals = 2
        await setup.add_policy(policy("x", "open", ingress=[{}]))
        await until(setup.open)
    assert [reason for reason, _ in setup.reports] == [module.FAILED] * 2
    assert "nft transaction" in setup.reports[0][1]
    assert "Cannot allocate memory" in setup.reports[0][1]


async def test_a_change_during_failures_is_not_lost(setup: Setup) -> None:
    setup.tables[0].refusals = 1_000_000
    await setup.add_policy(DENY)
    agent = setup.agent()
    async with running(agent.run()):
        await until(lambda: setup.reports)
        await setup.add_policy(
            policy("x", "open", ingress=[{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}])
        )
        setup.tables[0].refusals = 0
        async with asyncio.timeout(5):
            await agent.settled()
        await until(lambda: setup.open() and not setup.open("10.244.1.77"))


async def test_rendering_leaves_the_loop_alone_and_what_changes_meanwhile_is_written_next(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    full = Table.full

    def slow(table: Table, selection: Selection) -> list[bytes]:
        isolated = list(selection.isolated())
        begun.set()
        assert go_on.wait(5), "the loop does not run"
        assert list(selection.isolated()) == isolated
        return full(table, selection)

    await setup.add_policy(DENY)
    monkeypatch.setattr(Table, "full", slow)
    agent = setup.agent()
    async with running(agent.run()):
        await until(begun.is_set)
        await setup.add_policy(policy("x", "open", ingress=[{}]))
        await setup.add_pod(pod("x", "more", 3))
        await until(lambda: len(agent._waiting) >= 2)
        admitted = asyncio.create_task(agent.settled())
        await asyncio.sleep(0)
        assert not admitted.done()
        go_on.set()
        async with asyncio.timeout(5):
            await admitted
        assert setup.open()
        setup.api.remove(NETWORK_POLICY, "open", "x")
        await until(lambda: not setup.open(THERE, "10.244.1.3"))


async def test_a_kernel_without_nf_tables_is_reported_once_and_pods_run(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNSUPPORTED_SECONDS", 0.005)
    for table in setup.tables:
        table.missing = True
    await setup.add_policy(DENY)
    made = await setup.add_pod(pod("x", "new", 2), addresses=False)
    async with setup.working() as agent:
        await until(lambda: setup.tables[0].reads >= 4)
        async with asyncio.timeout(5):
            await agent.admit(("x", "new"), uid(made), [ip_address("10.244.1.2")])
        ((reason, message),) = setup.reports
        assert reason == module.UNSUPPORTED
        assert "modprobe nf_tables" in message
        for table in setup.tables:
            table.missing = False
        await until(lambda: not setup.open())


async def test_a_pod_that_waits_runs_when_the_kernel_turns_out_to_be_unable(setup: Setup) -> None:
    for table in setup.tables:
        table.missing = True
    await setup.add_policy(DENY)
    setup.api.hold(POD)
    made = await setup.add_pod(pod("x", "new", 2), addresses=False)
    agent = setup.agent()
    async with asyncio.timeout(5), running(agent.run()):
        await agent.admit(("x", "new"), uid(made), [ip_address("10.244.1.2")])


async def test_without_nf_tables_and_without_policies_nothing_is_reported(setup: Setup) -> None:
    for table in setup.tables:
        table.missing = True
    async with setup.working():
        pass
    assert setup.reports == []


async def test_a_pod_is_admitted_once_its_rules_stand(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working() as agent:
        setup.api.hold(POD)
        made = await setup.add_pod(pod("x", "new", 2), addresses=False)
        admitted = asyncio.create_task(agent.admit(("x", "new"), uid(made), [ip_address("10.244.1.2")]))
        await asyncio.sleep(0)
        assert not admitted.done()
        assert setup.open(THERE, "10.244.1.2")
        setup.api.release()
        async with asyncio.timeout(5):
            await admitted
        assert not setup.open(THERE, "10.244.1.2")


async def test_a_sandbox_of_an_earlier_pod_of_that_name_is_not_taken_for_it(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ADMIT_SECONDS", 0.05)
    await setup.add_policy(DENY)
    async with setup.working() as agent:
        with pytest.raises(NotIsolatedYet, match="x/a: its NetworkPolicies are not in force yet"):
            await agent.admit(("x", "a"), "another uid", [ip_address("10.244.1.2")])


async def test_a_pod_is_not_admitted_while_its_rules_cannot_be_written(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ADMIT_SECONDS", 0.05)
    await setup.add_policy(DENY)
    async with setup.working() as agent:
        setup.tables[0].refusals = 1_000_000
        made = await setup.add_pod(pod("x", "new", 2), addresses=False)
        with pytest.raises(NotIsolatedYet):
            await agent.admit(("x", "new"), uid(made), [ip_address("10.244.1.2")])
        setup.tables[0].refusals = 0
        monkeypatch.setattr(module, "_ADMIT_SECONDS", 5)
        await agent.admit(("x", "new"), uid(made), [ip_address("10.244.1.2")])
        assert not setup.open(THERE, "10.244.1.2")


async def test_a_pod_of_a_namespace_without_policies_does_not_wait(setup: Setup) -> None:
    await setup.add_policy(DENY)
    setup.tables[0].refusals = 1_000_000
    agent = setup.agent()
    async with asyncio.timeout(5), running(agent.run()):
        await until(lambda: setup.reports)
        await agent.admit(("y", "new"), "uid", [ip_address("10.244.1.2")])


async def test_no_pod_is_admitted_before_the_policies_are_known(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ADMIT_SECONDS", 0.05)
    setup.api.down = True
    agent = setup.agent()
    async with running(agent.run()):
        with pytest.raises(NotIsolatedYet):
            await agent.admit(("y", "new"), "uid", [ip_address("10.244.1.2")])


async def test_what_others_change_is_restored_and_reported(setup: Setup) -> None:
    await setup.add_policy(DENY)
    async with setup.working():
        setup.tables[0].contents = None
        setup.tables[0].disturb("nft (pid 7) deleted table netkit-policy")
        await until(lambda: not setup.open())
    ((reason, message),) = setup.reports
    assert reason == module.CHANGED
    assert "nft (pid 7) deleted table netkit-policy" in message


async def test_rules_that_cannot_be_watched_are_watched_later(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNSUPPORTED_SECONDS", 0.005)
    await setup.add_policy(DENY)
    waits = setup.tables[0].disturbance
    failures = [KernelError("nft monitor", NODE, errno.ENOBUFS)] * 2

    async def disturbance() -> str:
        if failures:
            raise failures.pop()
        return await waits()

    setup.tables[0].disturbance = disturbance  # type: ignore[method-assign]
    async with setup.working():
        setup.tables[0].contents = None
        setup.tables[0].disturb("somebody")
        await until(lambda: not setup.open())
    assert failures == []
