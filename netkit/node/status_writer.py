"""Writes one pod's status to the API, only what changed, and deletes the pod when it has ended. Used by
`worker`.
"""

from __future__ import annotations

import logging

from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Conflict, NotFound, Object, StatusError
from controlplane.meta import objects
from controlplane.resources.catalog import POD
from netkit.node.lifecycle.status import OWN_CONDITIONS, changes

log = logging.getLogger(__name__)


class StatusWriter:
    """Remembers what the API has. `gone` is set once the pod is no longer there under its uid."""

    def __init__(self, client: Client, pod: Object) -> None:
        self._client = client
        self._pod = pod
        self._written: Object = dict(pod.get("status") or {})
        self._revision = objects.resource_version(pod)
        self.gone = False

    def base(self, pod: Object) -> Object:
        """`pod` with the status to build on: our own words as last written, others' conditions as they are.

        A pod newer than our last write holds that write and what others made of it since (the node controller
        takes Ready away from the pods of a node it takes for lost): what differs from ours is written again.
        """
        self._pod = pod
        status = pod.get("status") or {}
        if objects.resource_version(pod) > self._revision:
            self._revision = objects.resource_version(pod)
            self._written = dict(status)
        own = [c for c in self._written.get("conditions") or () if c.get("type") in OWN_CONDITIONS]
        foreign = [c for c in status.get("conditions") or () if c.get("type") not in OWN_CONDITIONS]
        return {**pod, "status": {**status, **self._written, "conditions": own + foreign}}

    @property
    def written(self) -> Object:
        """The status as last read or written."""
        return self._written

    async def write(self, status: Object) -> bool:
        """Bring the API to `status`. False when it has to be tried again."""
        difference = changes(self._written, status)
        if not difference or self.gone:
            return True
        metadata: Object = {"uid": objects.uid(self._pod)}
        if any(c["type"] not in OWN_CONDITIONS for c in status.get("conditions") or ()):
            # A list is replaced as a whole: do not undo another writer's condition.
            metadata["resourceVersion"] = self._pod["metadata"].get("resourceVersion")
        patch = {"metadata": metadata, "status": difference}
        name, namespace = objects.name(self._pod), objects.namespace(self._pod)
        try:
            stored = await self._client.patch(POD, name, patch, namespace, subresource="status")
        except NotFound:
            self.gone = True
            return True
        except Conflict:
            return await self._reload(name, namespace)
        except (StatusError, ConnectionFailed) as error:
            log.warning("%s/%s: status not written: %s", namespace, name, error)
            return False
        # What we left out because we knew of no change may be changed: others write conditions too.
        self._written = dict(stored.get("status") or {})
        self._revision = objects.resource_version(stored)
        return True

    async def delete(self) -> bool:
        """Take the pod out of the API for good. False when it has to be tried again."""
        metadata = self._pod["metadata"]
        try:
            await self._client.delete(
                POD, metadata["name"], metadata["namespace"], grace=0, uid=objects.uid(self._pod)
            )
        except (NotFound, Conflict):
            self.gone = True
        except (StatusError, ConnectionFailed) as error:
            log.warning("%s: not deleted: %s", objects.namespaced_name(self._pod), error)
            return False
        return True

    async def _reload(self, name: str, namespace: str) -> bool:
        try:
            current = await self._client.get(POD, name, namespace)
        except NotFound:
            self.gone = True
            return True
        except (StatusError, ConnectionFailed):
            return False
        if objects.uid(current) != objects.uid(self._pod):
            self.gone = True
            return True
        self._pod = current
        return False
