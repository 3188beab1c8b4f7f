"""Counts the service ports that nobody here serves under a Local policy, while somebody elsewhere would.

A follower of the family loops; looks only at what each sync changed. Feeds a metric.
"""

from __future__ import annotations

from collections import Counter

from netkit.proxy.addresses import Family
from netkit.proxy.backend import Synced
from netkit.proxy.choice import NodeView, choose
from netkit.proxy.services import ServicePortName
from netkit.proxy.state import ProxyState

INTERNAL, EXTERNAL = "internal", "external"


def unserved_policies(state: ProxyState, name: ServicePortName, node: NodeView) -> frozenset[str]:
    """The traffic policies of one port that drop everything on this node. Pure."""
    port = state.port(name)
    if port is None or not port.uses_local_list:
        return frozenset()
    choice = choose(port, state.endpoints(name), node)
    if choice.local or not choice.has_any:
        return frozenset()
    policies = ((INTERNAL, port.internal_local), (EXTERNAL, port.external_local))
    return frozenset(policy for policy, local in policies if local)


class LocalEndpointCounts:
    """The counts of all families of one node."""

    def __init__(self, node_name: str) -> None:
        # Neither zone nor addresses matter: hints never narrow the local list.
        self._node = NodeView(node_name)
        self._unserved: dict[tuple[Family, ServicePortName], frozenset[str]] = {}

    async def after_sync(self, synced: Synced) -> None:
        """See `Follower`."""
        family = synced.state.family
        for name in synced.changes.removed | synced.changes.updated:
            self._unserved.pop((family, name), None)
            if found := unserved_policies(synced.state, name, self._node):
                self._unserved[family, name] = found
        counted = Counter(
            policy for (of, _), policies in self._unserved.items() if of is family for policy in policies
        )
        synced.metrics.sync_proxy_rules_no_local_endpoints_total = {
            policy: counted[policy] for policy in (INTERNAL, EXTERNAL)
        }
