"""Which taints a node's conditions ask for, and which conditions a silent node gets. Pure; upstream's v1.32
names.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig
from controlplane.meta.timestamps import now

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

_BY_CONDITION = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_NO_SCHEDULE = frozenset((*_BY_CONDITION.values(), UNSCHEDULABLE))
_NO_EXECUTE = frozenset((NOT_READY, UNREACHABLE))
_HEARTBEAT_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def with_taints(node: Object, *, evict: bool) -> list[Object]:
    """The taints the node should have: others' kept, ours set by its conditions.

    `evict` allows the taints that drive pods away. A taint that stays keeps the time it was added.
    """
    wanted: list[tuple[str, str]] = []
    for (type_, status), key in _BY_CONDITION.items():
        if conditions.status_of(node, type_) == status:
            wanted.append((key, "NoSchedule"))
            if evict and key in _NO_EXECUTE:
                wanted.append((key, "NoExecute"))
    if dig(node, "spec", "unschedulable", default=False):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    result = []
    for taint in dig(node, "spec", "taints", default=()):
        place = (taint["key"], taint.get("effect", ""))
        ours = (place[1] == "NoSchedule" and place[0] in _NO_SCHEDULE) or (
            place[1] == "NoExecute" and place[0] in _NO_EXECUTE
        )
        if place in wanted:
            wanted.remove(place)
            result.append(taint)
        elif not ours:
            result.append(taint)
    stamp = now()
    for key, effect in wanted:
        taint = {"key": key, "effect": effect}
        if key != UNSCHEDULABLE:
            taint["timeAdded"] = stamp
        result.append(taint)
    return result


def silenced(listed: Sequence[Object]) -> list[Object]:
    """The conditions of a node that has not been heard of: what its agent reported is unknown now."""
    result = list(listed)
    stamp = now()
    for type_ in _HEARTBEAT_CONDITIONS:
        known = conditions.find(result, type_)
        if known is None:
            result.append(
                {
                    "type": type_,
                    "status": "Unknown",
                    "lastHeartbeatTime": stamp,
                    "lastTransitionTime": stamp,
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                }
            )
        elif known.get("status") != "Unknown":
            changed = {
                **known,
                "status": "Unknown",
                "lastTransitionTime": stamp,
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            result = [changed if each is known else each for each in result]
    return result
