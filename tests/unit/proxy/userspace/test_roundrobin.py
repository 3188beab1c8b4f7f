"""The choice of endpoints: in turn, by client where that is asked for, and after changes."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from netkit.proxy.endpoints import Endpoint
from netkit.proxy.userspace.roundrobin import RoundRobin

ONE, TWO, THREE = (Endpoint(ip_address(f"10.244.0.{number}"), 8080) for number in (1, 2, 3))
ALICE, BOB = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def balancer(*endpoints: Endpoint, affinity_seconds: int | None = None) -> RoundRobin:
    choice = RoundRobin(random.Random(1).shuffle)
    choice.configure(affinity_seconds)
    choice.update(endpoints)
    return choice


def test_without_endpoints_there_is_none() -> None:
    assert balancer().choose(ALICE, 0) is None


@given(st.integers(1, 9), st.integers(0, 100))
def test_shares_differ_by_one_at_most(endpoints: int, connections: int) -> None:
    choice = balancer(*(Endpoint(ip_address(f"10.0.0.{number + 1}"), 80) for number in range(endpoints)))
    found = Counter(choice.choose(ALICE, 0) for _ in range(connections))
    shares = [found[endpoint] for endpoint in choice.endpoints]
    assert sum(shares) == connections
    assert max(shares) - min(shares) <= 1


def test_endpoints_are_shown_in_the_order_of_their_turns() -> None:
    choice = balancer(ONE, TWO, THREE)
    for _ in range(4):
        coming = choice.endpoints
        assert choice.choose(ALICE, 0) == coming[0]
        assert choice.endpoints == (*coming[1:], coming[0])


def test_orders_differ_between_nodes() -> None:
    orders = set()
    for seed in range(20):
        choice = RoundRobin(random.Random(seed).shuffle)
        choice.update((ONE, TWO, THREE))
        orders.add(choice.endpoints)
    assert len(orders) == 6


def test_same_endpoints_in_another_order_change_nothing() -> None:
    choice = balancer(ONE, TWO, THREE)
    choice.choose(ALICE, 0)
    before = choice.endpoints
    assert choice.update((THREE, ONE, TWO)) == frozenset()
    assert choice.endpoints == before


def test_those_that_are_gone_are_said() -> None:
    choice = balancer(ONE, TWO)
    assert choice.update((TWO, THREE)) == {ONE}
    assert {choice.choose(ALICE, 0) for _ in range(2)} == {TWO, THREE}
    assert choice.update(()) == {TWO, THREE}


def test_client_keeps_its_endpoint_while_it_comes_back_in_time() -> None:
    choice = balancer(ONE, TWO, THREE, affinity_seconds=10)
    mine = choice.choose(ALICE, 0)
    assert choice.choose(BOB, 1) != mine
    assert [choice.choose(ALICE, time) for time in (9, 18, 27.9)] == [mine] * 3
    assert choice.choose(ALICE, 37.9) != mine


def test_client_whose_endpoint_does_not_answer_or_is_gone_gets_another() -> None:
    choice = balancer(ONE, TWO, THREE, affinity_seconds=10)
    first = choice.choose(ALICE, 0)
    second = choice.choose(ALICE, 0, afresh=True)
    assert second != first
    assert choice.choose(ALICE, 0) == second
    choice.update(endpoint for endpoint in (ONE, TWO, THREE) if endpoint != second)
    third = choice.choose(ALICE, 0)
    assert third != second
    choice.update((third,) if third else ())
    assert choice.choose(ALICE, 0) == third


def test_affinity_turned_off_and_idle_clients_are_forgotten() -> None:
    choice = balancer(ONE, TWO, affinity_seconds=10)
    mine = choice.choose(ALICE, 0)
    choice.forget_idle(9)
    assert choice.choose(ALICE, 9) == mine
    choice.forget_idle(19)
    assert choice.choose(ALICE, 19) != mine
    choice.configure(None)
    assert len({choice.choose(ALICE, 20) for _ in range(2)}) == 2
