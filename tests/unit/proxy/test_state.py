"""Change tracking: what counts as a change, and that any order of events ends in the same state."""

from hypothesis import given
from hypothesis import strategies as st
from support.proxy import Object, endpoint, feed, service, slice_of, state_of

from netkit.proxy.addresses import Family
from netkit.proxy.services import ServicePortName
from netkit.proxy.state import LAST_CHANGE_ANNOTATION, ProxyState


def targets(state: ProxyState) -> dict[str, list[str]]:
    return {port.name.text: [item.target for item in state.endpoints(port.name)] for port in state.ports()}


def texts(names: frozenset[ServicePortName]) -> set[str]:
    return {name.text for name in names}


def test_a_new_service_is_an_update_until_it_is_synced() -> None:
    state = ProxyState(Family.IPV4)
    feed(state, service(), slice_of("ns1/svc1", "10.0.0.1"))
    assert state.pending
    assert texts(state.collect().updated) == {"ns1/svc1:p80"}
    assert texts(state.collect().updated) == {"ns1/svc1:p80"}, "not synced yet"
    state.mark_synced()
    assert not state.pending
    assert not state.collect()


def test_the_same_object_again_is_no_change() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    state.mark_synced()
    feed(state, service(selector={"app": "other"}), slice_of("ns1/svc1", "10.0.0.1"))
    assert not state.pending


def test_a_change_that_leaves_the_merged_endpoints_alone_is_none() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1", "10.0.0.2"))
    state.mark_synced()
    feed(state, slice_of("ns1/svc1", "10.0.0.2", suffix="b"))
    assert state.pending
    assert not state.collect()


def test_one_changed_slice_touches_one_service() -> None:
    objects = []
    for index in range(50):
        name = f"ns1/svc{index}"
        objects += [service(name, f"172.30.1.{index}"), slice_of(name, f"10.0.1.{index}")]
    state = state_of(*objects)
    state.mark_synced()
    feed(state, slice_of("ns1/svc7", "10.0.9.9"))
    assert texts(state.collect().updated) == {"ns1/svc7:p80"}


def test_a_removed_service_and_a_removed_port() -> None:
    two = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    state = state_of(
        service(ports=two), slice_of("ns1/svc1", "10.0.0.1", ports=[{"name": "a", "port": 8080}])
    )
    state.mark_synced()
    feed(state, service(ports=two[:1]))
    changes = state.collect()
    assert (texts(changes.updated), texts(changes.removed)) == (set(), {"ns1/svc1:b"})
    state.mark_synced()
    state.delete_service("ns1", "svc1")
    assert texts(state.collect().removed) == {"ns1/svc1:a"}
    assert state.endpoint_count == 0


def test_endpoints_wait_for_their_service_and_port() -> None:
    state = state_of(slice_of("ns1/svc1", "10.0.0.1"))
    assert not state.collect()
    feed(state, service(ports=[{"name": "other", "port": 80}]))
    state.collect()
    assert targets(state) == {"ns1/svc1:other": []}
    feed(state, service())
    state.collect()
    assert targets(state) == {"ns1/svc1:p80": ["10.0.0.1:80"]}


def test_protocols_must_match() -> None:
    udp = [{"name": "p80", "port": 80, "protocol": "UDP"}]
    assert targets(state_of(service(), slice_of("ns1/svc1", "10.0.0.1", ports=udp))) == {"ns1/svc1:p80": []}


def test_a_slice_that_moves_to_another_service_takes_its_endpoints_along() -> None:
    first, second = service("ns1/svc1"), service("ns1/svc2", "172.30.0.42")
    moved = slice_of("ns1/svc1", "10.0.0.1")
    state = state_of(first, second, moved)
    moved = slice_of("ns1/svc1", "10.0.0.1", labels={"kubernetes.io/service-name": "svc2"})
    feed(state, moved)
    state.collect()
    assert targets(state) == {"ns1/svc1:p80": [], "ns1/svc2:p80": ["10.0.0.1:80"]}


def test_slices_of_other_proxies_families_or_nobody_are_ignored() -> None:
    state = state_of(
        service(),
        slice_of(
            "ns1/svc1", "10.0.0.1", suffix="a", labels={"service.kubernetes.io/service-proxy-name": "x"}
        ),
        slice_of("ns1/svc1", "10.0.0.2", suffix="b", labels={"kubernetes.io/service-name": ""}),
        slice_of("ns1/svc1", "fd00::1", suffix="c", address_type="IPv6"),
        slice_of("ns1/svc1", "10.0.0.4", suffix="d", ports=[{"name": None, "port": 80}]),
        slice_of("ns1/svc1", "10.0.0.5", suffix="e", ports=[{"name": "p80"}]),
    )
    assert targets(state) == {"ns1/svc1:p80": []}


def test_ports_come_oldest_service_first() -> None:
    state = state_of(
        service("a/young", "172.30.0.1", created="2026-02-01T00:00:00Z"),
        service("z/old", "172.30.0.2", created="2026-01-01T00:00:00Z"),
    )
    assert [port.name.text for port in state.ports()] == ["z/old:p80", "a/young:p80"]


def test_trigger_times_are_kept_until_synced_and_bad_ones_ignored() -> None:
    stamp = {LAST_CHANGE_ANNOTATION: "2026-01-01T00:00:10.5Z"}
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1", annotations=stamp))
    assert state.collect().triggered == (1767225610.5,)
    state.mark_synced()
    feed(state, slice_of("ns1/svc1", "10.0.0.2", annotations={LAST_CHANGE_ANNOTATION: "soon"}))
    assert state.collect().triggered == ()


def test_triggers_that_come_during_a_sync_are_kept_for_the_next() -> None:
    state = state_of(service())
    feed(
        state, slice_of("ns1/svc1", "10.0.0.1", annotations={LAST_CHANGE_ANNOTATION: "2026-01-01T00:00:00Z"})
    )
    assert len(state.collect().triggered) == 1
    feed(
        state, slice_of("ns1/svc1", "10.0.0.2", annotations={LAST_CHANGE_ANNOTATION: "2026-01-01T00:00:01Z"})
    )
    state.mark_synced()
    assert len(state.collect().triggered) == 1


def test_a_deleted_slice_says_nothing_of_when_it_had_to_go() -> None:
    state = state_of(service())
    when = {LAST_CHANGE_ANNOTATION: "2026-01-01T00:00:00Z"}
    feed(
        state,
        slice_of("ns1/svc1", "10.0.0.1", annotations=when),
        slice_of("ns2/b", "10.0.0.2", annotations=when),
    )
    state.delete_slice("ns1", "svc1-a")
    state.delete_slice("ns1", "never-there")
    assert len(state.collect().triggered) == 1, "that of the other Service"


SERVICES = st.builds(
    lambda name, ip, ports, node_port: service(
        f"ns/{name}",
        f"172.30.0.{ip}",
        [{"name": port, "port": 80, "nodePort": node_port} for port in sorted(ports)],
    ),
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.sets(st.sampled_from(["http", "metrics"]), min_size=1),
    st.sampled_from([0, 3001]),
)
SLICES = st.builds(
    lambda name, suffix, owner, hosts, ports: {
        **(
            made := slice_of(
                f"ns/{name}",
                *[endpoint(f"10.0.0.{host}", ready=host % 3 != 0) for host in sorted(hosts)],
                suffix=suffix,
                ports=[{"name": port, "port": 8080} for port in sorted(ports)],
            )
        ),
        "metadata": {**made["metadata"], "labels": {"kubernetes.io/service-name": owner}},
    },
    st.sampled_from("abc"),
    st.sampled_from("xy"),
    st.sampled_from("abc"),
    st.sets(st.integers(1, 6)),
    st.sets(st.sampled_from(["http", "metrics"])),
)


@given(st.lists(st.tuples(SERVICES | SLICES, st.sampled_from(["upsert", "delete", "sync"])), max_size=25))
def test_any_history_ends_in_the_state_of_its_last_objects(history: list[tuple[Object, str]]) -> None:
    state = ProxyState(Family.IPV4)
    last: dict[tuple[str, str], Object] = {}
    synced: dict[str, tuple] = {}
    for obj, action in history:
        key = (obj["kind"], obj["metadata"]["name"])
        if action == "delete":
            last.pop(key, None)
            delete = state.delete_service if obj["kind"] == "Service" else state.delete_slice
            delete("ns", obj["metadata"]["name"])
        else:
            last[key] = obj
            feed(state, obj)
        if action == "sync":
            state.collect()
            state.mark_synced()
            synced = snapshot(state)
    changes = state.collect()
    fresh = state_of(*last.values())
    assert snapshot(state) == snapshot(fresh)
    assert state.endpoint_count == fresh.endpoint_count
    now = snapshot(state)
    differing = {name for name in now.keys() | synced.keys() if now.get(name) != synced.get(name)}
    assert differing <= texts(changes.updated | changes.removed)
    assert texts(changes.removed).isdisjoint(now)


def snapshot(state: ProxyState) -> dict[str, tuple]:
    return {port.name.text: (port, state.endpoints(port.name)) for port in state.ports()}
