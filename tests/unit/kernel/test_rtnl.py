"""The encoders against pyroute2's decoder: what the kernel would be told."""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from netkit.kernel import rtnl
from netkit.kernel.errors import KernelError
from netkit.kernel.fake import FakeRtnl
from netkit.kernel.rtnl import Message


def decoded(message: Message) -> Any:
    data = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags | 1, 7, 0) + message.body
    (found,) = MarshalRtnl().parse(data)
    return found


def test_veth() -> None:
    message = decoded(
        rtnl.veth("va", "eth0", mac="0a:58:00:00:00:01", peer_mac="0a:58:00:00:00:02", mtu=1450, master=7)
    )
    assert message["event"] == "RTM_NEWLINK"
    assert message.get_attr("IFLA_IFNAME") == "va"
    assert message.get_attr("IFLA_MASTER") == 7
    assert message.get_attr("IFLA_ADDRESS") == "0a:58:00:00:00:01"
    assert message["flags"] & 1
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_MTU") == 1450
    assert peer.get_attr("IFLA_ADDRESS") == "0a:58:00:00:00:02"
    assert not peer["flags"] & 1


def test_vxlan() -> None:
    message = rtnl.vxlan(
        "flannel.1", vni=1, local=IPv4Address("172.18.0.2"), device=2, mac="0e:f1:ac:12:00:02"
    )
    data = decoded(message).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_VXLAN_ID") == 1
    assert data.get_attr("IFLA_VXLAN_LOCAL") == "172.18.0.2"
    assert data.get_attr("IFLA_VXLAN_PORT") == 8472
    assert data.get_attr("IFLA_VXLAN_LINK") == 2
    assert data.get_attr("IFLA_VXLAN_LEARNING") == 0


def test_address_has_its_broadcast() -> None:
    message = decoded(rtnl.address_add(IPv4Interface("10.244.1.1/24"), 4))
    assert message["prefixlen"] == 24
    assert message.get_attr("IFA_LOCAL") == "10.244.1.1"
    assert message.get_attr("IFA_BROADCAST") == "10.244.1.255"
    assert decoded(rtnl.address_add(IPv4Interface("10.244.1.0/32"), 4)).get_attr("IFA_BROADCAST") is None


def test_routes() -> None:
    target = IPv4Network("10.244.2.0/24")
    message = decoded(rtnl.route_replace(target, 3, via=target.network_address, onlink=True))
    assert (message["dst_len"], message.get_attr("RTA_DST")) == (24, "10.244.2.0")
    assert message.get_attr("RTA_GATEWAY") == "10.244.2.0"
    assert message["flags"] & 4
    default = decoded(rtnl.route_replace(IPv4Network("0.0.0.0/0"), 3, via=IPv4Address("10.0.0.1")))
    assert default.get_attr("RTA_DST") is None


def test_fdb_and_neighbour() -> None:
    fdb = decoded(rtnl.fdb_replace("0e:f1:ac:12:00:03", IPv4Address("172.18.0.3"), 5))
    assert fdb["family"] == 7
    assert fdb.get_attr("NDA_LLADDR") == "0e:f1:ac:12:00:03"
    neighbour = decoded(rtnl.neighbour_replace(IPv4Address("10.244.2.0"), "0e:f1:ac:12:00:03", 5))
    assert neighbour["state"] == 0x80
    assert neighbour.get_attr("NDA_DST") == "10.244.2.0"


def test_messages_print_as_commands() -> None:
    assert str(rtnl.link_up("eth0", mtu=1450)) == "ip link set eth0 up mtu 1450"
    assert (
        str(rtnl.route_replace(IPv4Network("10.244.2.0/24"), 3, via=IPv4Address("10.244.2.0"), onlink=True))
        == "ip route replace 10.244.2.0/24 via 10.244.2.0 dev 3 onlink"
    )


def test_hardware_addresses_follow_the_address() -> None:
    assert rtnl.mac_of(IPv4Address("10.244.1.23")) == "0a:58:0a:f4:01:17"


def test_the_fake_prints_and_refuses() -> None:
    fake = FakeRtnl({"lo": 1}, refuse={"ip link delete": errno.ENODEV})
    fake.apply(rtnl.bridge("cni0"))
    assert fake.link_index("cni0") == 2
    fake.apply(rtnl.link_delete("gone").allowing(errno.ENODEV))
    with pytest.raises(KernelError, match="ip link delete gone"):
        fake.apply(rtnl.link_delete("gone"))
    assert str(fake).splitlines()[0] == "ip link add cni0 mtu 1500 type bridge"
