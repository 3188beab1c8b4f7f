"""Benchmark of admission: a create without plug-ins, with idle ones, and with a policy; CEL and checks alone.

    .venv/bin/python tests/bench/admission.py [--runs N]

In one process, over the registry and a store in memory: no HTTP, no disk, no root. The cases take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report, timed

from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.pod_security import PodSecurity
from controlplane.apiserver.admission.pod_security.evaluation import evaluate
from controlplane.apiserver.admission.pod_security.findings import PodView
from controlplane.apiserver.admission.pod_security.levels import Level, LevelVersion
from controlplane.apiserver.admission.policies import ValidatingAdmissionPolicy
from controlplane.apiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from controlplane.apiserver.registry import Registry, UserInfo, WriteOptions
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.cel import DYN, compile_expression
from controlplane.resources.catalog import (
    CONFIG_MAP,
    KINDS,
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
)
from controlplane.store.memory import MemoryStore

WRITES = 500
USER = UserInfo("bench")
EXPRESSION = "object.spec.containers.all(c, c.image.startsWith('registry/') && has(c.resources))"
POD: dict[str, Any] = {
    "metadata": {"name": "p", "labels": {"app": "web"}},
    "spec": {
        "containers": [{"name": f"c{at}", "image": "registry/i", "resources": {}} for at in range(5)],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}


async def no_way(host: str, port: int) -> Any:
    raise ConnectionRefusedError


async def registry(*, plugins: bool, policy: bool) -> Registry:
    kinds, seat = ServedKinds(KINDS), AuthorizerSeat()
    client = WebhookClient(EndpointResolver(), no_way)
    mutating = [MutatingAdmissionWebhook(client, seat, kinds)] if plugins else []
    validating = (
        [
            PodSecurity(),
            ValidatingAdmissionPolicy(seat, kinds),
            ValidatingAdmissionWebhook(client, seat, kinds),
        ]
        if plugins
        else []
    )
    made = Registry(MemoryStore(), kinds, admission=mutating, validation=validating)
    await made.start()
    if policy:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        spec = {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.data.size() < 10 && !('secret' in object.data)"}] * 3,
        }
        await made.create(
            VALIDATING_ADMISSION_POLICY, "", {"metadata": {"name": "p"}, "spec": spec}, options()
        )
        binding = {"policyName": "p", "validationActions": ["Deny"]}
        body = {"metadata": {"name": "p"}, "spec": binding}
        await made.create(VALIDATING_ADMISSION_POLICY_BINDING, "", body, options())
    return made


def options() -> WriteOptions:
    return WriteOptions(user=USER)


async def creates(made: Registry, run: int) -> float:
    """Microseconds per create."""
    started = time.perf_counter()
    for number in range(WRITES):
        obj = {"metadata": {"name": f"m{run}-{number}"}, "data": {"a": "1"}}
        await made.create(CONFIG_MAP, "default", obj, options())
    return (time.perf_counter() - started) / WRITES * 1e6


async def bench(runs: int) -> list[Figure]:
    cases: dict[str, Callable[[], Awaitable[Registry]]] = {
        "create, no plug-ins": lambda: registry(plugins=False, policy=False),
        "create, idle plug-ins": lambda: registry(plugins=True, policy=False),
        "create, policy of 3 expressions": lambda: registry(plugins=True, policy=True),
    }
    made = {name: await start() for name, start in cases.items()}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(runs):
        for name, each in made.items():
            taken[name].append(await creates(each, run))
    for each in made.values():
        await each.close()
    floor = statistics.median(taken["create, no plug-ins"])
    figures = [Figure(name, "us", tuple(values), floor, "no plug-ins") for name, values in taken.items()]
    program = compile_expression(EXPRESSION, {"object": DYN})
    view, policy = PodView(POD["metadata"], POD["spec"]), LevelVersion(Level.RESTRICTED)
    small: dict[str, Callable[[], object]] = {
        "CEL: compile": lambda: compile_expression(EXPRESSION, {"object": DYN}),
        "CEL: evaluate over a pod of 5 containers": lambda: program.evaluate({"object": POD}),
        "PodSecurity: restricted, 5 containers": lambda: evaluate(policy, view),
    }
    for name, what in small.items():
        times = [timed(lambda what=what: [what() for _ in range(100)]) * 1e4 for _ in range(runs)]
        figures.append(Figure(name, "us", tuple(times)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    report("admission", asyncio.run(bench(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
