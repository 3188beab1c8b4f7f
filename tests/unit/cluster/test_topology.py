"""Topology files: their form, what is refused and where, addresses, ways, and pictures of them."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from netkit.cluster import topology_draw
from netkit.cluster.config import ClusterConfig, check, load, parse
from netkit.cluster.errors import ConfigError
from netkit.cluster.plan import Plan
from netkit.cluster.topology import Role, Topology
from netkit.cluster.topology_document import document
from netkit.cluster.topology_fields import TopologyError
from netkit.cluster.topology_file import find, ready_made, schema
from netkit.cluster.topology_file import parse as read
from netkit.cluster.topology_layout import NoRoom, fabric, gateway, path_mtu, place, router_ways, ways
from netkit.fabric.spec import LinkProperties

BASE = IPv4Network("172.18.0.0/16")
ZONES: dict[str, Any] = {
    "segments": [
        {"name": "a", "subnet": "10.1.0.0/24"},
        {"name": "b", "subnet": "10.2.0.0/24", "mtu": 1400},
    ],
    "zones": [{"name": "east", "region": "r"}],
    "routers": [{"name": "r", "interfaces": [{"segment": "a", "address": "10.1.0.1"}, "b"]}],
    "nodes": [
        {"name": "n1", "zone": "east", "labels": {"disk": "ssd"}, "interfaces": ["a"]},
        {
            "name": "n2",
            "interfaces": [{"segment": "b", "address": "10.2.0.77", "link": {"delay": "10ms"}}, "a"],
        },
    ],
}


def changed(path: str, value: object) -> dict[str, Any]:
    """ZONES with one value set, such as `nodes[0].zone`; None takes it away."""
    made = copy.deepcopy(ZONES)
    *way, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]
    place_: Any = made
    for part in way:
        place_ = place_[part]
    if value is None:
        del place_[last]
    elif isinstance(last, int) and last == len(place_):
        place_.append(value)
    else:
        place_[last] = value
    return made


def faults(found: object) -> list[str]:
    with pytest.raises(TopologyError) as refused:
        read(found)
    return [str(fault) for fault in refused.value.faults]


def placed(name: str) -> Topology:
    return place(find(name), BASE)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nodes[0].zone", "west", "nodes[0].zone: there is no zone west"),
        ("nodes[0].interfaces", ["c"], "nodes[0].interfaces[0].segment: there is no segment 'c'; there are: a, b"),
        ("nodes[0].interfaces", ["a", "a"], "nodes[0].interfaces[0].segment: n1 is on segment a twice"),
        ("nodes[0].interfaces", [], "nodes[0].interfaces: at least one is needed"),
        ("nodes[0].interfaces", None, "nodes[0].interfaces: is needed where there are several segments"),
        ("nodes[0].name", "n2", "nodes[1].name: n2 is the name of nodes[0] as well"),
        ("nodes[0].name", "r", "nodes[0].name: r is the name of routers[0] as well"),
        ("nodes[0].name", "switch", "nodes[0].name: switch is a name the cluster uses itself"),
        ("nodes[0].name", "N_1", "nodes[0].name: 'N_1': lower-case letters"),
        ("nodes[0].name", None, "nodes[0].name: is needed"),
        ("nodes[0].name", 7, "nodes[0].name: expected text, got a number"),
        ("nodes[0].labels", {"a b": "c"}, "nodes[0].labels.a b: a b=c cannot be a label"),
        ("nodes[0].labels", {"a": 1}, "nodes[0].labels.a: expected text, got a number"),
        ("nodes[0].zome", "east", "nodes[0].zome: unknown field; did you mean zone?"),
        ("nodes", [], "nodes: at least one is needed"),
        ("nodes", {"n1": {}}, "nodes: expected a list, got a mapping"),
        ("segments[1].subnet", "10.1.0.0/16", "segments[1].subnet: 10.1.0.0/16 overlaps 10.1.0.0/24 of segment a"),
        ("segments[1].subnet", "10.2.0.1/24", "segments[1].subnet: 10.2.0.1/24 has host bits set"),
        ("segments[1].subnet", "fd00::/64", "segments[1].subnet: 'fd00::/64' is not an IPv4 range"),
        ("segments[1].subnet", "127.0.0.0/24", "segments[1].subnet: 127.0.0.0/24 cannot be used for a segment"),
        ("segments[1].subnet", "10.2.0.76/30", "segments[1].subnet: 10.2.0.76/30 is too small"),
        ("segments[1].subnet", None, "nodes[1].interfaces[0].address: 10.2.0.77 is given, but segment b has no subnet"),
        ("segments[1].name", "a", "segments[1].name: a is the name of segments[0] as well"),
        ("segments[1].mtu", 575, "segments[1].mtu: 575 is not between 576 and 65535"),
        ("segments[1].mtu", "big", "segments[1].mtu: expected a whole number, got text"),
        ("segments", [], "segments: at least one is needed"),
        ("segments[2]", {"name": "c"}, "segments[2]: no router joins segment c and segment a"),
        ("routers", [], "segments[1]: no router joins segment b and segment a"),
        ("routers[0].interfaces", ["a"], "routers[0].interfaces: router r joins nothing"),
        ("routers[0].asn", 0, "routers[0].asn: 0 is not between 1 and 4294967294"),
        ("nodes[1].interfaces[0].address", "10.1.0.1", "is the address of r as well"),
        ("nodes[1].interfaces[0].address", "10.1.0.9", "10.1.0.9 is not in 10.2.0.0/24 of segment b"),
        ("nodes[1].interfaces[0].address", "10.2.0.255", "10.2.0.255 is the network or broadcast address"),
        ("nodes[1].interfaces[0].address", "ten", "'ten' is not an IPv4 address"),
        ("nodes[1].interfaces[0].link.delay", "fast", "interfaces[0].link.delay: 'fast' is not a time such as 10ms"),
        ("nodes[1].interfaces[0].link.rate", "100", "interfaces[0].link.rate: '100' is not a rate such as"),
        ("nodes[1].interfaces[0].link.loss", "101%", "interfaces[0].link.loss: 101% is more than 100%"),
        ("nodes[1].interfaces[0].link.loss", 0.1, "interfaces[0].link.loss: 0.1 is not a share such as 1%"),
        ("nodes[1].interfaces[0].link.jitter", "11ms", "interfaces[0].link.jitter: is more than link.delay"),
        ("nodes[1].interfaces[0].link.mtu", 100, "interfaces[0].link.mtu: 100 is not between 576 and 65535"),
        ("nodes[1].interfaces[0].link.speed", "1", "interfaces[0].link.speed: unknown field"),
        ("host", {"segment": "a", "link": {"loss": "1%"}}, "host.link: this machine's own network is left as it is"),
        ("host", "c", "host.segment: there is no segment 'c'"),
        ("controlPlane", {"address": "10.9.0.1"}, "controlPlane.address: 10.9.0.1 is not in 10.1.0.0/24"),
        ("clients", [{"name": "x", "zone": "east", "interfaces": ["a"]}], "clients[0].zone: unknown field"),
        ("kind", "Cluster", "kind: must be Topology"),
        ("links", [], "links: unknown field"),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_its_path(path: str, value: object, message: str) -> None:
    assert any(message in fault for fault in faults(changed(path, value))), faults(changed(path, value))


def test_a_node_that_no_router_joins_is_named_and_so_is_all_that_is_wrong_at_once() -> None:
    made = changed("routers", [])
    made["nodes"] = [*made["nodes"][:1], {"name": "n2", "interfaces": ["b"]}]
    found = faults(made)
    assert found == [
        "nodes[1].interfaces[0].segment: n2 cannot reach the control plane: no router joins b and a",
        "segments[1]: no router joins segment b and segment a",
    ]
    assert (
        len(faults({**ZONES, "zones": [{}], "nodes": [{"interfaces": [{"address": "x"}]}], "what": 1})) == 5
    )


@pytest.mark.parametrize("document_", ["text", [], 5])
def test_what_is_no_mapping_is_refused(document_: object) -> None:
    assert any("expected a mapping" in fault for fault in faults(document_))


def test_a_segment_must_have_room_for_all_on_it() -> None:
    made = changed("segments[0].subnet", "10.1.0.0/29")
    made["nodes"] += [{"name": f"m{n}", "interfaces": ["a"]} for n in range(4)]
    assert "segments[0].subnet: has room for 6 machines, and 10 are on it" in faults(made)


def test_ready_made_topologies_fit_the_schema_and_can_be_placed() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert ready_made() == ["mtu-bottleneck", "one-segment", "two-racks", "two-zones"]
    for name in ready_made():
        text = (Path(__file__).parents[3] / "netkit" / "cluster" / "topologies" / f"{name}.yaml").read_text()
        jsonschema.validate(yaml.safe_load(text), schema())
        jsonschema.validate(document(placed(name)), schema())
        assert find(name).name == name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nodes[0].name", 7), ("nodes[0].zome", "x"), ("nodes", []), ("nodes", {}), ("segments", []),
        ("segments[1].mtu", 575), ("segments[1].mtu", "big"), ("routers[0].asn", 0), ("links", []),
        ("nodes[1].interfaces[0].link.loss", 0.1), ("nodes[1].interfaces[0].link.speed", "1"),
        ("nodes[1].interfaces[0].link.rate", "100"), ("nodes[0].interfaces", []), ("kind", "Cluster"),
        ("nodes[0].labels", {"a": 1}), ("nodes[0].name", None), ("routers[0].interfaces", ["a"]),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(path: str, value: object) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(ZONES, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(path, value), schema())


def test_link_properties_are_read_and_written() -> None:
    link = {"mtu": 1200, "rate": "1.5mbit", "delay": "250us", "jitter": "0.1ms", "loss": "0.5%"}
    found = read(changed("nodes[1].interfaces[0].link", link)).machine("n2").interfaces[0].link
    assert found == LinkProperties(1200, 1_500_000, 0.00025, 0.0001, 0.005)
    assert read(document(read(ZONES))) == read(ZONES)


@given(
    rate=st.integers(1, 10**10),
    delay=st.integers(1, 10**7),
    loss=st.integers(0, 10_000),
)
def test_a_document_makes_the_topology_that_it_was_made_of(rate: int, delay: int, loss: int) -> None:
    link = {"rate": f"{rate}bit", "delay": f"{delay}us", "loss": f"{loss / 100}%"}
    topology = place(read(changed("nodes[1].interfaces[0].link", link)), BASE)
    again = read(document(topology), topology.name)
    one, other = (each.machine("n2").interfaces[0].link for each in (topology, again))
    assert one.rate == other.rate
    assert (one.delay, one.loss) == pytest.approx((other.delay, other.loss))


def test_addresses_are_given_in_order_and_what_is_given_is_kept() -> None:
    topology = place(read(ZONES), BASE)
    addresses = {m.name: [str(each.address) for each in m.interfaces] for m in topology.machines}
    assert addresses == {
        "r": ["10.1.0.1", "10.2.0.1"],
        "host": ["10.1.0.2"],
        "control-plane": ["10.1.0.3"],
        "client": ["10.1.0.9"],
        "n1": ["10.1.0.11"],
        "n2": ["10.2.0.77", "10.1.0.12"],
    }


def test_a_cluster_without_a_topology_is_what_it_always_was() -> None:
    plan = Plan(ClusterConfig(), BASE, 1)
    assert (plan.control_plane, plan.fabric().host.address.ip) == (BASE[2], BASE[1])
    assert list(plan.nodes.values()) == [BASE[11], BASE[12], BASE[13]]
    machines = {m.name: (str(m.address), [str(r.via) for r in m.routes]) for m in plan.fabric().machines}
    assert machines["client"] == ("172.18.0.9/16", ["172.18.0.1"])
    assert place(find("one-segment"), BASE).machines == plan.topology.machines
    assert [m.name for m in plan.machines()] == [
        "control-plane",
        "node1",
        "node2",
        "node3",
        "client",
        "switch",
    ]
    assert not plan.fabric().host_routes


def test_segments_get_ranges_apart_from_those_that_are_given() -> None:
    made = changed("segments[1].subnet", None)
    made["segments"][0]["subnet"] = "172.18.1.0/24"
    made["routers"][0]["interfaces"] = ["a", "b"]
    made["nodes"][1]["interfaces"] = ["b"]
    assert str(place(read(made), BASE).segment("b").subnet) == "172.18.2.0/24"
    with pytest.raises(NoRoom, match="no room for a /24 for segment b"):
        place(read(made), IPv4Network("172.18.0.0/23"))


def test_ways_through_routers() -> None:
    racks = placed("two-racks")
    tor1, spine2 = racks.machine("tor1"), racks.machine("spine2")
    assert [str(via) for via in ways(racks, tor1)["rack2"]] == ["172.18.3.2", "172.18.4.2"]
    assert [str(via) for via in ways(racks, spine2)["outside"]] == ["172.18.4.1", "172.18.6.1"]
    assert str(router_ways(racks, tor1).toward(IPv4Address("172.18.2.11"))) == "172.18.3.2"
    assert str(router_ways(racks, tor1).toward(IPv4Address("172.18.1.11"))) == "172.18.1.11"
    assert router_ways(racks, tor1).toward(IPv4Address("192.0.2.1")) is None
    assert str(gateway(racks, racks.machine("node3"))) == "172.18.2.1"
    spec = fabric(racks, "kt", learned=True)
    assert all(not machine.routes for machine in spec.machines if machine.forwards)
    static = {m.name: m for m in fabric(racks, "kt").machines}
    assert len(static["tor1"].routes) == 4
    assert [str(route.target) for route in static["node1"].routes] == ["0.0.0.0/0"]


def test_the_smallest_mtu_on_the_way_counts() -> None:
    narrow = placed("mtu-bottleneck")
    assert [path_mtu(narrow, node) for node in narrow.of(Role.NODE)] == [1400, 1400]
    zones = place(read(changed("nodes[1].interfaces[0].link", {"mtu": 900})), BASE)
    assert path_mtu(zones, zones.machine("n1")) == 900
    wide = placed("one-segment")
    assert [path_mtu(wide, node) for node in wide.of(Role.NODE)] == [1500, 1500, 1500]


def test_zones_become_labels() -> None:
    plan = Plan(parse({"topology": ZONES}), BASE, 1)
    assert plan.node_labels("n1") == {
        "disk": "ssd", "topology.kubernetes.io/zone": "east", "topology.kubernetes.io/region": "r",
    }  # fmt: skip
    assert plan.node_labels("n2") == {}


def test_pictures_show_every_machine_and_segment() -> None:
    for name in ready_made():
        topology = placed(name)
        drawn = topology_draw.text(topology), topology_draw.mermaid(topology), topology_draw.svg(topology)
        for shown in drawn:
            for thing in (*topology.machines, *topology.segments):
                assert thing.name in shown
        root = ET.fromstring(drawn[2])
        boxes = root.findall("{http://www.w3.org/2000/svg}rect")
        assert len(boxes) == 1 + len(topology.machines)
        lines = drawn[1].splitlines()
        cables = sum(len(machine.interfaces) for machine in topology.machines)
        assert sum(" --- s_" in line or '" --- s_' in line for line in lines) == cables
    assert "[delay 10ms]" in topology_draw.text(place(read(ZONES), BASE))


def test_the_configuration_takes_a_topology_by_name_file_and_inline(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(ZONES))
    assert parse({"topology": "two-zones"}).node_names() == ["node1", "node2", "node3"]
    assert parse({"topology": str(file)}).topology == read(ZONES, "mine")
    assert load(None, topology=str(file)).nodes == 2
    for document_, message in (
        ({"topology": "nothing.yaml"}, "nothing.yaml: No such file"),
        ({"topology": changed("nodes[0].zone", "west")}, "topology: nodes[0].zone: there is no zone west"),
        ({"topology": "two-zones", "nodes": 3}, "nodes: the topology says which nodes there are"),
        ({"network": {"routes": "bgp"}}, "network.routes: bgp needs routers"),
        ({"topology": "one-segment", "network": {"routes": "bgp"}}, "network.routes: bgp needs routers"),
        ({"topology": changed("segments[1].mtu", 600)}, "network.mode: vxlan needs 50 bytes of 600"),
        ({"network": {"routes": "ospf"}}, "network.routes: 'ospf' is not one of none, static, bgp"),
    ):
        with pytest.raises(ConfigError) as refused:
            check(parse(document_))
        assert message in refused.value.message
    with pytest.raises(ConfigError, match="--nodes"):
        load(None, topology="two-zones", nodes=2)
    inside = changed("segments[0].subnet", "10.244.1.0/24")
    inside["routers"][0]["interfaces"] = ["a", "b"]
    with pytest.raises(
        ConfigError, match=r"network.podSubnet 10.244.0.0/16 overlaps topology.segments\[0\].subnet"
    ):
        check(parse({"topology": inside}))
