"""What a decision costs: a normal user in a cluster with many bindings, a node, and the default policy at a start.

    PYTHONPATH=. python tests/bench/authorization.py [--bindings 1000]

Prints microseconds of processor time per decision of the whole chain (Node, RBAC), and milliseconds for the default
policy.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from controlplane.apiserver.authz import Attributes
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import LOOPBACK_USER, Registry, WriteOptions
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.resources.catalog import NAMESPACE, ROLE_BINDING, SERVED
from controlplane.store.sqlite import SQLiteStore

_ROUNDS, _CALLS = 7, 5000
_OPTIONS = WriteOptions(user=LOOPBACK_USER)


async def main(bindings: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = SQLiteStore(Path(directory) / "store.db")
        authorization = Authorization.of(AuthorizationSettings())
        registry = Registry(store, SERVED)
        await registry.start()
        await authorization.follow(registry)
        for name in ("default", "kube-system", "kube-public"):
            await registry.create(NAMESPACE, "", {"metadata": {"name": name}}, _OPTIONS)
        for what in ("first start", "later start"):
            began = time.perf_counter()
            await bootstrap_policy(registry)
            print(f"default policy, {what}: {(time.perf_counter() - began) * 1000:.1f} ms")
        for number in range(bindings):
            binding = {
                "metadata": {"name": f"b{number}"},
                "roleRef": {"kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "User", "name": f"u{number}"}],
            }
            await registry.create(ROLE_BINDING, "default", binding, _OPTIONS)
        user = UserInfo(f"u{bindings // 2}", groups=("developers", "system:authenticated"))
        node = UserInfo("system:node:n1", groups=("system:nodes", "system:authenticated"))
        for who, verb, resource in (
            (user, "get", "pods"),
            (user, "create", "configmaps"),
            (user, "delete", "nodes"),
            (node, "get", "secrets"),
            (node, "list", "services"),
        ):
            info = RequestInfo(verb, "", True, "", "v1", "default", resource, "x")
            print(f"{who.name} {verb} {resource}: {await _cost(authorization, Attributes(who, info))}")
        await registry.close()
        await store.close()


async def _cost(authorization: Authorization, attributes: Attributes) -> str:
    times = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_CALLS):
            decision = await authorization.chain.authorize(attributes)
        times.append((time.process_time() - began) / _CALLS * 1e6)
    return f"{statistics.median(times):.1f} us ({decision.verdict})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindings", type=int, default=1000)
    asyncio.run(main(parser.parse_args().bindings))
