"""The plug-in netkit-cni, called as a runtime calls it: a program, an environment, JSON."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from support.cni import Cnitool, Refused, containers, debian_plugins
from support.kernel import own_host, source_seen, wait_for

from netkit.kernel import netns, process, rtnl, rtnl_read
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl

needs_plugins = pytest.mark.skipif(not debian_plugins(), reason="needs Debian's containernetworking-plugins")
SUBNET = "10.22.0.0/24"


def config(place: Path, **fields: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0", "name": "lab", "type": "netkit-cni", "dataDir": str(place / "data"),
        "ipam": {"type": "netkit", "subnet": SUBNET}, **fields,
    }  # fmt: skip


def host_local(place: Path) -> dict[str, Any]:
    ranges = [[{"subnet": SUBNET}]]
    return {
        "type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(place / "leases"),
    }  # fmt: skip


def connect_outside(machine: Namespace, outside: Namespace) -> None:
    with Rtnl(machine) as links, Rtnl(outside) as beyond:
        links.apply(rtnl.veth("uplink", "eth0", outside))
        here, there = links.link_index("uplink"), beyond.link_index("eth0")
        assert here is not None
        assert there is not None
        links.apply(rtnl.address_add(IPv4Interface("192.0.2.1/24"), here), rtnl.link_up("lo"))
        beyond.apply(
            rtnl.link_up("lo"), rtnl.link_up(there), rtnl.address_add(IPv4Interface("192.0.2.2/24"), there)
        )


def no_veth(machine: Namespace) -> bool:
    return not [name for name in rtnl_read.links(machine) if name.startswith("veth")]


@own_host
@pytest.mark.parametrize("ipam", ["netkit", pytest.param("host-local", marks=needs_plugins)])
@pytest.mark.parametrize("attach", ["bridge", "ptp"])
def test_containers_reach_each_other_and_the_world(tmp_path: Path, attach: str, ipam: str) -> None:
    addresses = {"ipam": host_local(tmp_path)} if ipam == "host-local" else {}
    with containers(tmp_path, "machine", "a", "b", "outside") as (machine, a, b, outside):
        connect_outside(machine, outside)
        tool = Cnitool(machine, tmp_path, config(tmp_path, attach=attach, ipMasq=True, **addresses))
        first, second = tool.add("one", a), tool.add("two", b)
        length = 24 if attach == "bridge" else 32
        assert [ip["address"] for ip in first["ips"]] == [f"10.22.0.2/{length}"]
        assert first["ips"][0]["gateway"] == "10.22.0.1"
        assert first["cniVersion"] == "1.0.0"
        assert first["routes"] == [{"dst": "0.0.0.0/0"}]
        inner = first["interfaces"][first["ips"][0]["interface"]]
        assert inner == {"name": "eth0", "mac": "0a:58:0a:16:00:02", "sandbox": a.path}
        assert [item["name"] for item in first["interfaces"][:-1] if "veth" not in item["name"]] == (
            ["cni0"] if attach == "bridge" else []
        )
        assert source_seen(a, b, "10.22.0.3") == "10.22.0.2"
        assert source_seen(machine, b, "10.22.0.3") == "10.22.0.1"
        assert source_seen(a, outside, "192.0.2.2") == "192.0.2.1"
        tool.check("one", a)
        tool.check("two", b)
        assert second["ips"][0]["address"].startswith("10.22.0.3/")
        # Once more is fine, also when the namespace is gone.
        for ns in (a, a, None):
            tool.delete("one", ns)
        assert source_seen(machine, b, "10.22.0.3") == "10.22.0.1"
        tool.delete("two")
        assert no_veth(machine)
        assert "eth0" not in rtnl_read.links(b)
        saved = process.run(["iptables-legacy-save", "-t", "nat"], ns=machine, check=True).stdout.decode()
        assert "CNI-" not in saved
        # The address comes back in its turn, not at once.
        assert tool.add("three", a)["ips"][0]["address"].startswith("10.22.0.4/")


@own_host
@pytest.mark.parametrize(
    "damage",
    [
        "ip -n c.a addr del {address} dev eth0", "ip -n c.a route del default", "ip -n c.a link set eth0 down",
        "ip -n c.machine link del {veth}", "ip -n c.machine link del cni0",
    ],
)  # fmt: skip
def test_check_names_what_is_not_as_it_was_made(tmp_path: Path, damage: str) -> None:
    with containers(tmp_path, "machine", "a") as (machine, a):
        tool = Cnitool(machine, tmp_path, config(tmp_path))
        made = tool.add("one", a)
        tool.check("one", a)
        veth = next(item["name"] for item in made["interfaces"] if item["name"].startswith("veth"))
        process.run(damage.format(address=made["ips"][0]["address"], veth=veth).split(), check=True)
        with pytest.raises(Refused) as refused:
            tool.check("one", a)
        assert refused.value.code == 100
        assert refused.value.returncode == 1
        assert any(word in refused.value.told["details"] for word in ("missing", "lacks", "down"))
        tool.delete("one", a)


@own_host
def test_what_no_runtime_knows_any_more_is_collected(tmp_path: Path) -> None:
    with containers(tmp_path, "machine", "a", "b") as (machine, a, b):
        tool = Cnitool(machine, tmp_path, config(tmp_path, cniVersion="1.1.0"))
        kept = tool.add("kept", a)
        assert kept["interfaces"][-1]["mtu"] == 1500
        tool.add("stale", b)
        valid = [{"containerID": "kept", "ifname": "eth0"}]
        assert tool.call("GC", **{"cni.dev/valid-attachments": valid}) is None
        tool.check("kept", a)
        assert wait_for(lambda: "eth0" not in rtnl_read.links(b))
        with pytest.raises(Refused) as refused:
            tool.check("stale", b)
        assert refused.value.code == 3
        assert tool.call("STATUS") is None
        tool.delete("kept")


@own_host
def test_a_full_subnet_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with containers(tmp_path, "machine", "a", "b") as (machine, a, b):
        small = config(tmp_path, cniVersion="1.1.0", ipam={"type": "netkit", "subnet": "10.22.0.0/29"})
        tool = Cnitool(machine, tmp_path, small)
        for number in range(5):
            tool.call("ADD", f"c{number}", a.path, f"eth{number}")
        with pytest.raises(Refused) as refused:
            tool.add("more", b)
        assert "no free address in pod range 10.22.0.0/29" in refused.value.told["msg"]
        with pytest.raises(Refused) as refused:
            tool.call("STATUS")
        assert refused.value.code == 51
        assert "eth0" not in rtnl_read.links(b)
        for number in range(5):
            tool.call("DEL", f"c{number}", a.path, f"eth{number}")
        assert no_veth(machine)


@own_host
def test_refusals_leave_nothing(tmp_path: Path) -> None:
    with containers(tmp_path, "machine", "a") as (machine, a):
        tool = Cnitool(machine, tmp_path, config(tmp_path))
        tool.add("one", a)
        with pytest.raises(Refused, match="eth0") as refused:
            tool.call("ADD", "two", a.path)
        assert "already exists" in refused.value.told["msg"]
        tool.check("one", a)
        with pytest.raises(Refused):
            tool.call("ADD", "three", "/run/netns/none")
        with pytest.raises(Refused) as refused:
            tool.call("ADD", "three", machine.path)
        assert refused.value.code == 4
        tool.config["ipam"] = {"type": "no-such-plugin"}
        with pytest.raises(Refused) as refused:
            tool.call("ADD", "three", a.path, "eth1")
        assert 'failed to find plugin "no-such-plugin" in path' in refused.value.told["msg"]
        tool.config = config(tmp_path, bridge="lo")
        with pytest.raises(Refused, match="not a bridge"):
            tool.call("ADD", "three", a.path, "eth1")
        tool.config = config(tmp_path)
        tool.delete("one")
        assert no_veth(machine)
        assert netns.exists("c.a")


@own_host
def test_what_a_killed_plugin_has_made_is_taken_back(tmp_path: Path) -> None:
    with containers(tmp_path, "machine", "a") as (machine, a):
        tool = Cnitool(machine, tmp_path, config(tmp_path, ipam={"type": "deadly"}))
        deadly = tmp_path / "bin" / "deadly"
        deadly.write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && kill -9 $PPID\nexit 0\n')
        deadly.chmod(0o755)
        with pytest.raises(AssertionError):
            tool.add("one", a)
        (made,) = json.loads((tmp_path / "data" / "lab.json").read_text())["attachments"]
        assert made["container"] == "one"
        tool.delete("one", a)
        assert json.loads((tmp_path / "data" / "lab.json").read_text())["attachments"] == []
        tool.config = config(tmp_path)
        tool.add("one", a)
        tool.check("one", a)
        tool.delete("one")


@own_host
def test_calls_at_the_same_time_get_addresses_of_their_own(tmp_path: Path) -> None:
    with containers(tmp_path, "machine", "a") as (machine, a):
        tool = Cnitool(machine, tmp_path, config(tmp_path))
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda n: tool.call("ADD", f"c{n}", a.path, f"eth{n}"), range(8)))
        assert len({result["ips"][0]["address"] for result in made}) == 8
        for number in range(8):
            tool.call("DEL", f"c{number}", a.path, f"eth{number}")
        assert no_veth(machine)
