"""Addresses and node ports of Services: choice, requests, changes of type, races, restarts."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.allocation import ServiceAllocator
from controlplane.apiserver.allocation.cluster_ips import AllocationError, ClusterIPs
from controlplane.apiserver.allocation.node_ports import NodePorts
from controlplane.apiserver.allocation.pool import NumberPool
from controlplane.apiserver.registry import DeleteOptions, PatchType, Registry, WriteOptions
from controlplane.errors import InternalError, Invalid
from controlplane.meta.objects import clone
from controlplane.resources.catalog import KINDS, SERVICE
from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import Change, Write

WRITE = WriteOptions()
RANGE = ipaddress.ip_network("10.96.0.0/12")
SMALL = ipaddress.ip_network("10.0.0.0/29")
SIX = ipaddress.ip_network("fd00:96::/112")


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    made = await start(store)
    yield made
    await made.close()


async def start(store: MemoryStore, *networks: Any, ports: tuple[int, int] = (30000, 32767)) -> Registry:
    registry = Registry(store, KINDS, allocators=[ServiceAllocator(networks or [RANGE], *ports)])
    await registry.start()
    return registry


def service(name: str, *ports: Any, **spec: Any) -> dict[str, Any]:
    listed = [
        port if isinstance(port, dict) else {"port": port, "name": f"p{port}"} for port in ports or (80,)
    ]
    return clone({"metadata": {"name": name}, "spec": {"ports": listed, "selector": {"app": "web"}, **spec}})


async def create(registry: Registry, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    stored = await registry.create(SERVICE, "default", body, WriteOptions(**options))
    return clone(stored.object["spec"])


async def merge(registry: Registry, name: str, spec: dict[str, Any], **options: Any) -> dict[str, Any]:
    stored = await registry.patch(
        SERVICE, "default", name, PatchType.MERGE, {"spec": spec}, WriteOptions(**options)
    )
    return clone(stored.object["spec"])


async def test_a_service_gets_an_address_of_the_upper_range(registry: Registry) -> None:
    spec = await create(registry, service("a"))
    address = ipaddress.ip_address(spec["clusterIP"])
    assert address in RANGE
    assert int(address) - int(RANGE.network_address) > 256
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert "nodePort" not in spec["ports"][0]


async def test_a_requested_address_is_given_once(registry: Registry) -> None:
    spec = await create(registry, service("a", clusterIP="10.96.0.10"))
    assert spec["clusterIPs"] == ["10.96.0.10"]
    with pytest.raises(Invalid) as caught:
        await create(registry, service("b", clusterIP="10.96.0.10"))
    (cause,) = caught.value.causes
    assert cause.field == "spec.clusterIPs"
    assert cause.message.endswith("failed to allocate IP 10.96.0.10: provided IP is already allocated")
    await registry.delete(SERVICE, "default", "a", DeleteOptions())
    await create(registry, service("b", clusterIP="10.96.0.10"))


async def test_addresses_out_of_range_are_refused(registry: Registry) -> None:
    with pytest.raises(
        Invalid,
        match=r"failed to allocate IP 192\.0\.2\.1: the provided IP \(192\.0\.2\.1\) is not in the valid range\. "
        r"The range of valid IPs is 10\.96\.0\.0/12$",
    ):
        await create(registry, service("a", clusterIP="192.0.2.1"))
    for edge in ("10.96.0.0", "10.111.255.255"):
        with pytest.raises(Invalid, match="not in the valid range"):
            await create(registry, service("a", clusterIP=edge))


async def test_headless_and_external_services_get_none(registry: Registry) -> None:
    spec = await create(registry, service("a", clusterIP="None"))
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    spec = await create(registry, service("b", clusterIP="None", selector=None))
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")
    spec = await create(
        registry, service("c", type="ExternalName", externalName="example.com", selector=None)
    )
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & spec.keys()


async def test_node_ports_are_chosen_requested_and_refused(registry: Registry) -> None:
    spec = await create(registry, service("a", type="NodePort"))
    assert 30086 <= spec["ports"][0]["nodePort"] <= 32767
    spec = await create(registry, service("b", {"port": 80, "nodePort": 30080}, type="NodePort"))
    assert spec["ports"][0]["nodePort"] == 30080
    with pytest.raises(Invalid) as caught:
        await create(registry, service("c", {"port": 80, "nodePort": 30080}, type="NodePort"))
    assert str(caught.value) == (
        'Service "c" is invalid: spec.ports[0].nodePort: Invalid value: 30080: '
        "provided port is already allocated"
    )
    with pytest.raises(
        Invalid,
        match=r"spec\.ports\[0\]\.nodePort: Invalid value: 80: provided port is not in the valid range\. "
        r"The range of valid ports is 30000-32767$",
    ):
        await create(registry, service("c", {"port": 80, "nodePort": 80}, type="NodePort"))


async def test_one_number_for_tcp_and_udp_shares_a_node_port(registry: Registry) -> None:
    ports = [
        {"port": 53, "name": "tcp", "protocol": "TCP"},
        {"port": 53, "name": "udp", "protocol": "UDP"},
        {"port": 54, "name": "other"},
    ]
    spec = await create(registry, service("a", *ports, type="NodePort"))
    given = [port["nodePort"] for port in spec["ports"]]
    assert given[0] == given[1] != given[2]
    ports[1]["nodePort"] = 30053
    spec = await create(registry, service("b", *ports, type="NodePort"))
    assert [port["nodePort"] for port in spec["ports"][:2]] == [30053, 30053]


async def test_a_refused_service_holds_nothing(registry: Registry) -> None:
    await create(registry, service("a", {"port": 80, "nodePort": 30080}, type="NodePort"))
    two = ({"port": 1, "name": "x", "nodePort": 30001}, {"port": 2, "name": "y", "nodePort": 30080})
    with pytest.raises(Invalid):
        await create(registry, service("b", *two, type="NodePort", clusterIP="10.96.0.20"))
    await create(registry, service("b", two[0], type="NodePort", clusterIP="10.96.0.20"))


async def test_dry_runs_and_lost_names_hold_nothing(registry: Registry) -> None:
    wanted = {"clusterIP": "10.96.0.20", "type": "NodePort"}
    port = {"port": 80, "nodePort": 30080}
    await create(registry, service("a", port, **wanted), dry_run=True)
    await create(registry, service("taken"))
    with pytest.raises(Exception, match="already exists"):
        await create(registry, service("taken", port, **wanted))
    await create(registry, service("a", port, **wanted))


async def test_changes_of_type_take_and_free(registry: Registry) -> None:
    spec = await create(registry, service("a", {"port": 80, "nodePort": 30080}, type="NodePort"))
    address = spec["clusterIP"]
    with pytest.raises(Invalid):
        await create(registry, service("b", {"port": 80, "nodePort": 30080}, type="NodePort"))
    spec = await merge(registry, "a", {"type": "ClusterIP"})
    assert (spec["clusterIP"], "nodePort" in spec["ports"][0]) == (address, False)
    await create(registry, service("b", {"port": 80, "nodePort": 30080}, type="NodePort"))
    spec = await merge(registry, "a", {"type": "ExternalName", "externalName": "example.com"})
    assert not spec.get("clusterIP")
    await create(registry, service("c", clusterIP=address))
    spec = await merge(registry, "a", {"type": "LoadBalancer", "externalName": None})
    assert spec["clusterIP"] not in ("", address)
    assert spec["ports"][0]["nodePort"]


async def test_ports_added_and_removed_by_updates(registry: Registry) -> None:
    spec = await create(registry, service("a", 80, type="NodePort"))
    kept = spec["ports"][0]["nodePort"]
    added = {"port": 81, "name": "more", "nodePort": 30081}
    spec = await merge(registry, "a", {"ports": [*spec["ports"], added]})
    assert [port["nodePort"] for port in spec["ports"]] == [kept, 30081]
    with pytest.raises(Invalid):
        await create(registry, service("b", {"port": 80, "nodePort": 30081}, type="NodePort"))
    await merge(registry, "a", {"ports": spec["ports"][:1]}, dry_run=True)
    with pytest.raises(Invalid):
        await create(registry, service("b", {"port": 80, "nodePort": 30081}, type="NodePort"))
    await merge(registry, "a", {"ports": spec["ports"][:1]})
    await create(registry, service("b", {"port": 80, "nodePort": 30081}, type="NodePort"))
    with pytest.raises(Invalid, match="already allocated"):
        await merge(registry, "a", {"ports": [*spec["ports"][:1], added]})


async def test_the_health_check_has_a_port_of_its_own(registry: Registry) -> None:
    local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    spec = await create(registry, service("a", **local))
    assert spec["healthCheckNodePort"] not in (0, spec["ports"][0]["nodePort"])
    with pytest.raises(InternalError, match="failed to allocate requested HealthCheck NodePort"):
        await create(registry, service("b", **local, healthCheckNodePort=spec["healthCheckNodePort"]))
    spec = await create(registry, service("c", type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in spec["ports"][0]


async def test_what_is_stored_stays_taken_after_a_restart(registry: Registry, store: MemoryStore) -> None:
    spec = await create(registry, service("a", type="NodePort"))
    await registry.close()
    restarted = await start(store)
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await create(restarted, service("b", clusterIP=spec["clusterIP"]))
    taken = {"port": 80, "nodePort": spec["ports"][0]["nodePort"]}
    with pytest.raises(Invalid, match="provided port is already allocated"):
        await create(restarted, service("b", taken, type="NodePort"))
    await restarted.close()


async def test_nothing_is_given_twice_under_concurrency_and_the_range_runs_full(store: MemoryStore) -> None:
    registry = await start(store, SMALL, ports=(30000, 30009))
    outcomes = await asyncio.gather(
        *(create(registry, service(f"s{number}", type="NodePort")) for number in range(12)),
        return_exceptions=True,
    )
    specs = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    faults = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len({spec["clusterIP"] for spec in specs}) == len(specs) == 6
    assert len({spec["ports"][0]["nodePort"] for spec in specs}) == 6
    assert all(isinstance(fault, InternalError) for fault in faults)
    assert "failed to allocate a serviceIP: range is full" in str(faults[0])
    await registry.delete(SERVICE, "default", "s0", DeleteOptions())
    await create(registry, service("again"))
    await registry.close()


class HeldStore(MemoryStore):
    """Commits go on when released and, as with a writer thread, whether their caller still waits or not."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.commits: list[asyncio.Task[Sequence[Change]]] = []

    async def commit(self, writes: Sequence[Write]) -> Sequence[Change]:
        self.commits.append(asyncio.create_task(self._commit(writes)))
        self.entered.set()
        return await asyncio.shield(self.commits[-1])

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Change]:
        await self.release.wait()
        return await super().commit(writes)


async def test_values_of_a_cancelled_create_belong_to_what_was_stored() -> None:
    store = HeldStore()
    registry = await start(store, SMALL)
    task = asyncio.create_task(create(registry, service("a", clusterIP="10.0.0.3")))
    await store.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        with pytest.raises(Invalid, match="already allocated"):
            await create(registry, service("b", clusterIP="10.0.0.3"))
    store.release.set()
    await store.commits[0]
    with pytest.raises(Invalid, match="already allocated"):
        await create(registry, service("b", clusterIP="10.0.0.3"))
    await registry.delete(SERVICE, "default", "a", DeleteOptions())
    await create(registry, service("b", clusterIP="10.0.0.3"))
    await registry.close()
    await store.close()


async def test_chosen_values_of_refused_services_are_free_again(store: MemoryStore) -> None:
    registry = await start(store, SMALL, ports=(30000, 30005))
    ports = ({"port": 1, "name": "x"}, {"port": 2, "name": "y", "nodePort": 80})
    for _ in range(20):
        with pytest.raises(Invalid, match="not in the valid range"):
            await create(registry, service("bad", *ports, type="NodePort"))
    for number in range(6):
        await create(registry, service(f"s{number}", type="NodePort"))
    await registry.close()


async def test_families_a_cluster_has_no_range_of_are_refused(registry: Registry) -> None:
    with pytest.raises(
        Invalid, match=r'spec\.ipFamilies\[0\]: Invalid value: "IPv6": not configured on this cluster'
    ):
        await create(registry, service("a", ipFamilies=["IPv6"]))
    with pytest.raises(Invalid, match="this cluster is not configured for dual-stack services"):
        await create(registry, service("a", ipFamilyPolicy="RequireDualStack"))
    spec = await create(registry, service("a", ipFamilyPolicy="PreferDualStack"))
    assert spec["ipFamilies"] == ["IPv4"]


async def test_two_ranges_make_dual_stack_services(store: MemoryStore) -> None:
    registry = await start(store, RANGE, SIX)
    spec = await create(registry, service("a", ipFamilyPolicy="RequireDualStack"))
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert [ipaddress.ip_address(ip).version for ip in spec["clusterIPs"]] == [4, 6]
    spec = await create(registry, service("b", ipFamilies=["IPv6"]))
    assert ipaddress.ip_address(spec["clusterIP"]) in SIX
    await registry.close()


def test_the_lower_band_is_chosen_last() -> None:
    addresses = ClusterIPs(ipaddress.ip_network("10.0.0.0/24"), random.Random(1))
    chosen = [int(addresses.allocate_next()) & 255 for _ in range(254)]
    assert sorted(chosen) == list(range(1, 255))
    assert min(chosen[:238]) > 16
    assert set(chosen[238:]) == set(range(1, 17))
    with pytest.raises(AllocationError, match="range is full"):
        addresses.allocate_next()


def test_node_ports_leave_a_band_as_well() -> None:
    ports = NodePorts(rng=random.Random(1))
    assert min(ports.allocate_next() for _ in range(2000)) >= 30086


@given(st.integers(1, 60), st.integers(0, 20), st.lists(st.integers(-60, 60), max_size=120), st.randoms())
def test_a_pool_never_gives_a_number_twice(
    size: int, static: int, steps: list[int], rng: random.Random
) -> None:
    """Steps: 0 = choose, positive = take, negative = free."""
    pool, taken = NumberPool(size, static, rng), set()
    for step in steps:
        number = abs(step) - 1
        if step == 0:
            chosen = pool.choose()
            assert (chosen is None) == (len(taken) == size)
            if chosen is not None:
                assert 0 <= chosen < size
                assert chosen not in taken
                taken.add(chosen)
        elif number >= size:
            continue
        elif step > 0:
            assert pool.take(number) == (number not in taken)
            taken.add(number)
        else:
            pool.free(number)
            taken.discard(number)
    assert len(pool) == len(taken)
