from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.fabric.segment import CANDIDATES, choose_segment


def test_the_first_is_taken_when_nothing_is_used() -> None:
    assert choose_segment(None, []) == IPv4Network("172.18.0.0/16")


def test_what_overlaps_is_skipped_in_both_directions() -> None:
    used = [IPv4Network("172.18.5.0/24"), IPv4Network("172.19.0.0/16"), IPv4Network("172.20.0.0/15")]
    assert choose_segment(None, used) == IPv4Network("172.22.0.0/16")


def test_an_explicit_segment_is_taken_or_refused_by_name() -> None:
    wanted = IPv4Network("192.168.7.0/24")
    assert choose_segment(wanted, [IPv4Network("172.18.0.0/16")]) == wanted
    with pytest.raises(ValueError, match=r"192\.168\.7\.0/24 overlaps 192\.168\.0\.0/16"):
        choose_segment(wanted, [IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")])


def test_none_left_is_said() -> None:
    with pytest.raises(ValueError, match="name a free network"):
        choose_segment(None, [IPv4Network("172.16.0.0/12")])


@given(
    st.lists(
        st.builds(
            lambda a, p: IPv4Network((a, p), strict=False),
            st.integers(0xAC100000, 0xAC1FFFFF),
            st.integers(12, 32),
        )
    )
)
def test_the_choice_never_overlaps(used: list[IPv4Network]) -> None:
    try:
        chosen = choose_segment(None, used)
    except ValueError:
        assert all(any(c.overlaps(u) for u in used) for c in CANDIDATES)
    else:
        assert not any(chosen.overlaps(network) for network in used)
