"""What the encoders make, read back from the kernel, by our decoder and by pyroute2's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from support.kernel import own_host, wait_for

from netkit.kernel import netns, rtnl, rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.teardown import teardown

PEER_RANGE = IPv4Network("10.244.1.0/24")


@own_host
def test_everything_is_read_back_as_made(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    no_ipv6 = {"net.ipv6.conf.default.disable_ipv6": "1"}
    with (
        netns.create("kt.a", ledger, no_ipv6) as a,
        netns.create("kt.b", ledger, no_ipv6) as b,
        Rtnl(a) as links,
    ):
        links.apply(rtnl.bridge("cni0", mac="0a:58:0a:f4:00:01", mtu=1450))
        bridge = links.link_index("cni0")
        assert bridge is not None
        links.apply(
            rtnl.veth("v1", "eth0", b, mtu=1450, master=bridge, peer_mac="0a:58:0a:f4:00:02"),
            rtnl.hairpin("v1"),
            rtnl.address_add(IPv4Interface("10.244.0.1/24"), bridge),
            rtnl.vxlan(
                "flannel.1", vni=1, local=IPv4Address("172.18.0.2"), device=bridge, mac="0e:f1:00:00:00:02"
            ),
        )
        device = links.link_index("flannel.1")
        assert device is not None
        mac = "0e:f1:00:00:00:03"
        links.apply(
            rtnl.fdb_replace(mac, IPv4Address("172.18.0.3"), device),
            rtnl.fdb_replace(mac, IPv4Address("172.18.0.4"), device),
            rtnl.neighbour_replace(PEER_RANGE.network_address, mac, device),
            rtnl.route_replace(PEER_RANGE, device, via=PEER_RANGE.network_address, onlink=True),
        )
        found = rtnl_read.links(a)
        assert (found["cni0"].kind, found["cni0"].mac, found["cni0"].mtu) == (
            "bridge",
            "0a:58:0a:f4:00:01",
            1450,
        )
        assert (found["v1"].master, found["v1"].hairpin, found["v1"].up) == (bridge, True, True)
        assert found["flannel.1"].vxlan == rtnl_read.Vxlan(1, IPv4Address("172.18.0.2"), 8472, bridge, False)
        inside = rtnl_read.links(b)["eth0"]
        assert (inside.mac, inside.mtu, inside.up) == ("0a:58:0a:f4:00:02", 1450, False)
        assert [str(entry.address) for entry in rtnl_read.addresses(a, bridge)] == ["10.244.0.1/24"]
        assert [(r.target, r.via, r.onlink) for r in rtnl_read.routes(a, device)] == [
            (PEER_RANGE, PEER_RANGE.network_address, True)
        ]
        assert [(e.mac, str(e.remote)) for e in rtnl_read.fdb(a, device)] == [(mac, "172.18.0.4")]
        assert [n.mac for n in rtnl_read.neighbours(a, device) if n.state & rtnl_read.PERMANENT] == [mac]

        links.apply(
            rtnl.route_delete(PEER_RANGE, device),
            rtnl.neighbour_delete(PEER_RANGE.network_address, device),
            rtnl.fdb_delete(mac, device),
            # Gone already: no error.
            rtnl.route_delete(PEER_RANGE, device),
            rtnl.neighbour_delete(PEER_RANGE.network_address, device),
            rtnl.fdb_delete(mac, device),
            rtnl.address_delete(IPv4Interface("10.0.0.1/8"), device),
        )
        assert rtnl_read.routes(a, device) == []
        assert rtnl_read.fdb(a, device) == []
    teardown(tmp_path / "l")


@own_host
def test_errors_name_the_message_and_the_rest_is_done(tmp_path: Path) -> None:
    with netns.create("kt.a", Ledger(tmp_path / "l", "me")) as a, Rtnl(a) as links:
        with pytest.raises(KernelError) as caught:
            links.apply(rtnl.link_up("nope"), rtnl.bridge("br0"), rtnl.bridge("br0"))
        assert caught.value.operation == "ip link set nope up"
        assert caught.value.namespace == "kt.a"
        assert caught.value.is_not_found
        assert "and 1 more" in caught.value.__notes__[0]
        assert links.link_index("br0") is not None
        with pytest.raises(KernelError, match="Unknown device type"):
            links.apply(rtnl.plain_link("x0", "no-such-kind"))
        # The socket is in step after failures.
        links.apply(rtnl.link_up("lo"))
    teardown(tmp_path / "l")


@own_host
def test_a_batch_larger_than_one_send(tmp_path: Path) -> None:
    with netns.create("kt.a", Ledger(tmp_path / "l", "me")) as a, Rtnl(a) as links:
        links.apply(rtnl.bridge("br0"))
        index = links.link_index("br0")
        assert index is not None
        first = IPv4Address("10.0.0.1")
        links.apply(*(rtnl.neighbour_replace(first + i, "0a:58:00:00:00:01", index) for i in range(5000)))
        assert sum(n.state & rtnl_read.PERMANENT != 0 for n in rtnl_read.neighbours(a, index)) == 5000
    teardown(tmp_path / "l")


@own_host
def test_a_link_without_ipv6_address(tmp_path: Path) -> None:
    with netns.create("kt.a", Ledger(tmp_path / "l", "me")) as a, Rtnl(a) as links:
        links.apply(
            rtnl.veth("with", "p1", up=False), rtnl.veth("without", "p2", up=False), rtnl.no_ipv6_addresses("without"),
            *(rtnl.link_up(name) for name in ("p1", "p2", "with", "without")),
        )  # fmt: skip

        def with_ipv6() -> set[int]:
            return {entry.index for entry in rtnl_read.addresses(a) if entry.address.version == 6}

        # The kernel gives the address when it has noticed the carrier, which takes it a moment.
        assert wait_for(lambda: links.link_index("with") in with_ipv6())
        assert links.link_index("without") not in with_ipv6()
    teardown(tmp_path / "l")


def by_pyroute2(ns: netns.Namespace, kind: int, body: bytes) -> Iterator[Any]:
    """The messages of a dump as pyroute2 decodes them."""
    with netns.socket_in(ns, socket.AF_NETLINK, socket.SOCK_RAW, 0) as dump:
        dump.bind((0, 0))
        dump.send(struct.pack("=IHHII", 16 + len(body), kind, 0x301, 1, 0) + body)
        while True:
            for message in MarshalRtnl().parse(dump.recv(1 << 16)):
                if message["header"]["type"] == 3:
                    return
                yield message


@own_host
def test_both_decoders_read_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    with netns.create("kt.a", ledger) as a, netns.create("kt.b", ledger) as b, Rtnl(a) as links:
        links.apply(rtnl.link_up("lo"), rtnl.bridge("cni0", mac="0a:58:0a:f4:00:01", mtu=1400))
        bridge = links.link_index("cni0")
        assert bridge is not None
        links.apply(
            rtnl.veth("v1", "eth0", b, mtu=1400, master=bridge),
            rtnl.address_add(IPv4Interface("10.244.0.1/24"), bridge),
            rtnl.vxlan(
                "flannel.1", vni=7, local=IPv4Address("172.18.0.2"), device=bridge, mac="0e:f1:00:00:00:02"
            ),
        )
        device = links.link_index("flannel.1")
        assert device is not None
        mac = "0e:f1:00:00:00:03"
        links.apply(
            rtnl.fdb_replace(mac, IPv4Address("172.18.0.3"), device),
            rtnl.neighbour_replace(PEER_RANGE.network_address, mac, device),
            rtnl.route_replace(PEER_RANGE, device, via=PEER_RANGE.network_address, onlink=True),
        )
        assert {
            (m["index"], m.get_attr("IFLA_IFNAME"), m.get_attr("IFLA_ADDRESS"), m.get_attr("IFLA_MTU"))
            for m in by_pyroute2(a, 18, bytes(16))
        } == {(link.index, link.name, link.mac, link.mtu) for link in rtnl_read.links(a).values()}
        assert {
            (m["index"], f"{m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}")
            for m in by_pyroute2(a, 22, bytes(8))
        } == {(entry.index, str(entry.address)) for entry in rtnl_read.addresses(a)}
        assert {
            (
                f"{m.get_attr('RTA_DST') or '0.0.0.0'}/{m['dst_len']}",
                m.get_attr("RTA_OIF"),
                m.get_attr("RTA_GATEWAY"),
            )
            for m in by_pyroute2(a, 26, struct.pack("=B11x", socket.AF_INET))
            if m.get_attr("RTA_TABLE") == 254
        } == {(str(r.target), r.index, str(r.via) if r.via else None) for r in rtnl_read.routes(a)}
        assert {
            (m["ifindex"], m.get_attr("NDA_DST"), m.get_attr("NDA_LLADDR"), m["state"])
            for m in by_pyroute2(a, 30, struct.pack("=B11x", socket.AF_INET))
        } == {(n.index, str(n.address), n.mac, n.state) for n in rtnl_read.neighbours(a)}
        assert {
            (m["ifindex"], m.get_attr("NDA_LLADDR"), m.get_attr("NDA_DST"), m["state"])
            for m in by_pyroute2(a, 30, struct.pack("=B11x", socket.AF_BRIDGE))
        } == {(e.index, e.mac, str(e.remote) if e.remote else None, e.state) for e in rtnl_read.fdb(a)}
    teardown(tmp_path / "l")
