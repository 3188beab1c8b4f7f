"""Routes to pods for machines that are no nodes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from netkit.podnet.direct import changes, ways


def node(name: str, address: str, pod_range: str) -> dict[str, Any]:
    addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pod_range} if pod_range else {},
        "status": {"addresses": addresses if address else []},
    }


def test_nodes_without_range_or_address_are_left_out() -> None:
    nodes = [
        node("a", "172.18.0.11", "10.244.0.0/24"),
        node("b", "172.18.0.12", ""),
        node("c", "", "10.244.2.0/24"),
        node("d", "nonsense", "10.244.3.0/24"),
    ]
    assert ways(nodes) == {IPv4Network("10.244.0.0/24"): IPv4Address("172.18.0.11")}


def test_only_what_differs_is_changed() -> None:
    one, two, three = (IPv4Network(f"10.244.{number}.0/24") for number in range(3))
    a, b = IPv4Address("172.18.0.11"), IPv4Address("172.18.0.12")
    assert changes({one: a, two: b}, {one: a, two: b}, 2) == []
    operations = [message.what for message in changes({one: a, two: b}, {two: a, three: b}, 2)]
    assert [operation.split(" dev")[0] for operation in operations] == [
        "ip route delete 10.244.0.0/24",
        "ip route replace 10.244.1.0/24 via 172.18.0.11",
        "ip route replace 10.244.2.0/24 via 172.18.0.12",
    ]
