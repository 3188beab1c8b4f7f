"""Rows in one mode: its rules are brought into the world's node, connections are made, and what they meet is judged.

Rows that need the same rules, i.e. the same cluster, node and settings, run together after one sync.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from netkit.kernel.iptables import Variant
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.agent import node_facts, service_cidrs
from netkit.proxy.backend import Backend, NodeFacts
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import ProxyMode
from netkit.proxy.state import ProxyState
from rows.format import Cluster, Expectation, Outcome, Row, Table
from rows.judge import REFUSALS, Judgement, enough, judge
from rows.traffic import Job, Seen, Traffic
from rows.varieties import Variety
from rows.world import World

_SILENCE, _SILENCE_OF_A_PROCESS = 0.4, 2.0
"""How long nothing must come before a connection counts as dropped: an answer of the kernel takes a millisecond, one of
a process that has many others to serve may take a while. Seconds.
"""
_PATIENCE = 4.0
_LOOKS = 3
"""How often a row is tried in which something was missing, before it counts as failed."""
_TOO_MANY = 20
"""As many rows of a batch do not miss something by accident."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row in one mode. `judgement` None: skipped there."""

    row: Row
    variety: Variety
    expected: Expectation
    judgement: Judgement | None
    rules: str = ""

    @property
    def failed(self) -> bool:
        return self.judgement is not None and not self.judgement.holds


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that share their rules."""

    cluster: str
    node: str
    settings: str
    rows: tuple[Row, ...]


def batches(rows: Sequence[Row]) -> list[Batch]:
    """The rows by what rules they need, in the order of their first row."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.cluster, row.node, row.settings), []).append(row)
    return [Batch(*key, tuple(group)) for key, group in found.items()]


@dataclass(frozen=True)
class Proxy:
    """The rules of one node as they stand: a state and a back end per family."""

    states: Mapping[Family, ProxyState]
    backends: Mapping[Family, Backend]

    async def sync(self, *, full: bool = False) -> None:
        """Write what has changed in the states."""
        for family, state in self.states.items():
            changes = state.collect()
            await self.backends[family].sync(state, None if full else changes)
            state.mark_synced()

    async def rewrite(self, family: Family) -> None:
        """Take away all rules of a family and write them anew."""
        await self.backends[family].cleanup()
        await self.backends[family].sync(self.states[family], None)

    async def rules(self, row: Row) -> str:
        """The rules that serve a row's service port, as text."""
        if row.service is None:
            return ""
        name = ServicePortName(*row.service, row.service_port, row.protocol)
        if self.states[row.family].port(name) is None:
            return f"no rules: the proxy knows no service port {name}"
        try:
            sections = await self.backends[row.family].serving(self.states[row.family], name)
        except NotImplementedError:
            return ""
        return "\n".join(
            line
            for section in sections
            for line in (section.name, *(f"  {entry}" for entry in section.entries))
        )


@runtime_checkable
class Stops(Protocol):
    """A back end with something to end in this process."""

    async def stop(self) -> None: ...


@runtime_checkable
class Closes(Protocol):
    """A back end that keeps sockets open."""

    def close(self) -> None: ...


class Runner:
    """Runs rows of a table in a world."""

    def __init__(self, table: Table, world: World, traffic: Traffic) -> None:
        self.table = table
        self.world = world
        self.traffic = traffic

    async def run(self, variety: Variety, rows: Sequence[Row] | None = None) -> list[Result]:
        """All rows (or these) in one mode, in the order of the table."""
        rows = self.table.rows if rows is None else rows
        found: dict[str, Result] = {}
        skipped = [row for row in rows if row.expected[variety.mode.value].skip]
        for row in skipped:
            found[row.title] = Result(row, variety, row.expected[variety.mode.value], None)
        for batch in batches([row for row in rows if row.title not in found]):
            async with self.proxy(variety, batch) as proxy:
                for result in await self.measure(variety, batch.rows, proxy):
                    found[result.row.title] = result
        return [found[row.title] for row in rows]

    @asynccontextmanager
    async def proxy(self, variety: Variety, batch: Batch) -> AsyncIterator[Proxy]:
        """The rules of a batch, on its node, until the end of the block."""
        cluster = self.table.clusters[batch.cluster]
        space = self.world.machines[batch.node]
        self.world.serve_at(batch.node)
        self.world.settle(batch.node)
        settings = variety.settings(batch.settings, cluster, batch.node)
        backends = variety.backends(settings, batch.node, space, self.world.directory)
        proxy = Proxy({backend.family: state_of(cluster, backend.family) for backend in backends},
                      {backend.family: backend for backend in backends})  # fmt: skip
        facts = facts_of(cluster, batch.node)
        try:
            for backend in backends:
                backend.configure(facts)
            await proxy.sync(full=True)
            if cluster.closed:
                self._firewall(variety, batch.node, cluster.closed, closed=True)
            yield proxy
        finally:
            if cluster.closed:
                self._firewall(variety, batch.node, cluster.closed, closed=False)
            for backend in backends:
                await backend.cleanup()
                if isinstance(backend, Stops):
                    await backend.stop()
                if isinstance(backend, Closes):
                    backend.close()

    def _firewall(self, variety: Variety, node: str, chains: Sequence[str], *, closed: bool) -> None:
        """Have chains of a node's iptables let nothing pass, but in INPUT what belongs to the node's connections."""
        policy, action = ("DROP", "-A") if closed else ("ACCEPT", "-D")
        lines = [f":{chain} {policy}" for chain in chains]
        if "INPUT" in chains:
            lines.append(f"{action} INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
        text = "\n".join(("*filter", *lines, "COMMIT", ""))
        for program in ("iptables", "ip6tables"):
            argv = [f"{program}-{variety.variant or Variant.LEGACY}-restore", "--noflush"]
            run(argv, ns=self.world.machines[node], input=text.encode(), check=True)

    async def measure(
        self,
        variety: Variety,
        rows: Sequence[Row],
        proxy: Proxy | None = None,
        patience: float = _PATIENCE,
        looks: int = _LOOKS,
    ) -> list[Result]:
        """Make the connections of rows whose rules stand, and judge. `patience`: how long an answer may take.

        Rows that only miss something are tried again, up to so many `looks` in all, without others that call the
        same Service. A fault in the rules is there each time; one that is there sometimes is for `shares`, which
        counts thousands of connections, to find.
        """
        found = await self._look(variety, rows, patience)
        for _ in range(looks - 1):
            again = [row for row in rows if found[row.title].incomplete]
            if len(again) >= _TOO_MANY:
                break
            for group in _strangers(again):
                found |= await self._look(variety, group, patience)
        results = []
        for row in rows:
            judgement = found[row.title]
            rules = await proxy.rules(row) if proxy and not judgement.holds else ""
            results.append(Result(row, variety, row.expected[variety.mode.value], judgement, rules))
        return results

    async def _look(self, variety: Variety, rows: Sequence[Row], patience: float) -> dict[str, Judgement]:
        """Try rows once; what came of them, by title."""
        jobs = [job_of(row, row.expected[variety.mode.value], variety, patience) for row in rows]
        await self.traffic.run(jobs)
        return {
            row.title: judge(row, row.expected[variety.mode.value], job.seen)
            for row, job in zip(rows, jobs, strict=True)
        }


def _strangers(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups in which each one calls another Service."""
    groups: list[list[Row]] = []
    for row in rows:
        for group in groups:
            if all(other.service != row.service for other in group):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def job_of(row: Row, expected: Expectation, variety: Variety, patience: float = _PATIENCE) -> Job:
    """The connections of a row."""
    sufficient = functools.partial(enough, expected, rotates=variety.rotates)

    def done(seen: Sequence[Seen]) -> bool:
        return sufficient(seen)

    silence = _SILENCE_OF_A_PROCESS if variety.mode is ProxyMode.USERSPACE else _SILENCE
    patience = silence if expected.outcome is Outcome.DROP else patience
    job = Job(row.origin.machine, row.origin.source, row.targets, row.protocol, done, patience)
    return job if expected.outcome is Outcome.ENDPOINTS else replace(job, window=REFUSALS)


def facts_of(cluster: Cluster, node: str) -> NodeFacts:
    """What a proxy would know of its Node, and of the cluster's ranges."""
    ranges = service_cidrs(cluster.of_kind("ServiceCIDR"))
    return replace(node_facts(cluster.nodes[node]), service_cidrs=ranges)


def state_of(cluster: Cluster, family: Family) -> ProxyState:
    """A state that has taken in the cluster's objects."""
    state = ProxyState(family)
    for item in cluster.of_kind("Service"):
        state.upsert_service(item)
    for item in cluster.of_kind("EndpointSlice"):
        state.upsert_slice(item)
    return state
