"""Health of the proxy itself: do changes reach the kernel in time, and shall this node get traffic at all?

Fed by the family loops and the agent, asked by the health server and by the Services' health servers. Pure: told
the time by its clocks. Semantics and JSON of kube-proxy 1.33 (`pkg/proxy/healthcheck/proxy_health.go`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.timestamps import utc_now
from netkit.proxy.addresses import Family

TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
ZERO_TIME = "0001-01-01T00:00:00Z"
"""How Go writes a time that was never set."""


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """What a probe gets: whether all is well, and the JSON document that says why."""

    healthy: bool
    body: dict[str, Any]


class ProxyHealth:
    """Health of all families of one proxy.

    A family is late when a change has waited for longer than `timeout` seconds. One whose loop has not begun is not
    judged yet, and one that has nothing to do is healthy for ever.
    """

    def __init__(
        self,
        timeout: float,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._timeout = timeout
        self._monotonic = monotonic
        self._now = now
        self._updated: dict[Family, datetime] = {}
        self._waiting_since: dict[Family, float] = {}
        self._eligible = True

    def queued(self, family: Family) -> None:
        """A change of `family` waits to be written."""
        self._waiting_since.setdefault(family, self._monotonic())

    def updated(self, family: Family, *, waiting: bool = False) -> None:
        """All that was known when a sync began is written, or the loop begins; `waiting`: more is to be written."""
        self._updated[family] = self._now()
        self._waiting_since.pop(family, None)
        if waiting:
            self.queued(family)

    def node_seen(self, node: Object | None) -> None:
        """The Node as it is now, None when there is none (any more)."""
        self._eligible = node is not None and eligible(node)

    @property
    def healthy(self) -> bool:
        """Whether no family is late."""
        return not any(self._late(family) for family in self._updated)

    def livez(self) -> HealthAnswer:
        """What /livez says: is the proxy at work?"""
        return self._answer(self.healthy, {})

    def healthz(self) -> HealthAnswer:
        """What /healthz says: is it, and is the node to stay?"""
        return self._answer(self.healthy and self._eligible, {"nodeEligible": self._eligible})

    def _late(self, family: Family) -> bool:
        since = self._waiting_since.get(family)
        return since is not None and self._monotonic() - since >= self._timeout

    def _answer(self, healthy: bool, node: dict[str, Any]) -> HealthAnswer:
        """`lastUpdated` of a healthy proxy is the present: balancers of old compare it with the clock."""
        now = self._now()
        last = now if healthy else max(self._updated.values(), default=None)
        body = {
            "lastUpdated": ZERO_TIME if last is None else go_time(last),
            "currentTime": go_time(now),
            **node,
            "healthy": self.healthy,
        }
        if self._updated:
            body["status"] = {
                str(family): {"lastUpdated": go_time(moment), "healthy": not self._late(family)}
                for family, moment in sorted(self._updated.items())
            }
        return HealthAnswer(healthy, body)


def eligible(node: Object) -> bool:
    """Whether balancers may send traffic to `node`: neither on its way out nor marked for that by the autoscaler."""
    if dig(node, "metadata", "deletionTimestamp", default=None):
        return False
    taints = dig(node, "spec", "taints", default=None) or ()
    return not any(taint.get("key") == TO_BE_DELETED_TAINT for taint in taints)


def go_time(moment: datetime) -> str:
    """RFC 3339 as Go marshals it: fractions without trailing zeros."""
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
