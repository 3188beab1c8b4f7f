"""Fills the rules of ClusterRoles that aggregate others, selected by label."""

from __future__ import annotations

from controlplane.client.client import Client, PatchType
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.resources.catalog import CLUSTER_ROLE
from controlplane.resources.rbac import aggregated_rules


class ClusterRoleAggregationController:
    """Keys are names of ClusterRoles."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._roles = informers.of(CLUSTER_ROLE)
        self._loop: Controller[str] = Controller("clusterrole-aggregation", self._reconcile, workers=1)
        self._roles.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._roles)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        """Any role may be part of any aggregating one."""
        for role in self._roles.items():
            if role.get("aggregationRule"):
                self._loop.queue.add(name(role))

    async def _reconcile(self, key: str) -> None:
        role = self._roles.get("", key)
        if role is None:
            return
        rules = aggregated_rules(role, self._roles.items())
        if rules is None or (role.get("rules") or []) == rules:
            return
        metadata = {"resourceVersion": role["metadata"]["resourceVersion"]}
        await self._client.patch(
            CLUSTER_ROLE, key, {"metadata": metadata, "rules": rules}, patch_type=PatchType.MERGE
        )
