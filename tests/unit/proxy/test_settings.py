"""Configuration values and what they mean."""

from ipaddress import ip_address

import pytest

from netkit.proxy.addresses import Family
from netkit.proxy.detector import DetectLocalMode, InterfaceDetector, SourceDetector
from netkit.proxy.settings import ProxySettings


def test_cluster_cidr_per_family() -> None:
    settings = ProxySettings(cluster_cidr="10.244.0.0/16,fd00:10::/56")
    four, six = settings.detector(Family.IPV4), settings.detector(Family.IPV6)
    assert isinstance(four, SourceDetector)
    assert isinstance(six, SourceDetector)
    assert four.is_local(ip_address("10.244.3.4"), "eth0")
    assert not four.is_local(ip_address("10.245.3.4"), "eth0")
    assert not four.is_local(ip_address("fd00:10::1"), "eth0")
    assert six.is_local(ip_address("fd00:10::1"), "eth0")


def test_no_range_no_detector() -> None:
    assert ProxySettings().detector(Family.IPV4) is None
    assert ProxySettings(cluster_cidr="10.244.0.0/16").detector(Family.IPV6) is None


def test_node_cidr_needs_the_node() -> None:
    settings = ProxySettings(detect_local_mode=DetectLocalMode.NODE_CIDR, cluster_cidr="10.244.0.0/16")
    assert settings.detector(Family.IPV4) is None
    found = settings.detector(Family.IPV4, ["10.244.1.0/24"])
    assert found is not None
    assert not found.is_local(ip_address("10.244.2.1"), "")


def test_interfaces() -> None:
    bridge = ProxySettings(detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cni0")
    prefix = ProxySettings(
        detect_local_mode=DetectLocalMode.INTERFACE_NAME_PREFIX, interface_name_prefix="veth"
    )
    source = ip_address("1.1.1.1")
    assert bridge.detector(Family.IPV4) == InterfaceDetector("cni0")
    by_bridge, by_prefix = bridge.detector(Family.IPV4), prefix.detector(Family.IPV4)
    assert by_bridge is not None
    assert by_prefix is not None
    assert [by_bridge.is_local(source, name) for name in ("cni0", "cni01")] == [True, False]
    assert [by_prefix.is_local(source, name) for name in ("veth1", "eth0")] == [True, False]


@pytest.mark.parametrize(
    ("given", "four"),
    [
        ((), []),
        (("192.168.0.0/24",), ["192.168.0.0/24"]),
        (("0.0.0.0/0", "192.168.0.0/24"), []),
        (("fd00::/8",), []),
    ],
)
def test_node_port_addresses(given: tuple[str, ...], four: list[str]) -> None:
    ranges = ProxySettings(node_port_addresses=given).node_port_ranges(Family.IPV4)
    assert [str(network) for network in ranges] == four


@pytest.mark.parametrize(
    ("given", "family", "allowed"),
    [
        ((), Family.IPV4, True),
        ((), Family.IPV6, False),
        (("192.168.0.0/24",), Family.IPV4, False),
        (("192.168.0.0/24", "127.0.0.1/32"), Family.IPV4, True),
        (("127.0.0.0/8",), Family.IPV4, True),
        (("126.0.0.0/7",), Family.IPV4, True),
        (("0.0.0.0/0",), Family.IPV4, True),
        (("fd00::/8",), Family.IPV4, True),
        (("::1/128",), Family.IPV6, False),
    ],
)
def test_loopback_node_ports(given: tuple[str, ...], family: Family, allowed: bool) -> None:
    assert ProxySettings(node_port_addresses=given).loopback_node_ports(family) == allowed
    quiet = ProxySettings(node_port_addresses=given, localhost_node_ports=False)
    assert not quiet.loopback_node_ports(family)


def test_primary_addresses_are_one_per_family() -> None:
    found = ["192.168.0.2", "192.168.0.3", "fd00::2"]
    assert [str(ip) for ip in ProxySettings().node_addresses(found)] == ["192.168.0.2", "fd00::2"]
    assert [str(ip) for ip in ProxySettings(node_address="10.0.0.1").node_addresses(found)] == ["10.0.0.1"]


@pytest.mark.parametrize(
    "wrong", [{"masquerade_bit": 32}, {"sync_burst": 0}, {"sync_period": 0}, {"min_sync_period": -1}]
)
def test_impossible_values_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        ProxySettings(**wrong)
