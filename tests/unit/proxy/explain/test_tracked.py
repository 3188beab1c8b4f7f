"""UDP flows that are remembered, in an explanation."""

from __future__ import annotations

from ipaddress import ip_address

from support.explained import explained
from support.proxy import service, slice_of

from netkit.kernel.conntrack import Direction, Entry
from netkit.proxy.explain.text import lines

DNS = {"name": "dns", "port": 53, "protocol": "UDP"}


def flow(
    client: str, called: str, port: int, answering: str, answering_port: int, protocol: int = 17
) -> Entry:
    source, goal, pod = (ip_address(text).packed for text in (client, called, answering))
    return Entry(protocol, Direction(source, goal, 5000, port), Direction(pod, source, answering_port, 5000))


def test_flows_of_the_port_with_the_cleaners_word() -> None:
    entries = [
        flow("10.244.0.9", "172.30.0.41", 53, "10.244.0.5", 53),
        flow("10.244.0.8", "172.30.0.41", 53, "10.244.0.6", 53),
        flow("10.244.0.7", "172.30.0.41", 53, "172.30.0.41", 53),
        flow("10.244.0.6", "172.30.0.99", 53, "10.244.0.6", 53),
        flow("10.244.0.5", "172.30.0.41", 53, "10.244.0.6", 53, protocol=6),
    ]
    found = explained(service(ports=[DNS]), slice_of("ns1/svc1", "10.244.0.5", ports=[DNS]), entries=entries)
    assert [(item.client, item.answering, item.stale, item.because) for item in found.tracked] == [
        ("10.244.0.7:5000", "172.30.0.41:53", True, "never translated: made before there was a rule for it"),
        ("10.244.0.8:5000", "10.244.0.6:53", True, "leads to what is no endpoint any more"),
        ("10.244.0.9:5000", "10.244.0.5:53", False, "leads to an endpoint"),
    ]
    text = list(lines(found))
    start = text.index("UDP flows that are remembered and meet no rule again (3, 2 of them stale):")
    assert text[start + 1] == (
        "  10.244.0.7:5000 called 172.30.0.41:53, 172.30.0.41:53 answers: "
        "never translated: made before there was a rule for it; the proxy removes it"
    )
    assert text[start + 3].endswith("10.244.0.5:53 answers: leads to an endpoint")


def test_without_flows_nothing_is_said() -> None:
    found = explained(service(ports=[DNS]), slice_of("ns1/svc1", "10.244.0.5", ports=[DNS]))
    assert found.tracked == ()
    assert not any("UDP flows" in line for line in lines(found))
