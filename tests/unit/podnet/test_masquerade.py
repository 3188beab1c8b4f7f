from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from netkit.podnet.masquerade import JUMPS, rules

OWN, PODS = IPv4Network("10.244.1.0/24"), IPv4Network("10.244.0.0/16")
NODES = [("node2", IPv4Address("172.18.0.3")), ("node1", IPv4Address("172.18.0.2"))]


def verdict(source: str, target: str, mark: int = 0) -> str:
    """What FLANNEL-POSTRTG does with a packet, by reading the rules one by one."""
    for line in rules(OWN, PODS, NODES).splitlines():
        words = line.split()
        if words[:2] != ["-A", "FLANNEL-POSTRTG"]:
            continue
        hit = True
        for flag, address in (("-s", source), ("-d", target)):
            if flag in words:
                at = words.index(flag)
                inside = IPv4Address(address) in IPv4Network(words[at + 1])
                hit &= inside != (words[at - 1] == "!")
        if "--mark" in words:
            hit &= bool(mark & 0x4000)
        if hit:
            return words[words.index("-j") + 1]
    return ""


def test_pods_reach_pods_and_nodes_without_nat() -> None:
    assert verdict("10.244.1.5", "10.244.1.6") == "RETURN"
    assert verdict("10.244.1.5", "10.244.2.6") == "RETURN"
    assert verdict("10.244.2.6", "10.244.1.5") == "RETURN"
    assert verdict("10.244.1.5", "172.18.0.3") == "RETURN"


def test_pods_reach_the_outside_as_their_node() -> None:
    for outside in ("172.18.0.1", "172.18.0.9", "192.0.2.1"):
        assert verdict("10.244.1.5", outside) == "MASQUERADE"


def test_multicast_is_left_alone() -> None:
    assert verdict("10.244.1.5", "224.0.0.251") == ""


def test_callers_from_outside_are_seen_by_local_pods_only() -> None:
    assert verdict("172.18.0.9", "10.244.1.5") == "RETURN"
    assert verdict("172.18.0.9", "10.244.2.5") == "MASQUERADE"


def test_what_kube_proxy_marked_is_left_to_it() -> None:
    assert verdict("10.244.1.5", "192.0.2.1", mark=0x4000) == "RETURN"


def test_each_rule_says_what_it_is_for() -> None:
    lines = [line for line in rules(OWN, PODS, NODES).splitlines() if line.startswith("-A")]
    assert all("--comment" in line for line in lines)
    assert sum("flanneld masq: node node1" in line for line in lines) == 1


def test_the_order_of_nodes_does_not_change_the_text() -> None:
    assert rules(OWN, PODS, NODES) == rules(OWN, PODS, NODES[::-1])


def test_old_iptables_gets_no_random_fully() -> None:
    assert "--random-fully" not in rules(OWN, PODS, NODES, random_fully=False)


def test_jumps_lead_to_the_chains_that_are_declared() -> None:
    text = rules(OWN, PODS, NODES)
    for table, _, rule in JUMPS:
        part = text[text.index(f"*{table}") :]
        assert f":{rule[-1]} - [0:0]" in part[: part.index("COMMIT")]
