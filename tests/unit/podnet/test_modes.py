from __future__ import annotations

import pytest

from netkit.podnet.modes import NetworkMode, Setting, backend, steps

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
BETWEEN = Setting(NetworkMode.NATIVE, both=True)


@pytest.mark.parametrize(
    ("setting", "tunnel", "overhead"),
    [(VXLAN, True, 50), (DIRECT, True, 50), (NATIVE, False, 0), (BETWEEN, True, 50)],
)
def test_what_a_mode_needs(setting: Setting, tunnel: bool, overhead: int) -> None:
    found = backend(setting)
    assert (found.tunnel, found.overhead) == (tunnel, overhead)


@pytest.mark.parametrize(
    ("current", "wanted", "way"),
    [
        (VXLAN, NATIVE, [BETWEEN, NATIVE]),
        (NATIVE, VXLAN, [BETWEEN, VXLAN]),
        (NATIVE, DIRECT, [BETWEEN, DIRECT]),
        (VXLAN, DIRECT, [DIRECT]),
        (NATIVE, NATIVE, [NATIVE]),
        # A change that was interrupted goes on, or back.
        (BETWEEN, VXLAN, [BETWEEN, VXLAN]),
        (BETWEEN, NATIVE, [BETWEEN, NATIVE]),
    ],
)
def test_the_way_from_mode_to_mode(current: Setting, wanted: Setting, way: list[Setting]) -> None:
    assert steps(current, wanted) == way


def test_settings_are_shown_with_their_options() -> None:
    assert [str(setting) for setting in (VXLAN, NATIVE, DIRECT, BETWEEN)] == [
        "vxlan",
        "native",
        "vxlan (direct routing)",
        "native (tunnel kept)",
    ]
