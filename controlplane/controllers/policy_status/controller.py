"""The loop that writes `status` of ValidatingAdmissionPolicies: which generation was checked, and what was found."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.controllers.policy_status.checking import expression_warnings
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.resources.catalog import VALIDATING_ADMISSION_POLICY
from controlplane.resources.kind import Kind


class PolicyStatusController:
    """Keys are names of policies. `kinds` are those whose types are known."""

    def __init__(self, client: Client, informers: Informers, kinds: Sequence[Kind]) -> None:
        self._client = client
        self._kinds = kinds
        self._policies = informers.of(VALIDATING_ADMISSION_POLICY)
        self._loop: Controller[str] = Controller("validatingadmissionpolicy-status", self._reconcile)
        self._policies.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._policies)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))

    async def _reconcile(self, key: str) -> None:
        policy = self._policies.get("", key)
        if policy is None or is_being_deleted(policy):
            return
        generation = policy["metadata"].get("generation", 0)
        if dig(policy, "status", "observedGeneration", default=0) >= generation:
            return
        warnings = expression_warnings(policy, self._kinds)
        checking: Object = {"expressionWarnings": warnings} if warnings else {}
        status = {
            **(policy.get("status") or {}),
            "observedGeneration": generation,
            "typeChecking": checking,
        }
        try:
            await self._client.update_status(VALIDATING_ADMISSION_POLICY, {**policy, "status": status})
        except NotFound:
            return
