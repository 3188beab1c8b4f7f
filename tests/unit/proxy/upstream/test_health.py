"""The health servers' answers, step by step as in upstream's `TestHealthzServer`, `TestLivezServer` and `TestServer`
(pkg/proxy/healthcheck/healthcheck_test.go).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.proxy import Object, endpoint, slice_of
from unit.proxy.upstream.world import NODE, balanced, tcp

from netkit.proxy.addresses import Family
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.health.service_health import ServiceHealth, health_body
from netkit.proxy.state import ProxyState

TIMEOUT, LATE, SOON = 10.0, 25.0, 5.0
V4, V6 = Family.IPV4, Family.IPV6


class Proxy:
    """A proxy's health with a clock that can be moved on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        self.health = ProxyHealth(
            TIMEOUT, lambda: self.seconds, lambda: begin + timedelta(seconds=self.seconds)
        )
        self.node()

    def step(self, seconds: float) -> None:
        self.seconds += seconds

    def node(self, *taints: str, deleted: bool = False) -> None:
        metadata: Object = {"name": NODE}
        if deleted:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.health.node_seen({"metadata": metadata, "spec": {"taints": [{"key": key} for key in taints]}})

    def updated(self, *families: Family) -> None:
        for family in families:
            self.health.updated(family)

    def queued(self, *families: Family) -> None:
        for family in families:
            self.health.queued(family)


@pytest.mark.parametrize("page", ["healthz", "livez"])
def test_late_changes_of_either_family(page: str) -> None:
    proxy = Proxy()

    def ok() -> bool:
        answer: Any = getattr(proxy.health, page)()
        assert answer.body["healthy"] == answer.healthy
        return bool(answer.healthy)

    assert ok(), "by default"
    proxy.updated(V4, V6)
    assert ok()
    proxy.step(LATE)
    assert ok(), "nothing is queued"
    for late in ([V4], [V6], [V4, V6]):
        proxy.queued(*late)
        proxy.step(LATE)
        assert not ok(), late
        proxy.updated(V4, V6)
        proxy.step(SOON)
        assert ok(), late
    proxy.queued(V6)
    proxy.step(LATE)
    assert not ok()
    proxy.updated(V4)
    assert not ok(), "the other family's update"
    proxy.updated(V6)
    assert ok()
    proxy.queued(V4, V6)
    proxy.step(LATE)
    assert not ok()
    proxy.updated(V4)
    assert not ok()
    proxy.updated(V6)
    assert ok()


def test_what_becomes_of_the_node_concerns_healthz_only() -> None:
    proxy = Proxy()
    proxy.updated(V4, V6)
    for taints, deleted, expected in (
        (("other",), False, True),
        (("ToBeDeletedByClusterAutoscaler",), False, False),
        (("other",), False, True),
        ((), True, False),
    ):
        proxy.node(*taints, deleted=deleted)
        answer = proxy.health.healthz()
        assert answer.healthy == answer.body["nodeEligible"] == expected
        assert answer.body["healthy"], "of the proxy, not of the node"
        assert proxy.health.livez().healthy
        assert "nodeEligible" not in proxy.health.livez().body


class Services:
    """The health ports of Services, fed by objects as their names, ports and numbers of local endpoints."""

    def __init__(self) -> None:
        self.state = ProxyState(V4)
        self.health = ServiceHealth(NODE)
        self.known: set[str] = set()

    def take(self, wanted: dict[str, tuple[int, int]]) -> None:
        """Now there are these Services: their health port, and how many of their endpoints are here."""
        for name in self.known - set(wanted):
            self.state.delete_service(*name.split("/"))
        for index, (name, (port, count)) in enumerate(sorted(wanted.items())):
            self.state.upsert_service(self._service(name, index, port))
            pods = [endpoint(f"10.0.{index}.{number + 1}", NODE) for number in range(count)]
            self.state.upsert_slice(slice_of(name, *pods, endpoint(f"10.9.{index}.1", "elsewhere")))
        self.known = set(wanted)
        self.health.take(self.state, self.state.collect())
        self.state.mark_synced()

    @staticmethod
    def _service(name: str, index: int, port: int) -> Object:
        spec = {"externalTrafficPolicy": "Local", "healthCheckNodePort": port}
        return balanced(name, f"172.30.1.{index + 1}", tcp(80, 30000 + index), "1.2.3.4", **spec)

    def answers(self) -> dict[str, tuple[int, int]]:
        """What the servers say: their ports and counts."""
        return {
            "/".join(service): (port, self.health.local_endpoints(service))
            for service, port in self.health.ports().items()
        }


def test_servers_of_services_come_and_go() -> None:
    services = Services()
    for wanted in (
        {},
        {"a/b": (9376, 0)},
        {"a/b": (9376, 18)},
        {"a/b": (9376, 0)},
        {"a/b": (9376, 11)},
        {"a/b": (9376, 0)},
        {"a/b": (9376, 18)},
        {},
        {"a/b": (9376, 0), "c/d": (12909, 0), "e/f": (11113, 0)},
        {"a/b": (9376, 9), "c/d": (12909, 3), "e/f": (11113, 7)},
        # One removed, one left, one on another port, one added.
        {"c/d": (12909, 3), "e/f": (11114, 7), "g/h": (11878, 6)},
        {"c/d": (12909, 0), "e/f": (11114, 7), "g/h": (11878, 6)},
    ):
        services.take(wanted)
        assert services.answers() == wanted


@pytest.mark.parametrize(("count", "healthy"), [(0, True), (7, True), (7, False)])
def test_body_of_a_service(count: int, healthy: bool) -> None:
    assert json.loads(health_body(("a", "b"), count, proxy_healthy=healthy)) == {
        "service": {"namespace": "a", "name": "b"},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
