from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest
from support.kernel import spec_of

from netkit.fabric.spec import InterfaceSpec, MachineSpec, host_link_name, namespace_name, port_name


def test_names() -> None:
    assert namespace_name("demo", "worker1") == "demo.worker1"
    assert host_link_name("demo") == "nk-demo"
    assert port_name("control-plane") == "control-plane"


@pytest.mark.parametrize("cluster", ["twelve-chars", "a-cluster-with-a-very-long-name", "thirteenchars"])
def test_host_links_fit_and_differ(cluster: str) -> None:
    name = host_link_name(cluster)
    assert len(name) <= 15
    assert name.startswith("nk-")
    assert name != host_link_name(cluster + "x")


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("a.b", "172.18.0.9/16", "no dots"),
        ("switch", "172.18.0.9/16", "taken"),
        ("node1", "172.18.0.9/16", "taken"),
        ("other", "172.18.0.1/16", "belongs to the host"),
        ("other", "172.18.0.2/16", "belongs to node1"),
        ("other", "172.19.0.9/16", "not in the segment"),
        ("other", "172.18.0.9/24", "not in the segment"),
        ("other", "172.18.255.255/16", "broadcast"),
    ],
)
def test_machines_that_cannot_be_are_refused(name: str, address: str, message: str) -> None:
    spec = spec_of("node1")
    machine = MachineSpec(name, (InterfaceSpec("lan", IPv4Interface(address)),))
    with pytest.raises(ValueError, match=message):
        replace(spec, machines=(*spec.machines, machine))


def test_other_values_are_checked() -> None:
    with pytest.raises(ValueError, match="cluster name"):
        spec_of("node1", cluster="Has.Dots")
    with pytest.raises(ValueError, match="mtu"):
        spec_of("node1", mtu=500)
    with pytest.raises(ValueError, match="host link"):
        replace(spec_of("node1"), host_link="x" * 16)
