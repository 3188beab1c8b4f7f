"""Nine pods of three namespaces on two nodes, the nodes' policy backends, and real connections between all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any

from rows.format import NodePlan, Outcome, Plan, PodPlan, Target
from rows.traffic import Job, Traffic
from rows.world import OUTSIDE, World
from support.policy_objects import NAMESPACES, NODE, OTHER, namespace, pod
from support.policy_oracle import connects

from netkit.policy.backend import PolicyBackend, node_tables
from netkit.policy.model import pod_of, policy_of
from netkit.policy.selection import Selection
from netkit.proxy.services import Protocol

Obj = dict[str, Any]
Cell = tuple[str, str, str, int]
"""Source and destination address, protocol, port."""

CELLS = (("TCP", 80), ("TCP", 81), ("UDP", 80), ("SCTP", 81))
CELLS_6 = (("TCP", 80), ("UDP", 80))
CALLER = ("172.31.0.9", "fd00:31::9")
_PATIENCE = 0.3


class PolicyNet:
    """`objects` are what both nodes know: pods, namespaces and policies by name."""

    def __init__(self, world: World, traffic: Traffic, pods: Sequence[Obj]) -> None:
        self.world = world
        self.traffic = traffic
        self.pods = list(pods)
        self.namespaces = [namespace(name) for name in NAMESPACES]
        self.policies: dict[tuple[str, str], Obj] = {}
        self.selections = {node: Selection(node) for node in (NODE, OTHER)}
        self.tables = {node: node_tables(world.machines[node]) for node in self.selections}
        self.backends = {node: PolicyBackend(tables) for node, tables in self.tables.items()}
        for selection in self.selections.values():
            for item in self.namespaces:
                selection.set_namespace(item["metadata"]["name"], item["metadata"]["labels"])
            for item in self.pods:
                selection.set_pod(_key(item), pod_of(item))

    def put(self, *policies: Obj) -> None:
        for item in policies:
            self.policies[_key(item)] = item
            for selection in self.selections.values():
                selection.set_policy(_key(item), policy_of(item))

    def remove(self, key: tuple[str, str]) -> None:
        self.policies.pop(key, None)
        for selection in self.selections.values():
            selection.set_policy(key, None)

    def clear(self) -> None:
        for key in list(self.policies):
            self.remove(key)

    def relabel(self, number: int, label: str) -> None:
        """Give a pod another label."""
        old = self.pods[number]
        new = {**old, "metadata": {**old["metadata"], "labels": {"pod": label}}}
        self.pods[number] = new
        for selection in self.selections.values():
            selection.set_pod(_key(new), pod_of(new))

    async def sync(self) -> int:
        """Write what changed on all nodes; how many messages that took."""
        return sum(
            [
                (await self.backends[node].sync(selection, selection.collect())).messages
                for node, selection in self.selections.items()
            ]
        )

    def address(self, name: str, position: int = 0) -> str:
        """Of the pod `namespace/name`."""
        found = next(item for item in self.pods if "/".join(_key(item)) == name)
        return str(found["status"]["podIPs"][position]["ip"])

    def machines(self, position: int) -> dict[str, str]:
        """Every end of a connection by its address: pods, and the machine outside."""
        found = {item["status"]["podIPs"][position]["ip"]: "-".join(_key(item)) for item in self.pods}
        return {**found, CALLER[position]: OUTSIDE}

    def cells(self) -> list[Cell]:
        """Everybody calls every pod."""
        found: list[Cell] = []
        for position, kinds in enumerate((CELLS, CELLS_6)):
            ends = self.machines(position)
            for source, destination in product(ends, ends):
                if ends[destination] != OUTSIDE:
                    found += [(source, destination, *kind) for kind in kinds]
        return found

    async def measured(self, cells: Iterable[Cell]) -> dict[Cell, bool]:
        """Whether connections come about, by real packets. Anything but an answer or silence is an error."""
        jobs: dict[tuple[str, str], Job] = {}
        for source, destination, protocol, port in cells:
            machine = self.machines(":" in source)[source]
            job = jobs.get((source, protocol))
            if job is None:
                job = jobs[source, protocol] = Job(
                    machine, ip_address(source), [], Protocol(protocol), lambda seen: False, _PATIENCE, 64
                )
            assert isinstance(job.targets, list)
            job.targets.append(Target(ip_address(destination), port))
        for job in jobs.values():
            job.window = len(job.targets)
            job.enough = lambda seen, job=job: job.started >= len(job.targets)  # type: ignore[misc]
        await self.traffic.run(jobs.values())
        found: dict[Cell, bool] = {}
        for (source, protocol), job in jobs.items():
            assert len(job.seen) >= len(job.targets)
            for seen in job.seen:
                assert seen.outcome in (Outcome.ENDPOINTS, Outcome.DROP), (source, seen)
                cell = (source, str(seen.target.address), protocol, seen.target.port)
                found[cell] = seen.outcome is Outcome.ENDPOINTS
        return found

    def expected(self, cells: Iterable[Cell]) -> dict[Cell, bool]:
        """The same by the oracle."""
        policies = list(self.policies.values())
        return {cell: connects(policies, self.namespaces, self.pods, *cell) for cell in cells}

    async def check(self) -> int:
        """Compare cell by cell; how many were let through."""
        cells = self.cells()
        wanted, seen = self.expected(cells), await self.measured(cells)
        wrong = {cell: (wanted[cell], seen[cell]) for cell in cells if wanted[cell] is not seen[cell]}
        if wrong:
            # A busy machine may answer late; what is wrong twice is wrong.
            again = await self.measured(wrong)
            wrong = {cell: pair for cell, pair in wrong.items() if again[cell] is not pair[0]}
        assert not wrong, (list(wrong.items())[:6], len(wrong), list(self.policies.values()))
        return sum(seen.values())


@asynccontextmanager
async def policy_net(place: Path) -> AsyncIterator[PolicyNet]:
    """Pods a, b, c of x, y, z: those of z and c of y live on the other node. Taken down at the end."""
    pods = []
    for number, (space, name) in enumerate(product(NAMESPACES, "abc"), 1):
        node = OTHER if space == "z" or (space, name) == ("y", "c") else NODE
        pods.append(pod(space, name, number, node, {"pod": name, **({"tier": "db"} if name == "b" else {})}))
    plan = Plan(
        nodes=(
            NodePlan(NODE, _addresses("172.31.0.1", "fd00:31::1"), _addresses("10.244.1.254"), (), True),
            NodePlan(OTHER, _addresses("172.31.0.2", "fd00:31::2"), _addresses("10.244.2.254"), ()),
        ),
        pods=tuple(map(_plan, pods)),
        service_addresses=(),
        outside=_addresses(*CALLER),
    )  # fmt: skip
    with World.built(plan, place) as world:
        async with Traffic(world) as traffic:
            net = PolicyNet(world, traffic, pods)
            yield net
            for backend in net.backends.values():
                await backend.cleanup()
            await asyncio.sleep(0)


def _plan(obj: Obj) -> PodPlan:
    addresses = _addresses(*(item["ip"] for item in obj["status"]["podIPs"]))
    listens = frozenset(
        (address, port, Protocol(protocol)) for address in addresses for protocol, port in CELLS
    )
    return PodPlan("-".join(_key(obj)), obj["spec"]["nodeName"], addresses, listens)


def _addresses(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_address, texts))


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
