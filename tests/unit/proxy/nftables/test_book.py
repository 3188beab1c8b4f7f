"""What changes write: only what differs, and after any changes the same as a fresh load."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.properties import examples
from support.proxy import Object, draining, endpoint, feed, service, slice_of, unready

from netkit.kernel.errors import KernelError
from netkit.kernel.nft import refusals, wire
from netkit.kernel.nft.expressions import Code, Verdict
from netkit.kernel.nft.fake import FakeNftTable
from netkit.kernel.nft.objects import Chain, Element, Hook, SetSpec
from netkit.kernel.nft.replay import Replay
from netkit.proxy.addresses import Family
from netkit.proxy.choice import NodeView
from netkit.proxy.detector import SourceDetector
from netkit.proxy.listing import Listing, Section, differences, listing
from netkit.proxy.nftables import book as book_module
from netkit.proxy.nftables.book import STALE_SECONDS, RuleBook
from netkit.proxy.nftables.compact import CompactLayout
from netkit.proxy.nftables.kube_proxy import KubeProxyLayout
from netkit.proxy.nftables.layout import Layout, NftablesSettings
from netkit.proxy.nftables.listing import sections
from netkit.proxy.state import ProxyState

SETTINGS = NftablesSettings(
    node=NodeView("node1", addresses=(ip_address("192.168.0.2"),)),
    detector=SourceDetector(ip_network("10.0.0.0/8")),
    node_port_ips=(ip_address("192.168.0.2"),),
    service_ranges=(ip_network("172.30.0.0/16"), ip_network("10.96.0.0/12")),
)
LAYOUTS = [KubeProxyLayout, CompactLayout]
IN_COMPACT_TOO = pytest.mark.parametrize("kind", LAYOUTS)


@cache
def layout_of(kind: type[KubeProxyLayout], settings: NftablesSettings) -> Layout:
    return kind(Family.IPV4, settings)


class World:
    """A state, a book and a table, and a clock that stands still."""

    def __init__(self, kind: type[KubeProxyLayout] = KubeProxyLayout, *objects: Object) -> None:
        self.kind = kind
        self.now = 1000.0
        self.table = FakeNftTable()
        self.state = ProxyState(Family.IPV4)
        self.book = self.new_book()
        self.written: list[str] = []
        feed(self.state, *objects)
        self.full()

    def new_book(self, settings: NftablesSettings = SETTINGS) -> RuleBook:
        return RuleBook(layout_of(self.kind, settings), lambda: self.now)

    def commit(self, transactions: Iterable[Sequence[bytes]]) -> None:
        self.written = []
        for transaction in transactions:
            self.table.commit(transaction)
            self.written += described(transaction)

    def full(self) -> list[str]:
        self.state.collect()
        self.commit(self.book.full(self.state, self.table.read()))
        self.tidy()
        self.state.mark_synced()
        return self.written

    def change(self, *objects: Object) -> list[str]:
        """Sync these new or changed objects; the messages that took."""
        feed(self.state, *objects)
        return self.sync()

    def sync(self) -> list[str]:
        self.commit(self.book.partial(self.state, self.state.collect()))
        self.tidy()
        self.state.mark_synced()
        return self.written

    def tidy(self) -> None:
        """The transaction that follows: what others stand before now goes."""
        if outgrown := self.book.tidied(self.table.handles):
            self.table.commit(outgrown)
            self.written += described(outgrown)

    def expire(self) -> None:
        """Delete what has been stale for long enough."""
        self.now += STALE_SECONDS
        expired = self.book.expired()
        if expired:
            self.table.commit([self.book.layout.writer.delete_chain(chain) for chain in expired])
        for chain in expired:
            del self.book.stale[chain]

    def standing(self) -> Listing:
        assert self.table.contents is not None
        return listing(sections(self.table.contents, wire.NFPROTO_IPV4))

    def fresh(self) -> Listing:
        """What loading the same state into an empty kernel would give."""
        replay = Replay()
        for transaction in self.new_book().full(self.state, None):
            replay.apply(transaction)
        assert replay.contents is not None
        return listing(sections(replay.contents, wire.NFPROTO_IPV4))


def described(transaction: Iterable[bytes]) -> list[str]:
    found = []
    for block in transaction:
        offset = 0
        while offset < len(block):
            length = wire.HEADER.unpack_from(block, offset)[0]
            found.append(refusals.describe(block[offset : offset + length]).removeprefix("nft "))
            offset += (length + 3) & ~3
    return found


def web(*endpoints: Object | str, **spec: Any) -> tuple[Object, Object]:
    return service("ns1/svc1", **spec), slice_of("ns1/svc1", *endpoints)


X = "ULMVA6XW-ns1/svc1/tcp/p80"
E1, E2 = "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80", "2ZNDXFAB-ns1/svc1/tcp/p80__10.180.0.2/80"
OTHER = (service("ns2/svc2", "172.30.0.42"), slice_of("ns2/svc2", "10.180.0.9"))


def test_one_changed_endpoint_writes_its_chain_and_the_choice() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1"), *OTHER)
    messages = [
        re.sub(r"(add set ip kube-proxy) \S+", r"\1 ...", m) for m in world.change(web("10.180.0.2")[1])
    ]
    assert messages == [
        f"add chain ip kube-proxy endpoint-{E2}",
        "add set ip kube-proxy ...",
        "add element ip kube-proxy ",
        f"insert rule ip kube-proxy service-{X}",
        f"insert rule ip kube-proxy service-{X}",
        f"add rule ip kube-proxy endpoint-{E2}",
        f"add rule ip kube-proxy endpoint-{E2}",
        f"flush chain ip kube-proxy endpoint-{E1}",
        f"delete rule ip kube-proxy service-{X}",
        f"delete rule ip kube-proxy service-{X}",
    ]
    assert differences(world.fresh(), world.standing()) == differences({}, stale(E1))


@pytest.mark.parametrize("affinity", ["None", "ClientIP"])
def test_a_set_stands_until_the_transaction_after(affinity: str) -> None:
    """A packet on its way through the old rules may ask their sets after the kernel has changed over."""
    world = World(KubeProxyLayout, *web("10.180.0.1", "10.180.0.2", sessionAffinity=affinity))
    assert world.table.contents is not None
    before = dict(world.table.contents.elements)
    mine = {name for name, elements in before.items() if any(E2 in str(item) for item in elements)}
    mine |= {name for name in before if name.startswith("affinity-")}
    feed(world.state, web("10.180.0.1")[1])
    world.commit(world.book.partial(world.state, world.state.collect()))
    between = world.table.contents.elements
    assert len(mine) == (1 if affinity == "None" else 3)
    assert {name: between.get(name) for name in mine} == {name: before[name] for name in mine}
    world.tidy()
    world.expire()
    assert not differences(world.fresh(), world.standing())


def test_a_service_is_listed_under_its_old_size_until_the_transaction_after() -> None:
    """Packets ask for size after size, and then for an endpoint: one that came past the smaller size must still find
    the larger one, and all that is drawn from there.
    """
    world = World(CompactLayout, *web("10.180.0.1", "10.180.0.2", "10.180.0.3"), *OTHER)
    assert world.table.contents is not None
    feed(world.state, web("10.180.0.1")[1])
    world.commit(world.book.partial(world.state, world.state.collect()))
    asked = ("cluster-1-services", "cluster-4-services", "cluster-services")
    assert [len(world.table.contents.elements[name]) for name in asked] == [2, 1, 4]
    world.tidy()
    assert not differences(world.fresh(), world.standing())


def test_a_change_back_and_forth_within_a_transaction_of_the_kernel_is_mended() -> None:
    """The second step fails: old rules stand behind the new ones, and are wanted again."""
    world = World(KubeProxyLayout, *web("10.180.0.1"))
    world.table.refuse, world.table.refuse_after = errno.ENOMEM, 1
    with pytest.raises(KernelError):
        world.change(web("10.180.0.2")[1])
    feed(world.state, web("10.180.0.1")[1])
    world.full()
    world.expire()
    assert not differences(world.fresh(), world.standing())


def test_a_set_that_only_rules_left_behind_use_goes_with_them() -> None:
    """The second step fails, and before the next sync the Service changes once more."""
    world = World(KubeProxyLayout, *web("10.180.0.1", sessionAffinity="ClientIP"))
    world.table.refuse, world.table.refuse_after = errno.ENOMEM, 1
    with pytest.raises(KernelError):
        world.change(web("10.180.0.2")[0], web("10.180.0.2")[1])
    feed(world.state, web("10.180.0.3")[1])
    world.full()
    world.expire()
    assert not differences(world.fresh(), world.standing())


def stale(*bases: str) -> Listing:
    """Sections of chains that are empty and wait for being deleted."""
    return listing(Section(f"chain endpoint-{base}", ()) for base in bases)


def test_compact_writes_elements_only() -> None:
    world = World(CompactLayout, *web("10.180.0.1"), *OTHER)
    written = world.change(web("10.180.0.2", "10.180.0.3", "10.180.0.4")[1])
    assert {message.split(" ip ")[0] for message in written} == {"add element", "delete element"}
    assert not world.book.stale
    assert not differences(world.fresh(), world.standing())


def test_stale_chains_are_emptied_at_once_and_deleted_later() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1", "10.180.0.2"))
    world.change(web("10.180.0.1")[1])
    assert world.book.stale == {f"endpoint-{E2}": 1000.0}
    world.now += STALE_SECONDS / 2
    assert world.book.expired() == []
    world.expire()
    assert not world.book.stale
    assert not differences(world.fresh(), world.standing())


def test_an_endpoint_that_comes_back_revives_its_chain() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1", "10.180.0.2"))
    world.change(web("10.180.0.1")[1])
    world.change(web("10.180.0.1", "10.180.0.2")[1])
    assert not world.book.stale
    world.expire()
    assert not differences(world.fresh(), world.standing())


@IN_COMPACT_TOO
def test_nothing_is_written_when_nothing_differs(kind: type[KubeProxyLayout]) -> None:
    sticky = {
        "sessionAffinity": "ClientIP",
        "externalIPs": ["192.168.99.1"],
        "loadBalancerSourceRanges": ["1.0.0.0/8"],
    }
    world = World(kind, *web("10.180.0.1", "10.180.0.2", **sticky, ingress=[{"ip": "1.2.3.4"}]), *OTHER)
    assert world.full() == []
    # A restart: another book, the table as the last one left it.
    world.book = world.new_book()
    assert world.full() == []
    assert world.change(slice_of("ns1/svc1", unready("10.180.0.9"), suffix="b")) == []


@IN_COMPACT_TOO
def test_removing_a_service_leaves_nothing(kind: type[KubeProxyLayout]) -> None:
    world = World(kind, *web("10.180.0.1", sessionAffinity="ClientIP"), *OTHER)
    world.state.delete_service("ns1", "svc1")
    world.sync()
    world.expire()
    assert not differences(world.fresh(), world.standing())
    assert not [name for name in world.standing() if "svc1" in name]


def test_a_changed_affinity_timeout_makes_the_sets_anew() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1", sessionAffinity="ClientIP"))
    config = {"clientIP": {"timeoutSeconds": 60}}
    world.change(web(sessionAffinity="ClientIP", sessionAffinityConfig=config)[0])
    assert world.standing()[f"set affinity-{E1}"].note.endswith("timeout 1m")
    assert not differences(world.fresh(), world.standing())


@IN_COMPACT_TOO
def test_an_address_goes_to_the_next_claim(kind: type[KubeProxyLayout]) -> None:
    both = {"externalIPs": ["192.168.99.1"]}
    young = service("ns2/svc2", "172.30.0.42", **both, created="2026-02-01T00:00:00Z")
    world = World(kind, *web("10.180.0.1", **both), young, OTHER[1])
    assert not differences(world.fresh(), world.standing())
    world.state.delete_service("ns1", "svc1")
    world.sync()
    world.expire()
    assert not differences(world.fresh(), world.standing())
    world.change(*web("10.180.0.1", **both))
    assert not differences(world.fresh(), world.standing())


@IN_COMPACT_TOO
@pytest.mark.parametrize(
    "harm",
    [
        lambda writer: [writer.flush_chain("services")],
        lambda writer: [writer.add_rule("services", [Verdict(Code.DROP)])],
        lambda writer: [writer.flush_set("cluster-ips")],
        lambda writer: writer.add_elements("cluster-ips", [Element(b"\1\2\3\4")]),
        lambda writer: [writer.flush_chain("masquerading")],
        lambda writer: [writer.add_chain(Chain("theirs", hook=Hook("filter", "input", 5)))],
        lambda writer: [writer.add_chain(Chain("theirs")), writer.add_rule("theirs", [Verdict(Code.DROP)])],
        lambda writer: [writer.flush_chain("nat-prerouting"), writer.delete_chain("nat-prerouting")],
        lambda writer: [writer.add_set(SetSpec("theirs", SETTINGS_KEY))],
        lambda writer: [writer.delete_table()],
    ],
    ids=[
        "flushed",
        "rule",
        "emptied",
        "element",
        "masquerading",
        "base chain",
        "chain",
        "lost",
        "set",
        "table",
    ],
)
def test_what_others_change_is_mended(kind: type[KubeProxyLayout], harm: Any) -> None:
    world = World(kind, *web("10.180.0.1", "10.180.0.2"), *OTHER)
    world.table.commit(harm(world.book.layout.writer))
    assert differences(world.fresh(), world.standing()) if world.table.contents else True
    world.full()
    world.expire()
    assert not differences(world.fresh(), world.standing())


SETTINGS_KEY = KubeProxyLayout(Family.IPV4, SETTINGS).pieces.service_key


@IN_COMPACT_TOO
def test_other_settings_are_adopted(kind: type[KubeProxyLayout]) -> None:
    world = World(kind, *web("10.180.0.1", externalTrafficPolicy="Local", externalIPs=["192.168.99.1"]))
    changed = replace(SETTINGS, detector=None, node_port_ips=None, masquerade_bit=3, service_ranges=())
    world.book = world.new_book(changed)
    world.full()
    world.expire()
    fresh = FakeNftTable()
    for transaction in world.new_book(changed).full(world.state, None):
        fresh.commit(transaction)
    assert fresh.contents is not None
    wanted = listing(sections(fresh.contents, wire.NFPROTO_IPV4))
    assert not differences(wanted, world.standing())
    assert world.full() == []


def test_layouts_replace_each_other() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1"), *OTHER)
    for kind in (CompactLayout, KubeProxyLayout):
        world.kind = kind
        world.book = world.new_book()
        world.full()
        world.expire()
        assert not differences(world.fresh(), world.standing())


@pytest.mark.parametrize(("old", "new"), [LAYOUTS, LAYOUTS[::-1]])
def test_a_layout_serves_until_the_transaction_that_brings_in_the_other(
    old: type[KubeProxyLayout], new: type[KubeProxyLayout]
) -> None:
    """Packets come between transactions: up to the last one all that stood has to stand."""
    world = World(old, *web("10.180.0.1", sessionAffinity="ClientIP"), *OTHER)
    before = world.standing()
    world.kind = new
    transactions = list(world.new_book().full(world.state, world.table.read()))
    for transaction in transactions[:-1]:
        world.table.commit(transaction)
        now = world.standing()
        assert {name: now.get(name) for name in before} == before
    world.table.commit(transactions[-1])
    assert world.standing() != before


def test_a_failed_transaction_is_mended_by_a_full_one() -> None:
    world = World(KubeProxyLayout, *web("10.180.0.1"))
    world.table.refuse = errno.ENOMEM
    with pytest.raises(KernelError):
        world.change(web("10.180.0.2")[1])
    world.full()
    world.expire()
    assert not differences(world.fresh(), world.standing())


def test_large_changes_take_several_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "PORTS_PER_TRANSACTION", 3)
    monkeypatch.setattr(book_module, "PORTS_PER_LOAD", 4)
    world = World()
    many = [item for n in range(10) for item in pair(n, "10.180.0.1")]
    before = world.table.transactions
    world.change(*many)
    assert world.table.transactions == before + 4
    assert not differences(world.fresh(), world.standing())
    world.commit([[world.book.layout.writer.delete_table()]])
    world.full()
    assert not differences(world.fresh(), world.standing())


def pair(n: int, *endpoints: str) -> tuple[Object, Object]:
    return service(f"ns1/web{n}", f"172.30.1.{n + 1}"), slice_of(f"ns1/web{n}", *endpoints)


def test_rule_totals_are_those_that_stand() -> None:
    for kind in LAYOUTS:
        world = World(kind, *web("10.180.0.1", "10.180.0.2", sessionAffinity="ClientIP"), *OTHER)
        for _ in range(2):
            standing = world.table.contents
            assert standing is not None
            assert world.book.rules == sum(map(len, standing.rules.values()))
            world.change(
                web("10.180.0.3")[1], service("ns2/svc2", "172.30.0.42", externalIPs=["192.168.99.1"])
            )


ADDRESSES = [f"10.180.0.{n}" for n in range(1, 5)]
ENDPOINTS = st.lists(
    st.builds(
        lambda address, node, form: form(address, node),
        st.sampled_from(ADDRESSES),
        st.sampled_from(["node1", "node2", ""]),
        st.sampled_from([endpoint, endpoint, draining, unready]),
    ),
    max_size=4,
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "externalTrafficPolicy": st.sampled_from(["Local", "Cluster"]),
        "internalTrafficPolicy": st.sampled_from(["Local", "Cluster"]),
        "sessionAffinity": st.sampled_from(["ClientIP", "None"]),
        "sessionAffinityConfig": st.sampled_from([{"clientIP": {"timeoutSeconds": 5}}, {}]),
        "externalIPs": st.lists(st.sampled_from(["192.168.99.1", "192.168.99.2"]), unique=True),
        "ingress": st.lists(st.sampled_from([{"ip": "1.2.3.4"}, {"ip": "5.6.7.8"}]), max_size=2),
        "loadBalancerSourceRanges": st.lists(
            st.sampled_from(["203.0.113.0/25", "203.0.113.128/25", "10.0.0.0/8", "192.168.0.0/24"]),
            unique=True,
        ),
    },
)
NAMES = st.sampled_from(["ns1/svc1", "ns1/svc2", "ns2/svc1"])
CREATED = {
    "ns1/svc1": "2026-01-02T00:00:00Z",
    "ns1/svc2": "2026-01-01T00:00:00Z",
    "ns2/svc1": "2026-01-02T00:00:00Z",
}


def some_service(name: str, spec: dict[str, Any], node_port: int) -> Object:
    ports = [{"name": "p80", "port": 80, **({"nodePort": node_port} if node_port else {})}]
    if "sessionAffinityConfig" in spec and not spec["sessionAffinityConfig"]:
        spec = {key: value for key, value in spec.items() if key != "sessionAffinityConfig"}
    address = f"172.30.0.{len(name) + ord(name[2]) + ord(name[-1])}"
    return service(name, address, ports, created=CREATED[name], type="LoadBalancer", **spec)


STEPS = st.lists(
    st.one_of(
        st.builds(some_service, NAMES, SPECS, st.sampled_from([0, 30001, 30002])),
        st.builds(lambda name, found: slice_of(name, *found), NAMES, ENDPOINTS),
        st.tuples(st.just("delete"), NAMES),
        st.just("sync"),
        st.just("wait"),
        st.just("restart"),
    ),
    max_size=14,
)


@IN_COMPACT_TOO
@hypothesis_settings(max_examples=examples(40), deadline=None)
@given(steps=STEPS)
def test_any_changes_end_where_a_fresh_load_would(kind: type[KubeProxyLayout], steps: list[Any]) -> None:
    world = World(kind)
    for step in steps:
        match step:
            case "sync":
                world.sync()
            case "wait":
                world.expire()
            case "restart":
                world.book = world.new_book()
                world.full()
            case ("delete", name):
                world.state.delete_service(*name.split("/"))
            case _:
                feed(world.state, step)
    world.sync()
    world.expire()
    assert not differences(world.fresh(), world.standing())
    assert Counter(world.full()) == Counter()
