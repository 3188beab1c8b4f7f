"""What policies become in a node's table lets through what the API's definition lets through, after any changes."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_machine import Packet, passes
from support.policy_objects import NAMESPACES, NODE, OTHER, OUTSIDE, namespace, pod, policy, specs
from support.policy_oracle import connects
from support.properties import examples

from netkit.kernel.nft.fake import FakeNftTable
from netkit.policy.backend import FAMILIES
from netkit.policy.census import Census, census
from netkit.policy.model import PROTOCOLS, pod_of, policy_of
from netkit.policy.render import TABLE
from netkit.policy.selection import Selection
from netkit.policy.table import Table

Obj = dict[str, Any]
CELLS = (("TCP", 80), ("TCP", 81), ("UDP", 80), ("UDP", 5000), ("SCTP", 81))


class Node:
    """One node's selection and tables, and the objects it was told of."""

    def __init__(self) -> None:
        self.selection = Selection(NODE)
        self.drivers = {family: FakeNftTable(family, TABLE) for family in FAMILIES}
        self.tables = {family: Table(family, None) for family in FAMILIES}
        self.objects: dict[tuple[str, str, str], Obj] = {}

    def put(self, kind: str, obj: Obj) -> None:
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self.objects[kind, *key] = obj
        if kind == "pod":
            self.selection.set_pod(key, pod_of(obj))
        elif kind == "namespace":
            self.selection.set_namespace(key[1], obj["metadata"].get("labels") or {})
        else:
            self.selection.set_policy(key, policy_of(obj))

    def remove(self, kind: str, key: tuple[str, str]) -> None:
        if self.objects.pop((kind, *key), None) is None:
            return
        if kind == "pod":
            self.selection.set_pod(key, None)
        elif kind == "namespace":
            self.selection.set_namespace(key[1], None)
        else:
            self.selection.set_policy(key, None)

    def sync(self) -> int:
        """Write what changed; how many messages that took."""
        changes, sent = self.selection.collect(), 0
        for family, table in self.tables.items():
            for messages in (table.partial(self.selection, changes), table.later):
                sent += len(messages)
                if messages:
                    self.drivers[family].commit(messages)
        return sent

    def of(self, kind: str) -> list[Obj]:
        return [obj for key, obj in self.objects.items() if key[0] == kind]

    def passes(self, source: str, destination: str, protocol: str, port: int) -> bool:
        family = FAMILIES[":" in destination]
        packet = Packet(source, destination, PROTOCOLS[protocol], port)
        return passes(self.drivers[family].contents, packet)

    def check(self) -> None:
        """Every cell of the truth table. Each end's node decides its half; here it is those of this node's pods."""
        pods, policies, namespaces = self.of("pod"), self.of("policy"), self.of("namespace")
        for position in (0, 1):
            owners = {obj["status"]["podIPs"][position]["ip"]: obj["spec"]["nodeName"] for obj in pods}
            for source, destination in product([*owners, OUTSIDE[position]], repeat=2):
                ends = [
                    end
                    for end, address in (("egress", source), ("ingress", destination))
                    if owners.get(address) == NODE
                ]
                for protocol, port in CELLS if ends else ():
                    question = (source, destination, protocol, port)
                    wanted = connects(policies, namespaces, pods, *question, ends)
                    assert self.passes(*question) is wanted, (question, policies)

    def dump(self) -> object:
        found = {}
        for family, driver in self.drivers.items():
            c = driver.contents
            found[family] = c and (
                c.chains, c.rules, c.sets, {name: sorted(items, key=repr) for name, items in c.elements.items()},
            )  # fmt: skip
        return found


def world() -> Node:
    node = Node()
    for name in NAMESPACES:
        node.put("namespace", namespace(name))
    numbers = iter(range(1, 100))
    for space, name in product(NAMESPACES, "ab"):
        node.put("pod", pod(space, name, next(numbers), OTHER if (space, name) == ("z", "b") else NODE))
    node.put("pod", pod("x", "t", next(numbers), labels={"pod": "a", "tier": "db"}))
    return node


def test_nothing_is_written_without_policies_and_nothing_stays() -> None:
    node = world()
    assert node.sync() == 0
    node.put("policy", policy("x", "deny", policyTypes=["Ingress", "Egress"]))
    assert node.sync() > 0
    tables = [driver.contents for driver in node.drivers.values() if driver.contents is not None]
    isolated = sum(obj["metadata"]["namespace"] == "x" for obj in node.of("pod"))
    rules = sum(len(rules) for contents in tables for rules in contents.rules.values())
    assert census(tables) == Census(1, isolated, rules)
    node.check()
    node.remove("policy", ("x", "deny"))
    node.sync()
    assert [driver.contents for driver in node.drivers.values()] == [None, None]


def test_a_set_stands_until_the_transaction_after() -> None:
    """A packet on its way through the old rules may ask for its peers after the kernel has changed over."""
    node = world()
    for label in "ab":
        peers = [{"podSelector": {"matchLabels": {"pod": label}}}]
        node.put("policy", policy("x", "p", ingress=[{"from": peers}]))
        changes = node.selection.collect()
        for family, table in node.tables.items():
            before = node.drivers[family].contents
            known = dict(before.elements) if before is not None else {}
            node.drivers[family].commit(table.partial(node.selection, changes))
            between = node.drivers[family].contents
            assert between is not None
            assert {name: between.elements.get(name) for name in known} == known
            assert bool(table.later) is (label == "b")
            if table.later:
                node.drivers[family].commit(table.later)
    node.check()


_change = st.one_of(
    st.tuples(st.just("policy"), st.sampled_from(NAMESPACES), st.sampled_from("pq"), specs),
    st.tuples(st.just("no policy"), st.sampled_from(NAMESPACES), st.sampled_from("pq")),
    st.tuples(st.just("pod"), st.sampled_from(NAMESPACES), st.sampled_from("abn"), st.integers(1, 12),
              st.sampled_from("abc")),
    st.tuples(st.just("no pod"), st.sampled_from(NAMESPACES), st.sampled_from("abn")),
    st.tuples(st.just("namespace"), st.sampled_from(NAMESPACES), st.sampled_from(NAMESPACES)),
    st.tuples(st.just("no namespace"), st.sampled_from(NAMESPACES)),
)  # fmt: skip


def play(node: Node, change: tuple[Any, ...]) -> None:
    match change:
        case "policy", space, name, spec:
            node.put("policy", policy(space, name, **spec))
        case "pod", space, name, number, label:
            # Each name has addresses of its own, as no two pods have one for long.
            own = number + 12 * (3 * NAMESPACES.index(space) + "abn".index(name))
            node.put("pod", pod(space, name, own, labels={"pod": label}))
        case "namespace", space, label:
            node.put("namespace", namespace(space, ns=label))
        case ("no policy" | "no pod" as what, space, name):
            node.remove(what[3:], (space, name))
        case "no namespace", space:
            node.remove("namespace", ("", space))


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMESPACES), specs), min_size=1, max_size=4))
def test_tables_do_what_the_api_says(found: list[tuple[str, Obj]]) -> None:
    node = world()
    for number, (space, spec) in enumerate(found):
        node.put("policy", policy(space, f"p{number}", **spec))
    node.sync()
    node.check()


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(_change, min_size=1, max_size=14))
def test_changes_end_where_a_fresh_start_does(changes: list[tuple[Any, ...]]) -> None:
    node = world()
    node.sync()
    for change in changes:
        play(node, change)
        node.sync()
    fresh = Node()
    for (kind, *_), obj in node.objects.items():
        fresh.put(kind, obj)
    fresh.sync()
    assert node.dump() == fresh.dump()
    for family, driver in node.drivers.items():
        adopted = Table(family, driver.contents)
        assert adopted.full(fresh.selection) == adopted.later == []
