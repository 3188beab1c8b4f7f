"""The collector of garbage is held back by blocks that may overlap, and works again after the last one."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from netkit.proxy.collection import collection_held


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if enabled else gc.disable)()


def test_it_works_again_after_the_last_block() -> None:
    one, two = collection_held(), collection_held()
    with one:
        assert not gc.isenabled()
        two.__enter__()
    assert not gc.isenabled(), "the second block has not ended"
    two.__exit__(None, None, None)
    assert gc.isenabled()


def test_it_works_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"), collection_held():
        raise ValueError("x")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collection_held():
        assert not gc.isenabled()
    assert not gc.isenabled()
