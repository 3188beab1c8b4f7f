"""One reconcile of one StatefulSet: asks the plan, carries it out step by step, writes the status.

Made by `controller` for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from controlplane.client.batches import slow_start
from controlplane.client.client import Client
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.pod_control import namespace_is_terminating
from controlplane.client.transport import ConnectionFailed
from controlplane.controllers.statefulset.claims import claim_names, new_claims, owners
from controlplane.controllers.statefulset.history import History, Revisions
from controlplane.controllers.statefulset.identity import corrected, in_range, ordinal
from controlplane.controllers.statefulset.plan import (
    Action,
    FindClaim,
    Plan,
    Planner,
    Step,
    revision_of,
)
from controlplane.controllers.statefulset.status import status_of
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object, StatusError
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.owners import references
from controlplane.meta.pods import is_ready, seconds_until_available
from controlplane.resources.catalog import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET


class Sync:
    """`pods` are the StatefulSet's; `wrote(pod)` and `deleted(pod)` are told of what was done to them.

    After `run`, `recheck` is the seconds until it must be looked at again (0 = only when something changes).
    """

    def __init__(
        self,
        client: Client,
        events: EventRecorder,
        stateful_set: Object,
        pods: Sequence[Object],
        history: History,
        find_claim: FindClaim,
        wrote: Callable[[Object], None],
        deleted: Callable[[Object], None],
    ) -> None:
        self.recheck = 0.0
        self._client = client
        self._events = events
        self._set = stateful_set
        self._pods = pods
        self._history = history
        self._find_claim = find_claim
        self._wrote = wrote
        self._deleted = deleted

    async def run(self) -> None:
        """Do what is to be done now. The status is written also when a step fails, whose error is raised then."""
        revisions = await self._history.construct()
        moment = datetime.now(UTC)
        plan = Planner(self._set, revisions, self._pods, self._find_claim, moment).plan()
        failure: StatusError | ConnectionFailed | None = None
        try:
            await self._carry_out(plan)
        except (StatusError, ConnectionFailed) as error:
            failure = error
        await self._report(revisions, plan, moment)
        if failure is not None:
            raise failure
        await self._history.truncate(revisions, {revision_of(pod) for pod in self._pods})

    async def _carry_out(self, plan: Plan) -> None:
        """In order step by step; else all creations at once, in growing batches, and then the rest."""
        if dig(self._set, "spec", "podManagementPolicy") != "Parallel":
            for step in plan.steps:
                await self._step(step)
            return
        creations = [step for step in plan.steps if step.action is Action.CREATE]

        async def create(number: int) -> None:
            await self._step(creations[number])

        _, failures = await slow_start(len(creations), create)
        if failures:
            raise failures[0]
        for step in plan.steps:
            if step.action is not Action.CREATE:
                await self._step(step)

    async def _step(self, step: Step) -> None:
        match step.action:
            case Action.CREATE:
                await self._create(step.pod)
            case Action.DELETE:
                await self._delete(step.pod)
            case Action.UPDATE:
                await self._correct(step.pod)
            case Action.CLAIMS:
                await self._make_claims(step.pod)
            case Action.OWN:
                await self._own_claims(step.pod)

    # pods

    async def _create(self, pod: Object) -> None:
        try:
            await self._make_claims(pod)
            created = await self._client.create(POD, pod)
        except AlreadyExists:
            raise
        except StatusError as error:
            if namespace_is_terminating(error):
                return
            self._tell("create", pod, error)
            raise
        self._wrote(created)
        self._tell("create", pod)

    async def _delete(self, pod: Object) -> None:
        try:
            await self._client.delete(POD, name(pod), namespace(pod), uid=uid(pod))
        except NotFound:
            return
        except StatusError as error:
            self._tell("delete", pod, error)
            raise
        self._deleted(pod)
        self._tell("delete", pod)

    async def _correct(self, pod: Object) -> None:
        """Bring labels, volumes and claims of a pod in line with what the set says."""
        await self._make_claims(pod)
        await self._own_claims(pod)
        wanted = corrected(self._set, pod)
        if wanted == pod:
            return
        try:
            self._wrote(await self._client.update(POD, wanted))
        except StatusError as error:
            self._tell("update", pod, error)
            raise
        self._tell("update", pod)

    def _tell(self, verb: str, pod: Object, error: StatusError | None = None) -> None:
        subject = f"{verb} Pod {name(pod)} in StatefulSet {name(self._set)}"
        if error is None:
            self._event(NORMAL, f"Successful{verb.title()}", f"{subject} successful")
        else:
            self._event(WARNING, f"Failed{verb.title()}", f"{subject} failed error: {error}")

    # claims

    async def _make_claims(self, pod: Object) -> None:
        """Create the claims that are missing. Raises Conflict while a former one is being deleted."""
        for claim in new_claims(self._set, ordinal(pod)):
            known = self._find_claim(name(claim))
            if known is None:
                await self._make_claim(pod, claim)
            elif is_being_deleted(known):
                raise Conflict(f"pvc {name(claim)} is being deleted")

    async def _make_claim(self, pod: Object, claim: Object) -> None:
        subject = f"create Claim {name(claim)}"
        try:
            await self._client.create(PERSISTENT_VOLUME_CLAIM, claim)
        except AlreadyExists:
            return
        except StatusError as error:
            if not namespace_is_terminating(error):
                text = f"{subject} for Pod {name(pod)} in StatefulSet {name(self._set)} failed error: {error}"
                self._event(WARNING, "FailedCreate", text)
            raise
        self._event(
            NORMAL,
            "SuccessfulCreate",
            f"{subject} Pod {name(pod)} in StatefulSet {name(self._set)} success",
        )

    async def _own_claims(self, pod: Object) -> None:
        """Let the claims go with the pod or with the set, as the retention policy says."""
        condemned = not in_range(self._set, ordinal(pod))
        for each in claim_names(self._set, ordinal(pod)):
            claim = self._find_claim(each)
            if claim is None:
                continue
            wanted = owners(self._set, pod, claim, condemned=condemned)
            if wanted == list(references(claim)):
                continue
            metadata = {**claim["metadata"], "ownerReferences": wanted}
            await self._client.update(PERSISTENT_VOLUME_CLAIM, {**claim, "metadata": metadata})

    # the set itself

    async def _report(self, revisions: Revisions, plan: Plan, moment: datetime) -> None:
        status = status_of(self._set, revisions, plan, moment)
        if status != (self._set.get("status") or {}):
            await self._client.update_status(STATEFUL_SET, {**self._set, "status": status})
        wait = dig(self._set, "spec", "minReadySeconds", default=0)
        waiting = [seconds_until_available(pod, wait, moment) for pod in plan.pods if is_ready(pod)]
        soonest = min((seconds for seconds in waiting if seconds > 0), default=0.0)
        if soonest:
            self.recheck = soonest + 0.01

    def _event(self, type_: str, reason: str, message: str) -> None:
        self._events.event(STATEFUL_SET, self._set, type_, reason, message)
