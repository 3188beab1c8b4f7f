"""A registry with the default policy, and the chain over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.policy import World

from controlplane.apiserver.admission.node_restriction import NodeRestriction
from controlplane.apiserver.authz.escalation import EscalationCheck
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import Registry
from controlplane.resources.catalog import SERVED
from controlplane.store.memory import MemoryStore


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = MemoryStore()
    authorization = Authorization.of(AuthorizationSettings())
    plugins = [NodeRestriction(), EscalationCheck(authorization.rbac, authorization.chain)]
    registry = Registry(store, SERVED, admission=plugins)
    await registry.start()
    await authorization.follow(registry)
    made = World(registry, authorization)
    for name in ("default", "kube-system", "kube-public", "other", "kube-node-lease"):
        await made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await bootstrap_policy(registry)
    try:
        yield made
    finally:
        await registry.close()
        await store.close()
