"""Creating and deleting the pods of a workload, with the events upstream's controllers tell about it.

Shared by ReplicaSets, ReplicationControllers, DaemonSets and Jobs. Decides nothing and retries nothing.
"""

from __future__ import annotations

from controlplane.client.batches import Failure
from controlplane.client.client import Client
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta.objects import name, namespace, uid
from controlplane.resources.catalog import POD
from controlplane.resources.kind import Kind


class PodControl:
    """Acts for owners of one kind; `events` are recorded about them."""

    def __init__(self, client: Client, events: EventRecorder, kind: Kind) -> None:
        self._client = client
        self._events = events
        self._kind = kind

    async def create(self, owner: Object, pod: Object) -> Object:
        """The pod as stored. Raises StatusError."""
        try:
            created = await self._client.create(POD, pod)
        except StatusError as error:
            if not namespace_is_terminating(error):
                self._events.event(self._kind, owner, WARNING, "FailedCreate", f"Error creating: {error}")
            raise
        self._events.event(self._kind, owner, NORMAL, "SuccessfulCreate", f"Created pod: {name(created)}")
        return created

    async def delete(self, owner: Object, pod: Object) -> bool:
        """Begin to delete that very pod; false if it is gone already. Raises StatusError."""
        try:
            await self._client.delete(POD, name(pod), namespace(pod), uid=uid(pod))
        except NotFound:
            return False
        except StatusError as error:
            self._events.event(self._kind, owner, WARNING, "FailedDelete", f"Error deleting: {error}")
            raise
        self._events.event(self._kind, owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {name(pod)}")
        return True


def namespace_is_terminating(error: Failure) -> bool:
    """Whether a create was refused because the namespace goes away: nothing to tell, nothing to retry."""
    return isinstance(error, StatusError) and any(
        cause.reason == "NamespaceTerminating" for cause in error.causes
    )
