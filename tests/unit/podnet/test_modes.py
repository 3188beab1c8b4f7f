from __future__ import annotations

import pytest

from netkit.podnet.modes import NetworkMode, Setting, backend, steps

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
BETWEEN = Setting(NetworkMode.NATIVE, both=NetworkMode.VXLAN)
WIREGUARD = Setting(NetworkMode.WIREGUARD)
OPENED = Setting(NetworkMode.VXLAN, both=NetworkMode.WIREGUARD)
CLOSING = Setting(NetworkMode.WIREGUARD, both=NetworkMode.VXLAN)


@pytest.mark.parametrize(
    ("setting", "tunnels", "overhead"),
    [
        (VXLAN, ("flannel.1",), 50),
        (DIRECT, ("flannel.1",), 50),
        (NATIVE, (), 0),
        (BETWEEN, ("flannel.1",), 50),
        (WIREGUARD, ("flannel-wg",), 80),
        (OPENED, ("flannel.1", "flannel-wg"), 80),
        (CLOSING, ("flannel-wg", "flannel.1"), 80),
    ],
)
def test_what_a_mode_needs(setting: Setting, tunnels: tuple[str, ...], overhead: int) -> None:
    found = backend(setting)
    assert (found.tunnels, found.overhead) == (tunnels, overhead)
    assert setting.encrypts is ("flannel-wg" in tunnels)


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
        # Never in the clear between two tunnels, and never into one that somebody has not.
        (VXLAN, WIREGUARD, [OPENED, CLOSING, WIREGUARD]),
        (WIREGUARD, VXLAN, [CLOSING, OPENED, VXLAN]),
        (WIREGUARD, NATIVE, [Setting(NetworkMode.NATIVE, both=NetworkMode.WIREGUARD), NATIVE]),
        (NATIVE, WIREGUARD, [Setting(NetworkMode.NATIVE, both=NetworkMode.WIREGUARD), WIREGUARD]),
        (OPENED, VXLAN, [OPENED, VXLAN]),
        (CLOSING, WIREGUARD, [CLOSING, WIREGUARD]),
        (CLOSING, NATIVE, [CLOSING, Setting(NetworkMode.NATIVE, both=NetworkMode.WIREGUARD), NATIVE]),
    ],
)
def test_the_way_from_mode_to_mode(current: Setting, wanted: Setting, way: list[Setting]) -> None:
    assert steps(current, wanted) == way


def test_settings_are_shown_with_their_options() -> None:
    assert [str(setting) for setting in (VXLAN, NATIVE, DIRECT, BETWEEN)] == [
        "vxlan",
        "native",
        "vxlan (direct routing)",
        "native (tunnel of vxlan kept)",
    ]
