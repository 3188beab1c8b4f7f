"""What the kernel lacks is refused by the name of its module."""

from ipaddress import ip_address

import pytest
from support.ipvs import World

from netkit.kernel import ipvs
from netkit.kernel.errors import Unsupported
from netkit.kernel.ipset import SetType
from netkit.kernel.ipvs_values import ServerKey, Transport, VirtualServer
from netkit.proxy.ipvs.node import kernel_settings
from netkit.proxy.ipvs.requirements import TRIAL, check
from netkit.proxy.ipvs.sets import DEVICE


def test_all_is_there_and_nothing_is_left() -> None:
    world = World()
    check(world.drivers, "rr")
    assert world.servers.known == {}
    assert world.sets.types == {}
    assert DEVICE not in world.node.devices
    assert f"ipvsadm -A -t {TRIAL.address}:20000 -s rr" in world.take()


def test_no_trial_where_the_scheduler_is_in_use() -> None:
    world = World()
    standing = VirtualServer(ServerKey(ip_address("172.30.0.1"), 443, Transport.TCP), "lc")
    world.servers.apply(ipvs.server_add(standing))
    world.take()
    check(world.drivers, "lc")
    assert not any("198.51.100.0" in line for line in world.take())


@pytest.mark.parametrize("module", ["ip_set_hash_ipportnet", "dummy", "xt_set"])
def test_what_is_missing_is_named(module: str) -> None:
    world = World()

    def no_dummy() -> None:
        raise Unsupported("dummy")

    match module:
        case "ip_set_hash_ipportnet":
            world.sets.has_type = lambda kind: kind is not SetType.HASH_IP_PORT_NET
        case "dummy":
            world.node.make_device = no_dummy
        case "xt_set":
            world.iptables.refusal = lambda text: "no such match" if "--match-set" in text else ""
    with pytest.raises(Unsupported) as caught:
        check(world.drivers, "rr")
    assert caught.value.operation == module
    assert world.sets.types == {}


@pytest.mark.parametrize(
    ("release", "reuse"),
    [("3.10.0", False), ("4.1.0", True), ("5.8.18-x", True), ("5.9.0", False), ("6.1.0", False)],
)
def test_port_reuse_is_switched_off_where_it_does_harm(release: str, reuse: bool) -> None:
    found = kernel_settings(strict_arp=False, release=release)
    assert ("net.ipv4.vs.conn_reuse_mode" in found) == reuse
    assert found["net.ipv4.ip_forward"] == 1
