"""A DaemonSet's status. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.controllers.daemonset.placement import Verdict
from controlplane.controllers.daemonset.plan import NodePods, Pods, oldest_first
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.pods import is_ready


def status_of(
    daemon_set: Object,
    verdicts: Mapping[str, Verdict],
    node_pods: NodePods,
    pods: Pods,
    *,
    observed: bool,
) -> Object:
    """The fresh status; what this controller does not count stays. `observed`: the present spec was acted on."""
    desired = current = misplaced = ready = available = updated = 0
    for node, verdict in verdicts.items():
        present = node_pods.get(node)
        if not verdict.should_run:
            misplaced += bool(present)
            continue
        desired += 1
        if not present:
            continue
        current += 1
        pod = oldest_first(present)[0]
        ready += is_ready(pod)
        available += pods.available(pod)
        updated += pods.is_current(pod)
    old = daemon_set.get("status") or {}
    counted = {
        "observedGeneration": dig(daemon_set, "metadata", "generation", default=0)
        if observed
        else old.get("observedGeneration", 0),
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    status: Object = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        **{key: value for key, value in counted.items() if value},
    }
    for kept in ("collisionCount", "conditions"):
        if old.get(kept) is not None:
            status[kept] = old[kept]
    return status
