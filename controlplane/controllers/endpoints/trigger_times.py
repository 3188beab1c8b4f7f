"""When the oldest change happened that a sync publishes: readers measure the delay of the data path by it."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.client.controller import NamespacedName
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import metadata, name

ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"


class TriggerTimes:
    """Remembers what the last sync of each Service saw. Times stay in the texts of the API, which sort by
    age.
    """

    def __init__(self) -> None:
        self._seen: dict[NamespacedName, tuple[str, dict[str, str]]] = {}

    def oldest_change(self, key: NamespacedName, service: Object, pods: Sequence[Object]) -> str:
        """The oldest change since the last call for this Service, or an empty string if none is known."""
        created = metadata(service).get("creationTimestamp", "")
        times = {name(pod): _changed(pod) for pod in pods}
        known, before = self._seen.get(key, ("", {}))
        self._seen[key] = (created, times)
        changes = [time for pod, time in times.items() if time and time > before.get(pod, "")]
        if created and created > known:
            changes.append(created)
        return min(changes, default="")

    def forget(self, key: NamespacedName) -> None:
        self._seen.pop(key, None)


def _changed(pod: Object) -> str:
    """When the pod became ready or ceased to be."""
    ready = conditions.of(pod, "Ready") or {}
    return str(ready.get("lastTransitionTime") or "")
