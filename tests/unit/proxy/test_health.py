"""Health of the proxy, and of Services with local endpoints, without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.proxy import Object, draining, endpoint, feed, service, slice_of, unready

from netkit.proxy.addresses import Family
from netkit.proxy.health.proxy_health import ZERO_TIME, ProxyHealth, go_time
from netkit.proxy.health.service_health import ServiceHealth, health_body
from netkit.proxy.state import ProxyState

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NODE: Object = {"metadata": {"name": "here"}, "spec": {}}


@dataclass
class Clock:
    """Both clocks a proxy has, in step."""

    passed: float = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.passed)


@dataclass
class Setup:
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.health = ProxyHealth(60, self.clock.monotonic, self.clock.now)
        self.health.node_seen(NODE)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_proxy_that_starts_is_healthy_for_a_while_and_for_ever(setup: Setup) -> None:
    setup.health.queued(Family.IPV4)
    setup.clock.passed = 10_000
    answer = setup.health.healthz()
    assert answer.healthy
    assert "status" not in answer.body


def test_idle_for_hours_is_healthy(setup: Setup) -> None:
    setup.health.queued(Family.IPV4)
    setup.health.updated(Family.IPV4)
    setup.clock.passed = 36_000
    assert setup.health.livez().healthy
    assert setup.health.livez().body["lastUpdated"] == go_time(setup.clock.now()), "the present, when healthy"
    assert setup.health.livez().body["status"] == {
        "IPv4": {"lastUpdated": "2026-01-01T00:00:00Z", "healthy": True}
    }


def test_the_oldest_waiting_change_counts(setup: Setup) -> None:
    setup.health.updated(Family.IPV4)
    setup.health.queued(Family.IPV4)
    setup.clock.passed = 59
    setup.health.queued(Family.IPV4)
    assert setup.health.healthy
    setup.clock.passed = 60
    assert not setup.health.healthy
    answer = setup.health.livez()
    assert not answer.healthy
    assert answer.body == {
        "lastUpdated": "2026-01-01T00:00:00Z",
        "currentTime": "2026-01-01T00:01:00Z",
        "healthy": False,
        "status": {"IPv4": {"lastUpdated": "2026-01-01T00:00:00Z", "healthy": False}},
    }
    setup.health.updated(Family.IPV4)
    assert setup.health.healthy


def test_a_change_that_came_while_a_sync_ran_waits_from_then_on(setup: Setup) -> None:
    setup.health.queued(Family.IPV4)
    setup.clock.passed = 50
    setup.health.updated(Family.IPV4, waiting=True)
    setup.clock.passed = 109
    assert setup.health.healthy
    setup.clock.passed = 110
    assert not setup.health.healthy


def test_families_are_judged_apart(setup: Setup) -> None:
    for family in Family:
        setup.health.updated(family)
        setup.health.queued(family)
    setup.clock.passed = 70
    setup.health.updated(Family.IPV4)
    answer = setup.health.livez()
    assert not answer.healthy
    status = answer.body["status"]
    assert {family: found["healthy"] for family, found in status.items()} == {"IPv4": True, "IPv6": False}
    assert answer.body["lastUpdated"] == "2026-01-01T00:01:10Z", "the latest of all families"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (NODE, True),
        ({**NODE, "spec": {"taints": [{"key": "node.kubernetes.io/unreachable"}]}}, True),
        ({**NODE, "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}}, False),
        ({"metadata": {"name": "here", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
        (None, False),
    ],
)
def test_a_node_on_its_way_out_gets_no_traffic_but_its_proxy_lives(
    setup: Setup, node: Object | None, expected: bool
) -> None:
    setup.health.node_seen(node)
    answer = setup.health.healthz()
    assert answer.healthy is expected
    assert answer.body["nodeEligible"] is expected
    assert answer.body["healthy"] is True, "this is about the rules"
    assert setup.health.livez().healthy
    assert "nodeEligible" not in setup.health.livez().body


def test_order_of_the_document(setup: Setup) -> None:
    setup.health.updated(Family.IPV6)
    setup.health.updated(Family.IPV4)
    body = setup.health.healthz().body
    assert list(body) == ["lastUpdated", "currentTime", "nodeEligible", "healthy", "status"]
    assert list(body["status"]) == ["IPv4", "IPv6"]


def test_an_ineligible_node_shows_no_time_before_the_first_sync(setup: Setup) -> None:
    setup.health.node_seen(None)
    assert setup.health.healthz().body["lastUpdated"] == ZERO_TIME


@pytest.mark.parametrize(
    ("microseconds", "text"), [(0, ""), (500_000, ".5"), (123_456, ".123456"), (10, ".00001")]
)
def test_times_are_gos(microseconds: int, text: str) -> None:
    assert go_time(BEGIN.replace(microsecond=microseconds)) == f"2026-01-01T00:00:00{text}Z"


# Services

PORTS = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
LOCAL: dict[str, Any] = {
    "type": "LoadBalancer",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 32000,
}
WEB = ("ns1", "web")


class Services:
    """One family's state and what the health servers know of it."""

    def __init__(self) -> None:
        self.state = ProxyState(Family.IPV4)
        self.health = ServiceHealth("here")

    def have(self, *objects: Object) -> bool:
        """Whether servers have to be opened or closed."""
        feed(self.state, *objects)
        concerned = self.health.take(self.state, self.state.collect())
        self.state.mark_synced()
        return concerned


def web(**spec: Any) -> Object:
    return service("ns1/web", ports=PORTS, **{**LOCAL, **spec})


def behind(*endpoints: Object | str, suffix: str = "a") -> Object:
    return slice_of("ns1/web", *endpoints, ports=PORTS, suffix=suffix)


def test_local_ready_addresses_are_counted_once() -> None:
    services = Services()
    services.have(
        web(),
        behind(
            endpoint("10.0.0.1", "here"),
            endpoint("10.0.0.2", "here"),
            endpoint("10.0.0.3", "there"),
            "10.0.0.4",
            unready("10.0.0.5", "here"),
            draining("10.0.0.6", "here"),
        ),
    )
    assert services.health.ports() == {WEB: 32000}
    assert services.health.local_endpoints(WEB) == 2
    assert not services.have(behind(endpoint("10.0.0.7", "here"), suffix="b"))
    assert services.health.local_endpoints(WEB) == 3
    services.have(behind(draining("10.0.0.1", "here")))
    assert services.health.local_endpoints(WEB) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"externalTrafficPolicy": "Cluster"},
        {"type": "NodePort"},
        {"healthCheckNodePort": 0},
    ],
)
def test_only_balanced_services_with_local_policy_have_a_server(spec: dict[str, Any]) -> None:
    services = Services()
    services.have(web(), behind(endpoint("10.0.0.1", "here")))
    assert services.have(web(**spec))
    assert services.health.ports() == {}
    assert services.health.local_endpoints(WEB) == 0


def test_a_deleted_service_is_forgotten() -> None:
    services = Services()
    services.have(web(), service("ns2/other", "172.30.0.42", **{**LOCAL, "healthCheckNodePort": 32001}))
    services.state.delete_service("ns1", "web")
    assert services.have()
    assert services.health.ports() == {("ns2", "other"): 32001}


def test_another_port_number() -> None:
    services = Services()
    services.have(web(), behind(endpoint("10.0.0.1", "here")))
    assert services.have(web(healthCheckNodePort=32005))
    assert services.health.ports() == {WEB: 32005}
    assert services.health.local_endpoints(WEB) == 1


def test_a_port_that_goes_takes_only_its_endpoints_along() -> None:
    services = Services()
    services.have(web(), behind(endpoint("10.0.0.1", "here")))
    services.have(service("ns1/web", ports=PORTS[:1], **LOCAL))
    assert services.health.ports() == {WEB: 32000}
    assert services.health.local_endpoints(WEB) == 1


def test_the_document_of_a_service() -> None:
    text = health_body(WEB, 2, proxy_healthy=True)
    assert json.loads(text) == {
        "service": {"namespace": "ns1", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }
    assert text.startswith('{\n\t"service": {\n\t\t"namespace": "ns1",')
    assert text.endswith("}")
    assert json.loads(health_body(WEB, 0, proxy_healthy=False))["serviceProxyHealthy"] is False
