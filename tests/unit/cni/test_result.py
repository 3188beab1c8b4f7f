from __future__ import annotations

from ipaddress import ip_interface

import pytest

from netkit.cni.result import Interface, Ip, Result, Route, parse, render
from netkit.cni.versions import SUPPORTED, at_least

RESULT = Result(
    (
        Interface("cni0", "0a:58:0a:16:00:01", mtu=1500),
        Interface("eth0", "0a:58:0a:16:00:02", "/run/netns/c", 1500),
    ),
    (Ip(ip_interface("10.22.0.2/24"), "10.22.0.1", 1), Ip(ip_interface("fd00::2/64"))),
    (Route("0.0.0.0/0"), Route("10.9.0.0/16", "10.22.0.9")),
    {"nameservers": ["10.96.0.10"]},
)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_survives_its_json(version: str) -> None:
    document = render(RESULT, version)
    found = parse(document)
    assert document["cniVersion"] == version
    assert found.ips == RESULT.ips
    assert found.routes == RESULT.routes
    assert found.dns == RESULT.dns
    assert [item.name for item in found.interfaces] == ["cni0", "eth0"]


@pytest.mark.parametrize(
    ("version", "says_version", "says_mtu"),
    [("0.3.1", True, False), ("0.4.0", True, False), ("1.0.0", False, False), ("1.1.0", False, True)],
)
def test_versions_differ_where_the_specification_does(
    version: str, says_version: bool, says_mtu: bool
) -> None:
    document = render(RESULT, version)
    assert [ip.get("version") for ip in document["ips"]] == (["4", "6"] if says_version else [None, None])
    assert [item.get("mtu") for item in document["interfaces"]] == (
        [1500, 1500] if says_mtu else [None, None]
    )
    assert document["interfaces"][0].get("sandbox") is None
    assert document["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.22.0.9"}]


def test_addresses_are_those_of_the_containers_interface() -> None:
    assert RESULT.addresses_in("/run/netns/c", "eth0") == RESULT.ips
    assert RESULT.addresses_in("/run/netns/c", "net1") == RESULT.ips[1:]
    other = parse({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.2/24", "interface": 0}]})
    assert other.addresses_in("/run/netns/c", "eth0") == ()


def test_versions_are_ordered_as_numbers() -> None:
    assert at_least("0.10.0", "0.4.0")
    assert not at_least("0.3.1", "0.4.0")
