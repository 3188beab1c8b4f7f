"""pods/binding: the scheduler's decision put into the pod, once. Pure; the registry stores what it proposes."""

from __future__ import annotations

from datetime import datetime

from controlplane.errors import Conflict, Object, invalid
from controlplane.meta.objects import clone, dig
from controlplane.meta.timestamps import format_time
from controlplane.resources.fieldpath import not_supported, required


def node_of(binding: Object, name: str) -> str:
    """The node a Binding names. Raises Invalid when it names none."""
    target = binding.get("target") or {}
    causes = []
    if target.get("kind") not in (None, "", "Node", "Minion"):
        causes.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        causes.append(required("target.name"))
    if causes:
        raise invalid("Binding", "", name, causes)
    return str(target["name"])


def bound(pod: Object, binding: Object, node: str, now: datetime) -> Object:
    """The pod on that node, with the binding's annotations. Raises Conflict when it cannot be bound."""
    metadata = binding.get("metadata") or {}
    name = pod["metadata"]["name"]
    present = dig(pod, "spec", "nodeName", default="")
    if pod["metadata"].get("deletionTimestamp"):
        raise _conflict(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if present:
        raise _conflict(name, f'pod {name} is already assigned to node "{present}"')
    if dig(pod, "spec", "schedulingGates"):
        raise _conflict(name, f"pod {name} has non-empty .spec.schedulingGates")
    result = clone(pod)
    for key in ("uid", "resourceVersion"):
        if metadata.get(key):
            result["metadata"][key] = metadata[key]
    result.setdefault("spec", {})["nodeName"] = node
    if metadata.get("annotations"):
        result["metadata"]["annotations"] = {
            **(result["metadata"].get("annotations") or {}),
            **metadata["annotations"],
        }
    _set_scheduled(result, now)
    return result


def _set_scheduled(pod: Object, now: datetime) -> None:
    status = pod.get("status") or {}
    conditions = [item for item in status.get("conditions") or () if item.get("type") != "PodScheduled"]
    conditions.append(
        {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": format_time(now),
        }
    )
    pod["status"] = {**status, "conditions": conditions}


def _conflict(name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on pods/binding "{name}": {why}', name=name, kind="pods/binding"
    )
