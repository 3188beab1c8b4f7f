"""Packing endpoints into slices: complete, within capacity, and with as few writes as can be."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from controlplane.controllers.endpoints.packing import Packing, pack
from controlplane.controllers.endpoints.slices import port_key, service_template
from controlplane.errors import Object
from controlplane.meta.objects import clone, name

SERVICE: Object = {
    "metadata": {"name": "web", "namespace": "default", "uid": "s1"},
    "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}},
}
PORTS = [{"name": "", "port": 80, "protocol": "TCP"}]
OTHER = [{"name": "", "port": 81, "protocol": "TCP"}]


def endpoint(number: int, ready: bool = True) -> Object:
    return {
        "addresses": [f"10.244.{number // 250}.{number % 250}"],
        "conditions": {"ready": ready},
        "targetRef": {"uid": str(number)},
    }


def groups(numbers, ports=PORTS):
    return {port_key(ports): (ports, [endpoint(number) for number in numbers])}


class Store:
    """Applies packings and counts writes."""

    def __init__(self) -> None:
        self.slices: dict[str, Object] = {}
        self._names = itertools.count()

    def apply(self, packing: Packing) -> int:
        for each in packing.create:
            stored = clone(each)
            stored["metadata"]["name"] = f"web-{next(self._names):03}"
            self.slices[name(stored)] = stored
        for each in packing.update:
            self.slices[name(each)] = clone(each)
        for each in packing.delete:
            del self.slices[name(each)]
        return len(packing.create) + len(packing.update) + len(packing.delete)

    def sync(self, wanted, capacity: int = 100) -> int:
        return self.apply(
            pack(service_template(SERVICE), "IPv4", list(self.slices.values()), wanted, capacity)
        )

    def addresses(self) -> list[str]:
        return sorted(
            address for each in self.slices.values() for e in each["endpoints"] for address in e["addresses"]
        )


def test_no_endpoints_still_have_a_slice() -> None:
    store = Store()
    assert store.sync({}) == 1
    [only] = store.slices.values()
    assert only["endpoints"] == []
    assert only["ports"] == []
    assert only["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert store.sync({}) == 0


def test_the_empty_slice_is_reused_and_comes_back() -> None:
    store = Store()
    store.sync({})
    assert store.sync(groups([1])) == 1
    assert len(store.slices) == 1
    assert store.sync({}) == 1
    assert len(store.slices) == 1


def test_a_hundred_per_slice() -> None:
    store = Store()
    store.sync(groups(range(250)))
    assert sorted(len(each["endpoints"]) for each in store.slices.values()) == [50, 100, 100]
    assert store.sync(groups(range(250))) == 0
    assert store.sync(groups(range(251))) == 1, "the slice with room takes it"
    assert store.sync(groups(range(1, 252))) == 1, "one goes, one comes: in the slice that changes anyway"


def test_a_changed_condition_touches_one_slice() -> None:
    store = Store()
    store.sync(groups(range(250)))
    wanted = groups(range(250))
    wanted[port_key(PORTS)][1][7]["conditions"] = {"ready": False}
    assert store.sync(wanted) == 1


def test_new_labels_of_the_service_reach_all_slices() -> None:
    store = Store()
    store.sync(groups(range(150)))
    service = clone(SERVICE)
    service["metadata"]["labels"] = {"team": "a"}
    packing = pack(service_template(service), "IPv4", list(store.slices.values()), groups(range(150)))
    assert len(packing.update) == 2
    assert all(each["metadata"]["labels"] == service_template(service).labels for each in packing.update)


def test_different_ports_are_apart() -> None:
    store = Store()
    store.sync({**groups([1, 2]), **groups([3], OTHER)})
    assert sorted((each["ports"][0]["port"], len(each["endpoints"])) for each in store.slices.values()) == [
        (80, 2),
        (81, 1),
    ]


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.sets(st.integers(31, 40))), min_size=1, max_size=8))
def test_every_state_is_reached_and_then_stable(steps) -> None:
    store = Store()
    for first, second in steps:
        wanted = {}
        if first:
            wanted.update(groups(sorted(first)))
        if second:
            wanted.update(groups(sorted(second), OTHER))
        store.sync(wanted, capacity=5)
        expected = sorted(address for number in first | second for address in endpoint(number)["addresses"])
        assert store.addresses() == expected
        assert all(len(each["endpoints"]) <= 5 for each in store.slices.values())
        assert all(each["endpoints"] for each in store.slices.values()) or not expected
        assert store.slices
        assert store.sync(wanted, capacity=5) == 0
