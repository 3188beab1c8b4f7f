"""Every reason for which an endpoint is used or not, once."""

from __future__ import annotations

from typing import Any

import pytest
from support.explained import explained, reason
from support.proxy import draining, endpoint, service, slice_of, unready

from netkit.proxy.explain.endpoints import Standing
from netkit.proxy.explain.target import To

HERE, THERE = endpoint("10.244.0.5", "here"), endpoint("10.244.1.6", "there")
DEAD = endpoint("10.244.1.9", "there", ready=False, serving=False, terminating=True)


def standings(*slices: Any, zone: str = "", **spec: Any) -> dict[str, tuple[str, str]]:
    """What is said of each address: standing and share, or the sentence if it is not used."""
    found = explained(service(**spec), *slices, zone=zone)
    return {
        item.target: (item.standing.value, item.share if item.eligible else item.because)
        for item in found.endpoints
    }


@pytest.mark.parametrize(
    ("other", "standing", "because"),
    [
        (unready("10.244.1.9", "there"), Standing.NOT_READY, "its ready condition is false"),
        (DEAD, Standing.TERMINATED, "it shuts down and no longer answers"),
        (draining("10.244.1.9", "there"), Standing.DRAINING, "it shuts down, and 2 endpoints are ready"),
    ],
)
def test_conditions(other: Any, standing: Standing, because: str) -> None:
    found = standings(slice_of("ns1/svc1", HERE, THERE, other))
    assert found == {
        "10.244.0.5:80": ("eligible", "1/2"),
        "10.244.1.6:80": ("eligible", "1/2"),
        "10.244.1.9:80": (standing.value, because),
    }


def test_draining_endpoints_stand_in_when_nothing_is_ready() -> None:
    found = explained(service(), slice_of("ns1/svc1", draining("10.244.1.6", "there"), unready("10.244.1.9")))
    assert [(item.target, item.because) for item in found.endpoints if item.eligible] == [
        ("10.244.1.6:80", "it shuts down but still answers, and nothing is ready")
    ]
    assert reason(found, "verdict")[0] == "delivered"


@pytest.mark.parametrize(
    ("node", "because"),
    [
        ("there", "it is on there; policy Local uses here's own only"),
        ("", "the slice names no node, so it is local nowhere; policy Local uses here's own only"),
    ],
)
def test_other_nodes_under_policy_local(node: str, because: str) -> None:
    slices = slice_of("ns1/svc1", HERE, endpoint("10.244.1.6", node))
    found = standings(slices, internalTrafficPolicy="Local")
    assert found["10.244.0.5:80"] == ("eligible", "all")
    assert found["10.244.1.6:80"] == ("not on this node", because)


def test_a_draining_one_here_while_another_here_is_ready() -> None:
    slices = slice_of("ns1/svc1", HERE, THERE, draining("10.244.0.7", "here"))
    found = standings(slices, internalTrafficPolicy="Local")
    assert found["10.244.0.7:80"][1] == "it shuts down, and 1 endpoint is ready on here"


def test_hints_for_another_zone_and_another_node() -> None:
    zoned = slice_of(
        "ns1/svc1", endpoint("10.244.0.5", "here", zones=["a"]), endpoint("10.244.1.6", "there", zones=["b"])
    )
    assert standings(zoned, zone="a")["10.244.1.6:80"] == (
        "hinted for another zone",
        "its hints are for b, here is in a",
    )
    by_node = slice_of(
        "ns1/svc1",
        endpoint("10.244.0.5", "here", nodes=["here"]),
        endpoint("10.244.1.6", "there", nodes=["there", "third"]),
    )
    assert standings(by_node)["10.244.1.6:80"] == (
        "hinted for another node",
        "its hints are for there, third, this is here",
    )


@pytest.mark.parametrize(
    ("slices", "target", "standing", "because"),
    [
        (
            [slice_of("ns1/svc1", "10.244.1.6", ports=[{"name": "web", "port": 80}])],
            "10.244.1.6", Standing.NO_SUCH_PORT, "slice svc1-a has no TCP port named p80; it has web/TCP",
        ),
        (
            [slice_of("ns1/svc1", "10.244.1.6", ports=[{"name": "p80", "port": 80, "protocol": "UDP"}])],
            "10.244.1.6", Standing.NO_SUCH_PORT, "slice svc1-a has no TCP port named p80; it has p80/UDP",
        ),
        (
            [slice_of("ns1/svc1", "10.244.1.6", ports=[{"name": "p80", "port": None}])],
            "10.244.1.6", Standing.NO_SUCH_PORT,
            "slice svc1-a has no TCP port named p80; it has p80/TCP (no number)",
        ),
        (
            [slice_of("ns1/svc1", "10.244.1.6", ports=[])],
            "10.244.1.6", Standing.NO_SUCH_PORT, "slice svc1-a has no TCP port named p80; it has none",
        ),
        (
            [slice_of("ns1/svc1", "fd00::6", address_type="IPv6")],
            "fd00::6", Standing.OTHER_FAMILY, "slice svc1-a is IPv6; this address is IPv4",
        ),
        (
            [slice_of("ns1/svc1", "nonsense")],
            "nonsense", Standing.NO_ADDRESS, "its first address is not IPv4; only the first counts",
        ),
        (
            [slice_of("ns1/svc1", "10.244.1.6", labels={"service.kubernetes.io/service-proxy-name": "x"})],
            "10.244.1.6", Standing.OTHER_PROXY,
            "slice svc1-a carries the label service.kubernetes.io/service-proxy-name",
        ),
        (
            [slice_of("ns1/svc1", "10.244.1.6", labels={"service.kubernetes.io/headless": ""})],
            "10.244.1.6", Standing.OTHER_PROXY, "slice svc1-a carries the label service.kubernetes.io/headless",
        ),
    ],
)  # fmt: skip
def test_what_a_proxy_does_not_even_read(slices: Any, target: str, standing: Standing, because: str) -> None:
    assert standings(slice_of("ns1/svc1", HERE, suffix="z"), *slices)[target] == (standing.value, because)


def test_an_endpoint_in_two_slices_counts_once() -> None:
    found = explained(service(), slice_of("ns1/svc1", HERE), slice_of("ns1/svc1", HERE, suffix="b"))
    assert [(item.slice, item.standing) for item in found.endpoints] == [
        ("svc1-a", Standing.ELIGIBLE),
        ("svc1-b", Standing.DUPLICATE),
    ]
    assert found.endpoints[1].because.startswith("svc1-a has it too")


def test_of_two_entries_the_one_that_is_not_terminating_counts() -> None:
    leaving = slice_of("ns1/svc1", draining("10.244.0.5", "here"))
    found = explained(service(), leaving, slice_of("ns1/svc1", HERE, suffix="b"))
    assert [(item.slice, item.standing) for item in found.endpoints] == [
        ("svc1-b", Standing.ELIGIBLE),
        ("svc1-a", Standing.DUPLICATE),
    ]


def test_slices_of_the_other_half_of_a_dual_stack_service_are_not_mentioned() -> None:
    both = service(clusterIPs=["172.30.0.41", "fd00::41"])
    found = explained(
        both, slice_of("ns1/svc1", HERE), slice_of("ns1/svc1", "fd00::6", address_type="IPv6", suffix="b")
    )
    assert [item.target for item in found.endpoints] == ["10.244.0.5:80"]


def test_slices_of_other_services_are_not_mentioned() -> None:
    found = explained(
        service(),
        service("ns1/other", "172.30.0.42"),
        slice_of("ns1/svc1", HERE),
        slice_of("ns1/other", THERE),
    )
    assert [item.target for item in found.endpoints] == ["10.244.0.5:80"]


def test_addresses_are_sorted_as_numbers_and_the_used_ones_come_first() -> None:
    slices = slice_of("ns1/svc1", "10.244.0.10", "10.244.0.9", unready("10.244.0.1"))
    found = explained(service(), slices)
    assert [item.target for item in found.endpoints] == ["10.244.0.9:80", "10.244.0.10:80", "10.244.0.1:80"]


def test_pods_are_named() -> None:
    item = {**HERE, "targetRef": {"kind": "Pod", "name": "web-1"}}
    found = explained(service(), slice_of("ns1/svc1", item))
    assert found.endpoints[0].pod == "web-1"
    assert any("pod web-1 on here (10.244.0.5:80)" in step.meaning for step in found.steps)


@pytest.mark.parametrize(
    ("endpoints", "zone", "answer", "because"),
    [
        ([HERE, THERE], "a", "not used", "no endpoint has any (spec.trafficDistribution asks for them)"),
        (
            [endpoint("10.244.0.5", zones=["a"]), THERE], "a",
            "not used", "endpoint 10.244.1.6:80 has none; all ready endpoints need them",
        ),
        (
            [endpoint("10.244.0.5", zones=["a"])], "",
            "not used", "here has no zone label (topology.kubernetes.io/zone)",
        ),
        ([endpoint("10.244.0.5", zones=["a"])], "b", "not used", "none of them names here's zone b"),
        (
            [endpoint("10.244.0.5", zones=["a"])], "a",
            "by zone", "every ready endpoint has zone hints, and 1 of them name here's zone a",
        ),
        ([endpoint("10.244.0.5", nodes=["there"])], "", "not used", "none of them names node here"),
        (
            [endpoint("10.244.0.5", nodes=["here"]), THERE], "",
            "not used", "endpoint 10.244.1.6:80 has no node hints; all ready endpoints need them",
        ),
        (
            [endpoint("10.244.0.5", nodes=["here"])], "",
            "by node", "every ready endpoint has node hints, and 1 of them name here",
        ),
        (
            [draining("10.244.0.5")], "a",
            "not used", "no endpoint is ready, so there is nothing to choose from by hints",
        ),
    ],
)  # fmt: skip
def test_hints(endpoints: list[Any], zone: str, answer: str, because: str) -> None:
    found = explained(service(), slice_of("ns1/svc1", *endpoints), zone=zone)
    assert reason(found, "topology hints") == (answer, because)


def test_hints_are_not_asked_for_the_local_list() -> None:
    found = explained(
        service(internalTrafficPolicy="Local"),
        slice_of("ns1/svc1", endpoint("10.244.0.5", "here", zones=["b"])),
        zone="a",
    )
    assert "topology hints" not in [item.about for item in found.reasons]


def test_to_an_address_of_its_own_kind_only() -> None:
    found = explained(service(externalIPs=["1.2.3.4"]), slice_of("ns1/svc1", HERE), to=To.EXTERNAL_IP)
    assert (found.destination, found.address, found.number) == ("external IP", "1.2.3.4", 80)
