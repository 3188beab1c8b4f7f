"""What is done next to the pods of a StatefulSet: in order and one at a time, or all at once. Pure.

Upstream's v1.32 rules (`updateStatefulSet`). A StatefulSet whose pods are managed in order waits for each pod to be
ready before the next is touched; with `Parallel` only a rolling update does so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controlplane.controllers.statefulset.claims import claim_names, is_stale, owners
from controlplane.controllers.statefulset.history import Revisions
from controlplane.controllers.statefulset.identity import (
    REVISION_LABEL,
    first_ordinal,
    identity_matches,
    in_range,
    new_pod,
    ordinal,
    replicas,
    storage_matches,
)
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels
from controlplane.meta.owners import references
from controlplane.meta.pods import is_available, is_finished, is_ready, phase
from controlplane.meta.revisions import template_in

FindClaim = Callable[[str], Object | None]
"""The PersistentVolumeClaim of that name in the StatefulSet's namespace."""


class Action(StrEnum):
    """CREATE a pod and its claims, DELETE one, correct one (UPDATE), make missing CLAIMS, see to who OWNs them."""

    CREATE = "create"
    DELETE = "delete"
    UPDATE = "update"
    CLAIMS = "claims"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Step:
    action: Action
    pod: Object


@dataclass(slots=True)
class Plan:
    """The steps in their order; `pods` are those that count, `outdated` how many go because of an update."""

    steps: list[Step] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    outdated: int = 0

    def add(self, action: Action, pod: Object) -> None:
        self.steps.append(Step(action, pod))


def is_running_and_ready(pod: Object) -> bool:
    return phase(pod) == "Running" and is_ready(pod)


def is_healthy(pod: Object) -> bool:
    return is_running_and_ready(pod) and not is_being_deleted(pod)


def revision_of(pod: Object) -> str:
    """The name of the ControllerRevision the pod was made from."""
    return labels(pod).get(REVISION_LABEL, "")


class Planner:
    """Makes the plan for one StatefulSet at one moment. `pods` are its own; use it once."""

    def __init__(
        self,
        stateful_set: Object,
        revisions: Revisions,
        pods: Sequence[Object],
        find_claim: FindClaim,
        moment: datetime,
    ) -> None:
        self._set = stateful_set
        self._revisions = revisions
        self._find_claim = find_claim
        self._moment = moment
        self._wait = dig(stateful_set, "spec", "minReadySeconds", default=0)
        self._in_order = dig(stateful_set, "spec", "podManagementPolicy") != "Parallel"
        numbered = {ordinal(pod): pod for pod in pods if ordinal(pod) >= 0}
        first = first_ordinal(stateful_set)
        self._wanted = range(first, first + replicas(stateful_set))
        self._present = {number: pod for number, pod in numbered.items() if in_range(stateful_set, number)}
        self._condemned = [
            numbered[number] for number in sorted(numbered, reverse=True) if number not in self._present
        ]
        self._plan = Plan(pods=[*(self._present[n] for n in sorted(self._present)), *self._condemned])

    def plan(self) -> Plan:
        plan = self._plan
        if is_being_deleted(self._set):
            return plan
        if self._keep_replicas() and self._take_condemned():
            self._update()
        return plan

    # living replicas

    def _keep_replicas(self) -> bool:
        """Whether one may go on to the pods beyond the wanted ones."""
        for number in self._wanted:
            pod = self._present.get(number)
            goes_on = self._make(number) if pod is None else self._keep(pod)
            if not goes_on and self._in_order:
                return False
        return True

    def _make(self, number: int) -> bool:
        claims = map(self._find_claim, claim_names(self._set, number))
        if not any(claim is not None and is_stale(self._set, number, claim) for claim in claims):
            self._plan.add(Action.CREATE, self._new(number))
        return False

    def _new(self, number: int) -> Object:
        """Below the partition pods are made from the revision that is being left."""
        revision = self._revisions.update
        if number < self._wanted.start + self._kept_back():
            revision = self._revisions.current
        return new_pod(self._set, template_in(revision), number, revision["metadata"]["name"])

    def _kept_back(self) -> int:
        """How many pods, from the first on, are of the current revision and not of the update."""
        strategy = dig(self._set, "spec", "updateStrategy", default={})
        rolling = strategy.get("rollingUpdate")
        if rolling is not None:
            return int(rolling.get("partition") or 0)
        if strategy.get("type") == "RollingUpdate":
            return int(dig(self._set, "status", "currentReplicas", default=0))
        return 0

    def _keep(self, pod: Object) -> bool:
        if is_finished(pod):
            # However it ended: a new one takes its place once it has gone.
            if not is_being_deleted(pod):
                self._plan.add(Action.DELETE, pod)
            return False
        if phase(pod) == "Pending" and any(self._find_claim(each) is None for each in self._claims_of(pod)):
            self._plan.add(Action.CLAIMS, pod)
        if self._in_order and (is_being_deleted(pod) or not self._is_available(pod)):
            return False
        matches = identity_matches(self._set, pod) and storage_matches(self._set, pod)
        if not matches or not self._owners_match(pod):
            self._plan.add(Action.UPDATE, pod)
        return True

    def _is_available(self, pod: Object) -> bool:
        return is_running_and_ready(pod) and is_available(pod, self._wait, self._moment)

    def _claims_of(self, pod: Object) -> list[str]:
        return claim_names(self._set, ordinal(pod))

    def _owners_match(self, pod: Object) -> bool:
        condemned = not in_range(self._set, ordinal(pod))
        found = (claim for each in self._claims_of(pod) if (claim := self._find_claim(each)) is not None)
        return all(
            list(references(claim)) == owners(self._set, pod, claim, condemned=condemned) for claim in found
        )

    # pods beyond the wanted ones

    def _take_condemned(self) -> bool:
        """The highest number goes first. Whether one may go on to the update."""
        for pod in self._condemned:
            if not self._owners_match(pod):
                self._plan.add(Action.OWN, pod)
        first_unhealthy = self._first_unhealthy()
        for pod in self._condemned:
            if is_being_deleted(pod):
                if self._in_order:
                    return False
                continue
            if self._in_order and not self._is_available(pod) and pod is not first_unhealthy:
                return False
            self._plan.add(Action.DELETE, pod)
            if self._in_order:
                return False
        return True

    def _first_unhealthy(self) -> Object | None:
        for number in self._wanted:
            pod = self._present.get(number)
            if pod is None:
                return None
            if not is_healthy(pod):
                return pod
        return next((pod for pod in reversed(self._condemned) if not is_healthy(pod)), None)

    # the update

    def _update(self) -> None:
        """Delete the highest pod of another revision; all above it must be healthy first."""
        if dig(self._set, "spec", "updateStrategy", "type") == "OnDelete":
            return
        partition = int(dig(self._set, "spec", "updateStrategy", "rollingUpdate", "partition", default=0))
        wanted = self._revisions.update["metadata"]["name"]
        for number in reversed(self._wanted[partition:]):
            pod = self._present.get(number)
            if pod is None:
                # Just being made: not healthy yet.
                return
            if revision_of(pod) != wanted and not is_being_deleted(pod):
                self._plan.add(Action.DELETE, pod)
                self._plan.outdated += 1
                return
            if not is_healthy(pod):
                return
