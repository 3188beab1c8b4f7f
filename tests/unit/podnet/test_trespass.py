from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from netkit.kernel.network_events import Event, LinkEvent, NeighbourEvent, RouteEvent
from netkit.kernel.rtnl_read import BIRD
from netkit.podnet.attach import Cable
from netkit.podnet.native import Native
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Devices, Tunnel
from netkit.podnet.peer import Peer
from netkit.podnet.trespass import Kept, concerns
from netkit.podnet.wireguard import WireGuard

PODS, SEGMENT = IPv4Network("10.244.0.0/16"), IPv4Network("172.18.0.0/16")
RANGE, FAR = IPv4Network("10.244.3.0/24"), IPv4Address("172.18.0.3")
GATEWAY, MAC = IPv4Address("10.244.3.0"), "0e:f1:ac:12:00:03"
PEER = Peer("node3", FAR, RANGE, MAC)
VXLAN = Kept(
    Vxlan().wanted([PEER], SEGMENT).paths, Devices(2, 4), PODS, 1450, tunnels={"flannel.1": Tunnel(4, 1450)}
)
NATIVE = Kept(Native().wanted([PEER], SEGMENT).paths, Devices(2), PODS, 1500)


@pytest.mark.parametrize(
    ("event", "in_vxlan", "in_native"),
    [
        (RouteEvent(True, RANGE, 4, GATEWAY), False, True),
        (RouteEvent(True, RANGE, 2, FAR), True, False),
        (RouteEvent(False, RANGE, 4, GATEWAY), True, False),
        (RouteEvent(False, RANGE, 2, FAR), False, True),
        (RouteEvent(True, IPv4Network("10.244.9.0/24"), 2, FAR), True, True),
        (RouteEvent(True, IPv4Network("10.244.1.0/24"), 3, None), False, False),
        (RouteEvent(True, IPv4Network("192.0.2.0/24"), 2, FAR), False, False),
        (RouteEvent(True, IPv4Network("10.244.9.0/24"), 2, FAR, BIRD), False, False),
        (RouteEvent(False, RANGE, 2, FAR, BIRD), False, False),
        (LinkEvent(False, "cni0", True, 1450), True, True),
        (LinkEvent(True, "cni0", True, 1450), False, True),
        (LinkEvent(True, "cni0", True, 1500), True, False),
        (LinkEvent(True, "veth01234567", True, 1280), False, False),
        (LinkEvent(True, "flannel.1", True, 1450), False, True),
        (LinkEvent(True, "flannel.1", False, 1450), False, False),
        (LinkEvent(False, "flannel.1", True, 1450), True, False),
        (NeighbourEvent(True, False, 4, MAC, GATEWAY), False, False),
        (NeighbourEvent(True, False, 4, "0e:f1:00:00:00:09", GATEWAY), True, False),
        (NeighbourEvent(False, False, 4, MAC, GATEWAY), True, False),
        (NeighbourEvent(False, False, 3, MAC, GATEWAY), False, False),
        (NeighbourEvent(True, True, 4, MAC, FAR), False, False),
        (NeighbourEvent(True, True, 4, MAC, IPv4Address("172.18.0.9")), True, False),
        (NeighbourEvent(True, True, 4, "0e:f1:00:00:00:09", FAR), True, False),
        (NeighbourEvent(False, True, 4, MAC, FAR), True, False),
        (NeighbourEvent(True, True, 4, MAC, None), False, False),
    ],
    ids=str,
)
def test_only_what_others_change_concerns_us(event: Event, in_vxlan: bool, in_native: bool) -> None:
    assert (concerns(event, VXLAN), concerns(event, NATIVE)) == (in_vxlan, in_native)


POD, OWN_RANGE = IPv4Address("10.244.1.2"), IPv4Network("10.244.1.0/24")
CABLE = "veth01234567"
ROUTED = replace(NATIVE, pods={IPv4Network(POD): Cable(CABLE, 7), OWN_RANGE: Cable()})


@pytest.mark.parametrize(
    ("event", "theirs"),
    [
        (RouteEvent(True, IPv4Network(POD), 7, None), False),
        (RouteEvent(False, IPv4Network(POD), 7, None), True),
        (RouteEvent(True, IPv4Network(POD), 2, FAR), True),
        (RouteEvent(False, IPv4Network(POD), 2, FAR), False),
        (RouteEvent(False, IPv4Network("10.244.1.9/32"), 9, None), False),
        (RouteEvent(True, OWN_RANGE, 0, None), False),
        (RouteEvent(False, OWN_RANGE, 0, None), True),
        (LinkEvent(True, CABLE, True, 1500), False),
        (LinkEvent(True, CABLE, False, 1500), True),
        (LinkEvent(True, CABLE, True, 1400), True),
        (LinkEvent(False, CABLE, True, 1500), True),
        (LinkEvent(False, "veth89abcdef", True, 1500), False),
        (NeighbourEvent(True, False, 7, "0a:58:0a:f4:01:02", POD), False),
        (NeighbourEvent(True, False, 7, "", POD), True),
        (NeighbourEvent(True, False, 8, "", POD), False),
    ],
    ids=str,
)
def test_what_others_do_to_a_pods_own_cable_counts(event: Event, theirs: bool) -> None:
    assert concerns(event, ROUTED) is theirs
    assert concerns(event, NATIVE) is (
        isinstance(event, RouteEvent) and event.via is not None and event.there
    )


@pytest.mark.parametrize(
    ("event", "concerned"),
    [
        (RouteEvent(False, PODS, 5, None), True),
        (RouteEvent(True, PODS, 5, None), False),
        (RouteEvent(False, PODS, 9, None), False),
        (RouteEvent(True, RANGE, 2, FAR), True),
        (LinkEvent(True, "flannel-wg", True, 1420), False),
        (LinkEvent(True, "flannel-wg", True, 1500), True),
        (LinkEvent(True, "flannel-wg", False, 1420), True),
        (LinkEvent(False, "flannel-wg", True, 1420), True),
        (LinkEvent(True, "flannel.1", True, 1450), True),
    ],
    ids=str,
)
def test_an_encrypted_node_looks_after_its_one_device_and_route(event: Event, concerned: bool) -> None:
    kept = Kept(
        WireGuard().wanted([PEER], SEGMENT).paths,
        Devices(2),
        PODS,
        1420,
        tunnels={"flannel-wg": Tunnel(5, 1420)},
    )
    assert concerns(event, kept) is concerned
