"""Which daemon pods are made and which go: the one per node, and a rolling update's steps. Pure.

Upstream's v1.32 rules (`podsShouldBeOnNode`, `rollingUpdate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.controllers.daemonset.placement import (
    GENERATION_LABEL,
    HASH_LABEL,
    Verdict,
    template_generation,
)
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels, name
from controlplane.meta.pods import is_available, is_ready, phase

NodePods = Mapping[str, Sequence[Object]]
"""The DaemonSet's pods by the node they are on or meant for."""


@dataclass(slots=True)
class Steps:
    """Nodes to make a pod for, pods to delete, and of those the failed and the finished ones with their nodes."""

    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    failed: list[tuple[str, Object]] = field(default_factory=list)
    succeeded: list[tuple[str, Object]] = field(default_factory=list)


class Pods:
    """What is asked about the pods of one DaemonSet at one moment."""

    def __init__(self, daemon_set: Object, hash_: str, moment: datetime) -> None:
        self._hash = hash_
        self._generation = template_generation(daemon_set)
        self._wait = dig(daemon_set, "spec", "minReadySeconds", default=0)
        self._moment = moment

    def is_current(self, pod: Object) -> bool:
        """Whether the pod is of the present template."""
        marks = labels(pod)
        if self._generation and marks.get(GENERATION_LABEL) == self._generation:
            return True
        return bool(self._hash) and marks.get(HASH_LABEL) == self._hash

    def has_hash(self, pod: Object) -> bool:
        return labels(pod).get(HASH_LABEL) == self._hash

    def available(self, pod: Object) -> bool:
        return is_available(pod, self._wait, self._moment)

    def split(self, pods: Sequence[Object]) -> tuple[Object | None, Object | None] | None:
        """The pod of the present template and the older one; None when there are several of one sort."""
        new = old = None
        for pod in pods:
            if is_being_deleted(pod):
                continue
            if self.is_current(pod):
                if new is not None:
                    return None
                new = pod
            else:
                if old is not None:
                    return None
                old = pod
        return new, old


def oldest_first(pods: Sequence[Object]) -> list[Object]:
    """Bound pods before those that wait for their node, then by age, then by name."""
    if len(pods) < 2:
        return list(pods)
    return sorted(
        pods,
        key=lambda pod: (
            not dig(pod, "spec", "nodeName"),
            dig(pod, "metadata", "creationTimestamp", default=""),
            name(pod),
        ),
    )


def allowed_surge(daemon_set: Object, desired: int) -> int:
    """How many nodes may have a second pod during an update; percentages are rounded up."""
    return _share(daemon_set, "maxSurge", 0, desired)


def allowed_unavailable(daemon_set: Object, desired: int) -> int:
    """How many nodes may be without an available pod during an update; percentages are rounded up."""
    return _share(daemon_set, "maxUnavailable", 1, desired)


def is_rolling(daemon_set: Object) -> bool:
    return bool(dig(daemon_set, "spec", "updateStrategy", "type", default="RollingUpdate") == "RollingUpdate")


def _share(daemon_set: Object, which: str, default: int, desired: int) -> int:
    if not is_rolling(daemon_set):
        return 0
    value = dig(daemon_set, "spec", "updateStrategy", "rollingUpdate", which, default=default)
    return value if isinstance(value, int) else math.ceil(int(value.rstrip("%")) * desired / 100)


def one_per_node(
    daemon_set: Object, verdicts: Mapping[str, Verdict], node_pods: NodePods, pods: Pods
) -> Steps:
    """Missing pods to make, and failed, finished, doubled and misplaced ones to delete."""
    steps = Steps()
    # Any surge at all, as upstream asks without knowing how many nodes there are.
    surges = allowed_surge(daemon_set, 1) > 0
    for node, verdict in verdicts.items():
        present = node_pods.get(node, ())
        if verdict.should_run and not present:
            steps.create.append(node)
        elif verdict.may_stay:
            running = _running(steps, node, present)
            if not surges:
                steps.delete += oldest_first(running)[1:]
            elif running:
                steps.delete += _surplus_in_surge(running, pods)
            elif verdict.should_run:
                # The old pod is on its way out; a surge need not wait for its end.
                steps.create.append(node)
        else:
            steps.delete += [pod for pod in present if not is_being_deleted(pod)]
    for node, present in node_pods.items():
        if node not in verdicts:
            # The node is gone, so no scheduler will ever bind them, and no pod GC see them.
            steps.delete += [
                pod for pod in present if not dig(pod, "spec", "nodeName") and not is_being_deleted(pod)
            ]
    return steps


def _running(steps: Steps, node: str, present: Sequence[Object]) -> list[Object]:
    running = []
    for pod in present:
        if is_being_deleted(pod):
            continue
        if phase(pod) == "Failed":
            steps.failed.append((node, pod))
        elif phase(pod) == "Succeeded":
            steps.succeeded.append((node, pod))
        else:
            running.append(pod)
    return running


def _surplus_in_surge(running: Sequence[Object], pods: Pods) -> list[Object]:
    """Two pods may stand: the oldest of the present template while it is not available, beside a ready older one."""
    if len(running) == 1:
        return []
    new = old = None
    surplus = []
    for pod in oldest_first(running):
        if pods.has_hash(pod) and new is None:
            new = pod
        elif not pods.has_hash(pod) and old is None:
            old = pod
        else:
            surplus.append(pod)
    if new is not None and old is not None and (not is_ready(old) or pods.available(new)):
        surplus.append(old)
    return surplus


def roll(daemon_set: Object, verdicts: Mapping[str, Verdict], node_pods: NodePods, pods: Pods) -> Steps:
    """The next step of a rolling update."""
    desired = sum(verdict.should_run for verdict in verdicts.values())
    surge, unavailable = allowed_surge(daemon_set, desired), allowed_unavailable(daemon_set, desired)
    if surge == 0:
        # An update that may neither add nor remove a pod would never move.
        return _roll_by_deleting(node_pods, pods, unavailable or 1)
    return _roll_by_surging(verdicts, node_pods, pods, surge, desired)


def _roll_by_deleting(node_pods: NodePods, pods: Pods, allowed: int) -> Steps:
    """Delete old pods, unavailable ones first, as long as few enough nodes are without an available pod."""
    missing = 0
    replacements: list[Object] = []
    candidates: list[Object] = []
    for present in node_pods.values():
        pair = pods.split(present)
        if pair is None or (pair[0] is None) == (pair[1] is None):
            # Whatever is to be done here, the rule of one per node does.
            missing += 1
            continue
        new, old = pair
        if new is not None:
            missing += not pods.available(new)
        elif old is not None and not pods.available(old):
            replacements.append(old)
            missing += 1
        elif old is not None:
            candidates.append(old)
    return Steps(delete=replacements + candidates[: max(0, allowed - missing)])


@dataclass(slots=True)
class _Surge:
    """What is found node by node while surging."""

    surging: int = 0
    available: int = 0
    free: list[str] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    misplaced: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def _roll_by_surging(
    verdicts: Mapping[str, Verdict], node_pods: NodePods, pods: Pods, allowed: int, desired: int
) -> Steps:
    """Make new pods beside old ones; an old one goes when its successor is available."""
    found = _Surge()
    for node, present in node_pods.items():
        pair = pods.split(present)
        if pair is None:
            found.surging += 1
            continue
        new, old = pair
        found.available += any(pods.available(pod) for pod in ((old or new),) if pod is not None)
        if old is not None:
            should_run = node in verdicts and verdicts[node].should_run
            _surge_on(found, node, new, old, should_run, pods.available)
    # A pod where none belongs any more still serves until enough others do.
    spare = max(0, found.available - desired)
    return Steps(
        create=found.free + found.candidates[: max(0, allowed - found.surging)],
        delete=found.delete + found.misplaced[:spare],
    )


def _surge_on(
    found: _Surge,
    node: str,
    new: Object | None,
    old: Object,
    should_run: bool,
    available: Callable[[Object], bool],
) -> None:
    if new is not None:
        if available(new):
            found.delete.append(old)
        else:
            found.surging += 1
    elif not available(old):
        if should_run:
            found.free.append(node)
        else:
            found.delete.append(old)
    elif should_run:
        found.candidates.append(node)
    else:
        found.misplaced.append(old)
