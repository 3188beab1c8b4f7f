"""One reconcile of one DaemonSet: reads what is, asks the pure rules, makes and deletes pods, writes the status.

Made by `controller` for each key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from controlplane.client.batches import Failure, slow_start
from controlplane.client.client import Client
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.pod_control import PodControl, namespace_is_terminating
from controlplane.controllers.daemonset.backoff import FailedPods
from controlplane.controllers.daemonset.history import History
from controlplane.controllers.daemonset.placement import Verdict, node_of, pod_for
from controlplane.controllers.daemonset.plan import Pods, Steps, is_rolling, one_per_node, roll
from controlplane.controllers.daemonset.status import status_of
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.pods import is_finished
from controlplane.resources.catalog import DAEMON_SET

log = logging.getLogger(__name__)

_BURST = 250


class Sync:
    """`pods` are the DaemonSet's; `wrote(pod)` and `deleted(pod)` are told of what was done to them.

    After `run`, `recheck` is the seconds until it must be looked at again (0 = only when something changes).
    """

    def __init__(
        self,
        client: Client,
        events: EventRecorder,
        daemon_set: Object,
        verdicts: Mapping[str, Verdict],
        pods: Sequence[Object],
        history: History,
        failed_pods: FailedPods,
        wrote: Callable[[Object], None],
        deleted: Callable[[Object], None],
    ) -> None:
        self.recheck = 0.0
        self._client = client
        self._events = events
        self._control = PodControl(client, events, DAEMON_SET)
        self._daemon_set = daemon_set
        self._verdicts = verdicts
        self._pods = pods
        self._history = history
        self._failed_pods = failed_pods
        self._wrote = wrote
        self._deleted = deleted
        self._acted = False
        self._node_pods = _by_node(pods)

    async def run(self, *, may_act: bool) -> None:
        """Do what is to be done now; without `may_act` (the cache lags) only report. Raises the first failure."""
        await self._history.construct(self._pods)
        pods = Pods(self._daemon_set, self._history.hash, datetime.now(UTC))
        failures: list[Failure] = []
        if may_act:
            failures = await self._act(pods)
        await self._report(pods, observed=may_act)
        if failures:
            raise failures[0]

    async def _act(self, pods: Pods) -> list[Failure]:
        steps = one_per_node(self._daemon_set, self._verdicts, self._node_pods, pods)
        self._take_failed(steps)
        failures = await self._carry_out(steps)
        if failures:
            return failures
        # What has just been done is not in the cache; an update goes on when it is.
        if is_rolling(self._daemon_set) and not self._acted:
            failures = await self._carry_out(roll(self._daemon_set, self._verdicts, self._node_pods, pods))
        if not failures:
            await self._history.clean_up(self._pods)
        return failures

    def _take_failed(self, steps: Steps) -> None:
        """Failed pods are deleted too, but not again and again without a pause."""
        for node, pod in steps.failed:
            wait = self._failed_pods.wait((uid(self._daemon_set), node), time.monotonic())
            if wait > 0:
                self.recheck = min(wait, self.recheck or wait)
                continue
            text = f"Found failed daemon pod {namespace(pod)}/{name(pod)} on node {node}, will try to kill it"
            self._events.event(DAEMON_SET, self._daemon_set, WARNING, "FailedDaemonPod", text)
            steps.delete.append(pod)
        for node, pod in steps.succeeded:
            text = f"Found succeeded daemon pod {namespace(pod)}/{name(pod)} on node {node}, will try to delete it"
            self._events.event(DAEMON_SET, self._daemon_set, NORMAL, "SucceededDaemonPod", text)
            steps.delete.append(pod)

    async def _carry_out(self, steps: Steps) -> list[Failure]:
        nodes, doomed = steps.create[:_BURST], steps.delete[:_BURST]
        self._acted = self._acted or bool(nodes or doomed)

        async def create(number: int) -> None:
            pod = pod_for(self._daemon_set, nodes[number], self._history.hash)
            self._wrote(await self._control.create(self._daemon_set, pod))

        async def delete(number: int) -> None:
            if await self._control.delete(self._daemon_set, doomed[number]):
                self._deleted(doomed[number])

        _, failures = await slow_start(len(nodes), create)
        _, more = await slow_start(len(doomed), delete, initial=len(doomed))
        return [each for each in [*failures, *more] if not namespace_is_terminating(each)]

    async def _report(self, pods: Pods, *, observed: bool) -> None:
        status = status_of(self._daemon_set, self._verdicts, self._node_pods, pods, observed=observed)
        if status != (self._daemon_set.get("status") or {}):
            await self._client.update_status(DAEMON_SET, {**self._daemon_set, "status": status})
        wait = dig(self._daemon_set, "spec", "minReadySeconds", default=0)
        if wait and status["numberReady"] != status.get("numberAvailable", 0):
            self.recheck = min(float(wait), self.recheck or float(wait))


def _by_node(pods: Sequence[Object]) -> dict[str, list[Object]]:
    """A finished pod that is being deleted holds no place any more."""
    result: dict[str, list[Object]] = {}
    for pod in pods:
        if not (is_finished(pod) and is_being_deleted(pod)):
            result.setdefault(node_of(pod), []).append(pod)
    return result
