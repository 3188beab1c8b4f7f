"""The loop of the disruption controller. Run by `control_loop`; texts of events are upstream's (v1.32)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.informer import Informers
from controlplane.controllers.disruption import budget as budgets
from controlplane.controllers.disruption.scales import NoScale, Scales
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta.objects import labels, name, namespace
from controlplane.meta.timestamps import utc_now
from controlplane.resources.catalog import POD, POD_DISRUPTION_BUDGET

_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


class DisruptionController:
    """Keys are (namespace, name), of budgets in one loop and of pods in the other."""

    def __init__(self, client: Client, informers: Informers, clock: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._budgets = informers.of(POD_DISRUPTION_BUDGET)
        self._pods = informers.of(POD)
        self._scales = Scales(client, informers)
        self._events = EventRecorder(client, "controllermanager")
        self._loop: Controller[NamespacedName] = Controller("disruption", self._reconcile)
        self._stale: Controller[NamespacedName] = Controller("stale disruptions", self._end_stale)
        self._budgets.on_change(self._budget_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._scales.synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run(self._budgets, self._pods))
            group.create_task(self._stale.run(self._pods))

    def _budget_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add((namespace(new), name(new)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        for budget in self._budgets.items(namespace(pod)):
            if any(each is not None and _selects(budget, each) for each in (old, new)):
                self._loop.queue.add((namespace(budget), name(budget)))
        if new is not None:
            left = budgets.seconds_until_stale(new, self._clock())
            if left is not None:
                self._stale.queue.add_after((namespace(new), name(new)), left)

    async def _reconcile(self, key: NamespacedName) -> None:
        budget = self._budgets.get(*key)
        if budget is None:
            return
        try:
            status, recheck = await self._status(budget)
        except (NoScale, StatusError) as error:
            text = f"Failed to calculate the number of expected pods: {error}"
            self._event(budget, WARNING, "CalculateExpectedPodCountFailed", text)
            await self._write(budget, budgets.failed_status(budget, str(error), self._clock()))
            if isinstance(error, StatusError):
                raise
            return
        if recheck:
            self._loop.queue.add_after(key, recheck)
        await self._write(budget, status)

    async def _status(self, budget: Object) -> tuple[Object, float]:
        """The status, and in how many seconds to look again (0 = no need)."""
        pods = [pod for pod in self._pods.items(namespace(budget)) if _selects(budget, pod)]
        if not pods:
            self._event(budget, NORMAL, "NoPods", "No matching pods found")
        scale = 0
        if budgets.needs_scale(budget):
            scale, unmanaged = await self._scales.expected(pods)
            if unmanaged:
                self._event(budget, WARNING, "UnmanagedPods", _UNMANAGED.format(budgets.selector_of(budget)))
        expected, desired = budgets.expected_and_desired(budget, len(pods), scale)
        now = self._clock()
        disrupted = budgets.disrupted(budget, pods, now)
        for pod in disrupted.late:
            text = f"Pod was expected by PDB {namespace(budget)}/{name(budget)} to be deleted but it wasn't"
            self._events.event(POD, pod, WARNING, "NotDeleted", text)
        current = budgets.healthy(pods, disrupted.pods)
        status = budgets.new_status(budget, current, desired, expected, disrupted.pods, now)
        return status, disrupted.recheck

    async def _write(self, budget: Object, status: Object) -> None:
        if status != budget.get("status"):
            await self._client.update_status(POD_DISRUPTION_BUDGET, {**budget, "status": status})

    async def _end_stale(self, key: NamespacedName) -> None:
        """A disruption that was announced and did not come is taken back."""
        pod = self._pods.get(*key)
        if pod is None:
            return
        left = budgets.seconds_until_stale(pod, self._clock())
        if left is None:
            return
        if left > 0:
            self._stale.queue.add_after(key, left)
            return
        status = budgets.without_disruption(pod, self._clock())
        try:
            await self._client.update_status(POD, {**pod, "status": status})
        except NotFound:
            return

    def _event(self, budget: Object, type_: str, reason: str, message: str) -> None:
        self._events.event(POD_DISRUPTION_BUDGET, budget, type_, reason, message)


def _selects(budget: Object, pod: Object) -> bool:
    try:
        selector = budgets.selector_of(budget)
    except ValueError:
        return False
    return selector is not None and selector.matches(labels(pod))
