"""What people read, and what programs get."""

from __future__ import annotations

import json

from support.explained import explained
from support.proxy import endpoint, service, slice_of, unready

from netkit.cli.output import as_plain
from netkit.proxy.explain.text import lines

HERE, THERE = endpoint("10.244.0.5", "here"), endpoint("10.244.1.6", "there")

EXPECTED = """\
ns1/svc1:p80: delivered to 10.244.0.5:80, source kept
  called  cluster IP 172.30.0.41:80/TCP
  by      a pod (10.244.0.99)
  on      here, mode iptables, IPv4

Rules on the way through here (iptables):
  1  PREROUTING   nat KUBE-SERVICES: Service ns1/svc1, port p80: its cluster IP leads to the endpoints of all nodes
                      -d 172.30.0.41/32 -p tcp -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O
  2               nat KUBE-SVC-XPGD46QRK7WJZT7O: endpoint 10.244.0.5:80: takes all that come to this rule
                      -m comment --comment "ns1/svc1:p80 -> 10.244.0.5:80" -j KUBE-SEP-XEBUCXOWGWCEZNAC
  3               nat KUBE-SEP-XEBUCXOWGWCEZNAC: the destination becomes 10.244.0.5:80
                      -p tcp -m comment --comment "ns1/svc1:p80" -m tcp -j DNAT --to-destination 10.244.0.5:80
  4  POSTROUTING  nat KUBE-POSTROUTING: not marked: the source stays as it is
                      -m mark ! --mark 0x4000/0x4000 -j RETURN

Endpoints (1 of 2 eligible):
  10.244.0.5:80  here   -  all
  10.244.1.6:80  there  -  no: not ready; its ready condition is false

Why:
  caller                         pod of the cluster  pods are recognised by an address in 10.244.0.0/16
  internalTrafficPolicy Cluster  all nodes           endpoints of every node may be chosen
  topology hints                 not used            no endpoint has any (spec.trafficDistribution asks for them)
  verdict                        delivered           10.244.0.5:80 is the only one
  source address                 kept                a pod calls, and endpoints can answer pods
  answers                        through here        connection tracking remembers the translation and undoes it; rules are not asked again

8 more rules serve other packets to this port: --all shows them
"""  # noqa: E501


def test_text() -> None:
    found = explained(service(), slice_of("ns1/svc1", HERE, unready("10.244.1.6", "there")))
    assert "\n".join(lines(found)) + "\n" == EXPECTED


def test_long_lists_are_cut_short_unless_all_is_wanted() -> None:
    many = [f"10.244.0.{number}" for number in range(1, 41)]
    found = explained(service(), slice_of("ns1/svc1", *many))
    short, long = list(lines(found)), list(lines(found, everything=True))
    assert sum("DNAT" in line for line in short) == 4
    assert sum("DNAT" in line for line in long) == 40
    assert any("72 more rules of the same kind" in line for line in short)
    assert any("... 32 more: --all shows them" in line for line in short)
    assert sum(line.endswith("1/40") for line in long) == 40


def test_an_unhandled_service_has_no_rules_and_no_endpoints() -> None:
    found = explained(service(cluster_ip="None"), slice_of("ns1/svc1", HERE))
    assert list(lines(found))[1:] == [
        "  called  cluster IP (none)",
        "  by      a pod (10.244.0.99)",
        "  on      here, mode iptables, IPv4",
    ]


def test_missing_rules_are_marked() -> None:
    found = explained(service(), slice_of("ns1/svc1", HERE), lacking=["nat KUBE-SERVICES"])
    assert sum("missing from the kernel: -d 172.30.0.41/32" in line for line in lines(found)) == 1


def test_json_has_the_same_fields_for_every_answer() -> None:
    answers = [
        explained(service(), slice_of("ns1/svc1", HERE, THERE)),
        explained(service(), slice_of("ns1/svc1")),
        explained(service(cluster_ip="None"), slice_of("ns1/svc1", HERE)),
    ]
    plain = [json.loads(json.dumps(as_plain(answer))) for answer in answers]
    assert {tuple(answer) for answer in plain} == {
        (
            "outcome", "summary", "service", "port", "protocol", "family", "node", "mode", "origin", "source",
            "source_name", "destination", "address", "number", "source_rewritten", "reasons", "endpoints", "steps",
            "other_rules", "missing", "tracked",
        )
    }  # fmt: skip
    assert [answer["outcome"] for answer in plain] == ["delivered", "refused", "ignored"]
    assert list(plain[0]["endpoints"][0]) == [
        "target", "standing", "because", "share", "node", "pod", "slice", "ready", "serving", "terminating",
        "zone_hints", "node_hints",
    ]  # fmt: skip
    assert list(plain[0]["steps"][0]) == [
        "hook", "section", "entry", "action", "meaning", "certain", "endpoint", "standing",
    ]  # fmt: skip
    assert plain[0]["reasons"][0] == {
        "about": "caller",
        "answer": "pod of the cluster",
        "because": "pods are recognised by an address in 10.244.0.0/16",
    }
