"""The backend on a kernel and with proxies that only keep books: what is written when, and what stands afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.proxy import FakeNodeKernel, Object, feed, service, slice_of, state_of, unready

from netkit.kernel.errors import KernelError
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Address, Family, parse_address
from netkit.proxy.backend import NodeFacts
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.listing import differences
from netkit.proxy.services import ServicePort, ServicePortName
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState
from netkit.proxy.userspace.backend import UserspaceBackend

NODE_PORT: dict[str, Any] = {
    "ports": [{"name": "p80", "port": 80, "nodePort": 30001}],
    "type": "NodePort",
    "externalIPs": ["1.2.3.4"],
}


class FakeProxies:
    """Proxies without sockets; the number of a service port is the sum of its letters, unless it is told one."""

    def __init__(self, taken: Sequence[int] = ()) -> None:
        self.numbers: dict[ServicePortName, int] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self.held: dict[ServicePortName, int] = {}
        self.taken = taken
        self.broken = ""

    def hold(self, ports: Iterable[ServicePort], gone: Iterable[ServicePortName]) -> None:
        for name in gone:
            self.held.pop(name, None)
        self.held |= {port.name: port.node_port for port in ports}

    def open(
        self, port: ServicePort, endpoints: Iterable[Endpoint], wanted: int, address: Address | None
    ) -> int:
        if port.name.name == self.broken:
            raise KernelError(f"bind for {port.name}")
        self.endpoints[port.name] = tuple(endpoints)
        number = wanted if wanted and wanted not in self.taken else 20_000 + sum(map(ord, str(port.name)))
        return self.numbers.setdefault(port.name, number)

    def port_of(self, name: ServicePortName) -> int:
        return self.numbers.get(name, 0)

    def node_port_held(self, name: ServicePortName) -> bool:
        return self.held.get(name, 0) not in self.taken

    def endpoints_of(self, name: ServicePortName) -> tuple[Endpoint, ...]:
        return self.endpoints.get(name, ())

    def close_others(self, names: Iterable[ServicePortName]) -> None:
        self.close(self.numbers.keys() - set(names))

    def close(self, names: Iterable[ServicePortName]) -> None:
        for name in list(names):
            self.numbers.pop(name, None)
            self.endpoints.pop(name, None)
            self.held.pop(name, None)

    async def stop(self) -> None:
        self.close_others(())


class Setting:
    """A backend, its kernel and its proxies."""

    def __init__(self, iptables: FakeIPTables | None = None, **settings: Any) -> None:
        self.iptables = iptables or FakeIPTables()
        self.proxies = FakeProxies()
        self.kernel = FakeNodeKernel()
        self.backend = UserspaceBackend(
            "node-1",
            ProxySettings(**settings),
            self.iptables,  # type: ignore[arg-type]
            self.kernel,
            self.proxies,
        )

    async def change(self, state: ProxyState, *objects: Object) -> bool:
        """Sync after a change; whether anything was written, after which all must stand as wanted."""
        feed(state, *objects)
        report = await self.backend.sync(state, state.collect())
        state.mark_synced()
        await self.check(state)
        return report.wrote

    async def check(self, state: ProxyState) -> None:
        assert differences(await self.backend.wanted(state), await self.backend.standing()) == ()
        assert await self.backend.intact()


async def test_second_full_sync_writes_nothing_and_jumps_stand_in_their_places() -> None:
    setting = Setting(node_address="10.0.0.9")
    await setting.iptables.restore("*nat\n-A PREROUTING -j RETURN\nCOMMIT\n")
    state = state_of(service(**NODE_PORT), slice_of("ns1/svc1", "10.244.0.5"))
    report = await setting.backend.sync(state, None)
    assert (report.wrote, report.full, report.rules_total) == (True, True, {"nat": 7, "filter": 1})
    first, _, last = setting.iptables.rules("nat", "PREROUTING")
    assert first.endswith("-j KUBE-PORTALS-CONTAINER")
    assert last.endswith("-j KUBE-NODEPORT-CONTAINER")
    assert not (await setting.backend.sync(state, None)).wrote
    await setting.check(state)


async def test_change_writes_what_differs_and_endpoints_no_rule() -> None:
    setting = Setting(node_address="10.0.0.9")
    many = [service(f"ns1/s{number}", f"172.30.0.{number}") for number in range(1, 20)]
    state = state_of(*many)
    await setting.backend.sync(state, None)
    state.mark_synced()
    assert not await setting.change(state, slice_of("ns1/s7", "10.244.0.5"))
    old = service("ns1/old", "172.30.1.1", created="2020-01-01T00:00:00Z")
    assert await setting.change(state, old)
    number = setting.proxies.numbers[next(state.ports()).name]
    about = '-d 172.30.1.1/32 -p tcp -m comment --comment "ns1/old:p80" -m tcp --dport 80'
    assert setting.iptables.documents[-1] == (
        f"*nat\n-I KUBE-PORTALS-CONTAINER 1 {about} -j DNAT --to-destination 10.0.0.9:{number}\n"
        f"-I KUBE-PORTALS-HOST 1 {about} -j DNAT --to-destination 10.0.0.9:{number}\nCOMMIT\n"
    )


async def test_only_ready_endpoints_are_proxied() -> None:
    setting = Setting()
    state = state_of(service(), slice_of("ns1/svc1", "10.244.0.5", unready("10.244.0.6")))
    await setting.backend.sync(state, None)
    ((endpoint,),) = setting.proxies.endpoints.values()
    assert endpoint.target == "10.244.0.5:80"


async def test_ports_of_an_earlier_process_are_taken_over() -> None:
    first = Setting()
    state = state_of(service(), service("ns1/two", "172.30.0.42"))
    await first.backend.sync(state, None)
    (one, two) = first.proxies.numbers.values()
    again = Setting(first.iptables)
    again.proxies.taken = [two]
    assert differences(await again.backend.wanted(state), await again.backend.standing()) == ()
    first.iptables.tables["nat"]["KUBE-PORTALS-CONTAINER"] = [
        rule.replace(str(two), "9").replace(str(one), "7")
        for rule in first.iptables.rules("nat", "KUBE-PORTALS-CONTAINER")
    ]
    again.proxies.taken = [9]
    assert (await again.backend.sync(state, None)).wrote
    assert list(again.proxies.numbers.values()) == [7, two]
    await again.check(state)


async def test_nothing_but_ours_is_removed() -> None:
    setting = Setting()
    await setting.iptables.restore("*nat\n:MINE - [0:0]\n-A PREROUTING -j MINE\nCOMMIT\n")
    before = str(setting.iptables)
    state = state_of(service(**NODE_PORT))
    await setting.backend.sync(state, None)
    for _ in range(2):
        await setting.backend.cleanup()
        assert await setting.backend.standing() == {}
        assert setting.proxies.numbers == {}
    assert str(setting.iptables).startswith(before.removesuffix("COMMIT\n"))
    assert "KUBE" not in str(setting.iptables)


async def test_what_others_change_is_noticed_and_mended() -> None:
    setting = Setting()
    state = state_of(service(**NODE_PORT))
    await setting.backend.sync(state, None)
    for damage in (
        lambda tables: tables["nat"]["KUBE-PORTALS-HOST"].pop(),
        lambda tables: tables["nat"]["KUBE-PORTALS-CONTAINER"].insert(0, "-j RETURN"),
        lambda tables: tables["nat"]["OUTPUT"].clear(),
        lambda tables: tables.pop("filter"),
    ):
        damage(setting.iptables.tables)
        assert not await setting.backend.intact()
        assert (await setting.backend.sync(state, None)).wrote
        await setting.check(state)


async def test_failed_load_is_mended_by_the_full_sync_that_follows() -> None:
    setting = Setting()
    state = state_of(service(), slice_of("ns1/svc1", "10.244.0.5"))
    await setting.backend.sync(state, None)
    state.mark_synced()
    setting.iptables.failures = 1
    state.upsert_service(service("ns1/two", "172.30.0.42"))
    with pytest.raises(KernelError):
        await setting.backend.sync(state, state.collect())
    await setting.backend.sync(state, None)
    await setting.check(state)


async def test_service_that_cannot_be_proxied_is_an_error_and_the_others_are() -> None:
    setting = Setting()
    setting.proxies.broken = "svc1"
    state = state_of(service(), service("ns1/two", "172.30.0.42"))
    with pytest.raises(KernelError, match="ns1/svc1"):
        await setting.backend.sync(state, None)
    assert [name.name for name in setting.proxies.numbers] == ["two"]


async def test_node_address_comes_from_settings_node_or_kernel() -> None:
    setting = Setting()
    setting.kernel.local = [
        parse_address(text) for text in ("127.0.0.1", "169.254.1.1", "fd00::1", "10.0.0.7")
    ]
    state = state_of(service())
    await setting.backend.sync(state, None)
    assert "--to-destination 10.0.0.7:" in str(setting.iptables)
    assert setting.backend.configure(NodeFacts(addresses=(parse_address("10.0.0.8"),)))
    assert not setting.backend.configure(NodeFacts(zone="other", addresses=(parse_address("10.0.0.8"),)))
    await setting.backend.sync(state, None)
    assert "--to-destination 10.0.0.8:" in str(setting.iptables)
    await setting.check(state)


async def test_serving_is_the_rules_of_one_port_and_its_proxy() -> None:
    setting = Setting()
    state = state_of(
        service(sessionAffinity="ClientIP"),
        service("ns1/two", "172.30.0.42"),
        slice_of("ns1/svc1", "10.244.0.5"),
    )
    await setting.backend.sync(state, None)
    *rules, proxy = await setting.backend.serving(state, next(state.ports()).name)
    assert [section.name for section in rules] == ["nat KUBE-PORTALS-CONTAINER", "nat KUBE-PORTALS-HOST"]
    assert all("ns1/svc1:p80" in entry for section in rules for entry in section.entries)
    assert (proxy.name, proxy.entries) == ("proxy of ns1/svc1:p80/TCP", ("10.244.0.5:80",))
    assert proxy.note == "round robin, clients keep theirs for 10800 s"


SERVICES = st.builds(
    lambda number, created, node_port, external: service(
        f"ns1/s{number}",
        f"172.30.0.{number}",
        [{"name": "p80", "port": 80, **({"nodePort": 30000 + number} if node_port else {})}],
        created=f"2026-01-0{created}T00:00:00Z",
        externalIPs=["1.2.3.4"] if external else [],
    ),
    st.integers(1, 12),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
STEPS = st.one_of(
    SERVICES,
    st.integers(1, 12),
    st.builds(
        lambda number, last: slice_of(f"ns1/s{number}", f"10.244.0.{last}"),
        st.integers(1, 12),
        st.integers(1, 3),
    ),
)


@given(st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=8))
async def test_any_sequence_of_changes_ends_where_a_fresh_sync_does(steps: list[list[Object | int]]) -> None:
    setting, state = Setting(), ProxyState(Family.IPV4)
    state.collect()
    await setting.backend.sync(state, None)
    for step in steps:
        for item in step:
            if isinstance(item, int):
                state.delete_service("ns1", f"s{item}")
            else:
                feed(state, item)
        await setting.change(state)
    fresh = Setting()
    await fresh.backend.sync(state, None)
    assert await setting.backend.standing() == await fresh.backend.standing()
