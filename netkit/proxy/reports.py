"""What a proxy tells users of: Events on its Node and on Services.

Made once per agent and handed to everything that may have something to say.
"""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.events import WARNING, EventRecorder
from controlplane.errors import Object
from controlplane.resources.catalog import NODE, SERVICE

COMPONENT = "kube-proxy"


class Reports:
    """Records Events in the background; never blocks, never fails. Needs a running loop."""

    def __init__(self, client: Client, node_name: str) -> None:
        self.node: Object = {"metadata": {"name": node_name}}
        """The Node as it was last seen; only its name until then."""
        self._events = EventRecorder(client, COMPONENT, node_name)

    def on_node(self, reason: str, message: str, type_: str = WARNING) -> None:
        """Say something about this node."""
        self._events.event(NODE, self.node, type_, reason, message)

    def on_service(self, namespace: str, name: str, reason: str, message: str) -> None:
        """Warn of something that concerns one Service."""
        service = {"metadata": {"namespace": namespace, "name": name}}
        self._events.event(SERVICE, service, WARNING, reason, message)

    async def close(self) -> None:
        """Drop what is not delivered yet."""
        await self._events.close()
