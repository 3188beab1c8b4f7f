from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.podnet.address import PoolExhausted, gateway, next_address

RANGE = IPv4Network("10.244.1.0/24")


def test_the_gateway_is_first_and_pods_follow() -> None:
    assert str(gateway(RANGE)) == "10.244.1.1/24"
    assert next_address(RANGE, (), None) == IPv4Address("10.244.1.2")


def test_a_freed_address_is_not_next() -> None:
    assert next_address(RANGE, (), IPv4Address("10.244.1.2")) == IPv4Address("10.244.1.3")


def test_it_goes_round() -> None:
    assert next_address(RANGE, (), IPv4Address("10.244.1.254")) == IPv4Address("10.244.1.2")
    assert next_address(RANGE, {IPv4Address("10.244.1.2")}, IPv4Address("10.244.1.254")) == IPv4Address(
        "10.244.1.3"
    )


def test_a_last_address_of_another_range_does_not_matter() -> None:
    assert next_address(RANGE, (), IPv4Address("10.244.9.9")) == IPv4Address("10.244.1.2")


def test_a_full_range_says_so() -> None:
    small = IPv4Network("10.244.1.0/29")
    with pytest.raises(PoolExhausted, match="all 5 are in use"):
        next_address(small, set(small.hosts()), None)


@pytest.mark.parametrize("text", ["10.0.0.0/31", "10.0.0.0/32"])
def test_ranges_without_room_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no room"):
        next_address(IPv4Network(text), (), None)


@given(st.integers(24, 30), st.lists(st.integers(0, 6), max_size=60))
def test_no_address_twice_and_none_reserved(prefix: int, frees: list[int]) -> None:
    node_range = IPv4Network(("10.244.7.0", prefix))
    taken: list[IPv4Address] = []
    last = None
    for free in frees:
        try:
            last = next_address(node_range, taken, last)
        except PoolExhausted:
            assert len(taken) == node_range.num_addresses - 3
            taken.pop(0)
            continue
        assert last not in taken
        assert last in node_range
        assert last not in (node_range[0], node_range[1], node_range[-1])
        taken.append(last)
        if free < len(taken):
            taken.pop(free)
