"""Revision numbers, the annotations a Deployment and its ReplicaSets share, and the order of history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.controllers.deployment.sizes import max_surge, wanted
from controlplane.controllers.deployment.templates import same_template
from controlplane.errors import Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.meta.pod_templates import template_of

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    )
)
_HISTORY_CHARACTERS = 2000


def by_age(sets: Iterable[Object]) -> list[Object]:
    """Oldest first; of the same second by name."""
    return sorted(sets, key=lambda each: (dig(each, "metadata", "creationTimestamp", default=""), name(each)))


def find_new(deployment: Object, sets: Iterable[Object]) -> Object | None:
    """The ReplicaSet with the Deployment's present template; the oldest, should there be several."""
    template = template_of(deployment)
    for each in by_age(sets):
        if same_template(template_of(each), template):
            return each
    return None


def revision(obj: Object) -> int:
    """The revision annotation; 0 when missing or no number."""
    text = annotations_of(obj).get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def next_revision(old_sets: Iterable[Object]) -> int:
    """The number of a template that follows all of `old_sets`."""
    return max(map(revision, old_sets), default=0) + 1


def set_annotations(deployment: Object, current: Object | None, number: int) -> dict[str, str]:
    """The annotations the ReplicaSet of the present template should have.

    `current` is that set, or None for one that is about to be made; `number` the revision it deserves. A set
    that is rolled back to gets the new number, and its old one is kept in the history annotation.
    """
    result = dict(annotations_of(current)) if current is not None else {}
    for key, value in annotations_of(deployment).items():
        if key not in _NOT_COPIED:
            result[key] = value
    old = result.get(REVISION, "")
    if not old or (old.isdecimal() and int(old) < number):
        result[REVISION] = str(number)
        if old:
            history = [part for part in result.get(REVISION_HISTORY, "").split(",") if part]
            history.append(old)
            while len(history) > 1 and len(",".join(history)) > _HISTORY_CHARACTERS:
                history.pop(0)
            result[REVISION_HISTORY] = ",".join(history)
    if current is None:
        result.update(size_annotations(deployment))
    return result


def size_annotations(deployment: Object) -> dict[str, str]:
    """What a ReplicaSet remembers of the Deployment's size, for proportional scaling."""
    desired = wanted(deployment)
    return {DESIRED_REPLICAS: str(desired), MAX_REPLICAS: str(desired + max_surge(deployment))}


def annotated_number(replica_set: Object, key: str) -> int | None:
    """The number in a size annotation, or None."""
    text = annotations_of(replica_set).get(key, "")
    return int(text) if text.isdecimal() else None


def expired_history(deployment: Object, old_sets: Sequence[Object]) -> list[Object]:
    """Old ReplicaSets beyond the history limit that may be deleted: without pods, and observed to be so."""
    limit = dig(deployment, "spec", "revisionHistoryLimit")
    if limit is None:
        return []
    alive = [each for each in old_sets if not is_being_deleted(each)]
    surplus = len(alive) - limit
    if surplus <= 0:
        return []
    ordered = sorted(
        alive, key=lambda each: (revision(each), dig(each, "metadata", "creationTimestamp", default=""))
    )
    return [each for each in ordered[:surplus] if _is_idle(each)]


def _is_idle(replica_set: Object) -> bool:
    return bool(
        dig(replica_set, "status", "replicas", default=0) == 0
        and dig(replica_set, "spec", "replicas", default=1) == 0
        and dig(replica_set, "metadata", "generation", default=0)
        <= dig(replica_set, "status", "observedGeneration", default=0)
    )
