"""What kube-proxy's iptables mode writes for given objects: facts of upstream's `TestOverallIPTablesRules`,
`TestSyncProxyRulesRepeated`, `TestDropInvalidRule`, `TestMasqueradeRule` and `TestNodePorts`
(pkg/proxy/iptables/proxier_test.go).

Rules are as kube-proxy hands them to iptables-restore. A heading names table and chain; what is below are its rules.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from unit.proxy.upstream.nftables_tables import OVERALL_OBJECTS

Rules = Mapping[str, tuple[str, ...]]

OBJECTS: Final = OVERALL_OBJECTS
"""The two modes are tested with the same Services."""

FORWARD_LIBERAL: Final = """
filter KUBE-FORWARD
  -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
  -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"""
DROP_INVALID: Final = "-m conntrack --ctstate INVALID -j DROP"
DROP_INVALID_COUNTED: Final = (
    "-m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP"
)
FORWARD: Final = FORWARD_LIBERAL.replace("FORWARD\n", f"FORWARD\n  {DROP_INVALID}\n")

POSTROUTING: Final = """
nat KUBE-POSTROUTING
  -m mark ! --mark 0x4000/0x4000 -j RETURN
  -j MARK --xor-mark 0x4000
  -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
"""
FIREWALL: Final = """
filter KUBE-FIREWALL
  -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8
    -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
"""
LAST_OF_SERVICES: Final = (
    '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
    "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
)

FRAME: Final = f"""
filter KUBE-NODEPORTS
filter KUBE-SERVICES
filter KUBE-EXTERNAL-SERVICES
filter KUBE-PROXY-FIREWALL
{FIREWALL}
{FORWARD}
nat KUBE-NODEPORTS
nat KUBE-SERVICES
nat KUBE-MARK-MASQ
  -j MARK --or-mark 0x4000
{POSTROUTING}
"""

OVERALL: Final = f"""
filter KUBE-NODEPORTS
  -m comment --comment "ns2/svc2:p80 health check node port" -m tcp -p tcp --dport 30000 -j ACCEPT
filter KUBE-SERVICES
  -m comment --comment "ns6/svc6:p80 has no endpoints" -m tcp -p tcp -d 172.30.0.46 --dport 80 -j REJECT
filter KUBE-EXTERNAL-SERVICES
  -m comment --comment "ns2/svc2:p80 has no local endpoints" -m tcp -p tcp -d 192.168.99.22 --dport 80 -j DROP
  -m comment --comment "ns2/svc2:p80 has no local endpoints" -m tcp -p tcp -d 1.2.3.4 --dport 80 -j DROP
  -m comment --comment "ns2/svc2:p80 has no local endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp
    --dport 3001 -j DROP
filter KUBE-PROXY-FIREWALL
  -m comment --comment "ns5/svc5:p80 traffic not accepted by KUBE-FW-NUKIZ6OKUXPJNT4C" -m tcp -p tcp
    -d 5.6.7.8 --dport 80 -j DROP

nat KUBE-NODEPORTS
  -m comment --comment ns2/svc2:p80 -m tcp -p tcp -d 127.0.0.0/8 --dport 3001
    -m nfacct --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT-GNZBNJ2PO5MGZ6GT
  -m comment --comment ns2/svc2:p80 -m tcp -p tcp --dport 3001 -j KUBE-EXT-GNZBNJ2PO5MGZ6GT
  -m comment --comment ns3/svc3:p80 -m tcp -p tcp -d 127.0.0.0/8 --dport 3003
    -m nfacct --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT-X27LE4BHSL4DOUIK
  -m comment --comment ns3/svc3:p80 -m tcp -p tcp --dport 3003 -j KUBE-EXT-X27LE4BHSL4DOUIK
  -m comment --comment ns5/svc5:p80 -m tcp -p tcp -d 127.0.0.0/8 --dport 3002
    -m nfacct --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT-NUKIZ6OKUXPJNT4C
  -m comment --comment ns5/svc5:p80 -m tcp -p tcp --dport 3002 -j KUBE-EXT-NUKIZ6OKUXPJNT4C
nat KUBE-SERVICES
  -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O
  -m comment --comment "ns2/svc2:p80 cluster IP" -m tcp -p tcp -d 172.30.0.42 --dport 80 -j KUBE-SVC-GNZBNJ2PO5MGZ6GT
  -m comment --comment "ns2/svc2:p80 external IP" -m tcp -p tcp -d 192.168.99.22 --dport 80
    -j KUBE-EXT-GNZBNJ2PO5MGZ6GT
  -m comment --comment "ns2/svc2:p80 loadbalancer IP" -m tcp -p tcp -d 1.2.3.4 --dport 80 -j KUBE-EXT-GNZBNJ2PO5MGZ6GT
  -m comment --comment "ns3/svc3:p80 cluster IP" -m tcp -p tcp -d 172.30.0.43 --dport 80 -j KUBE-SVC-X27LE4BHSL4DOUIK
  -m comment --comment "ns4/svc4:p80 cluster IP" -m tcp -p tcp -d 172.30.0.44 --dport 80 -j KUBE-SVC-4SW47YFZTEDKD3PK
  -m comment --comment "ns4/svc4:p80 external IP" -m tcp -p tcp -d 192.168.99.33 --dport 80
    -j KUBE-EXT-4SW47YFZTEDKD3PK
  -m comment --comment "ns5/svc5:p80 cluster IP" -m tcp -p tcp -d 172.30.0.45 --dport 80 -j KUBE-SVC-NUKIZ6OKUXPJNT4C
  -m comment --comment "ns5/svc5:p80 loadbalancer IP" -m tcp -p tcp -d 5.6.7.8 --dport 80 -j KUBE-FW-NUKIZ6OKUXPJNT4C
  {LAST_OF_SERVICES}

nat KUBE-EXT-4SW47YFZTEDKD3PK
  -m comment --comment "masquerade traffic for ns4/svc4:p80 external destinations" -j KUBE-MARK-MASQ
  -j KUBE-SVC-4SW47YFZTEDKD3PK
nat KUBE-EXT-GNZBNJ2PO5MGZ6GT
  -m comment --comment "pod traffic for ns2/svc2:p80 external destinations" -s 10.0.0.0/8
    -j KUBE-SVC-GNZBNJ2PO5MGZ6GT
  -m comment --comment "masquerade LOCAL traffic for ns2/svc2:p80 external destinations"
    -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
  -m comment --comment "route LOCAL traffic for ns2/svc2:p80 external destinations"
    -m addrtype --src-type LOCAL -j KUBE-SVC-GNZBNJ2PO5MGZ6GT
nat KUBE-EXT-NUKIZ6OKUXPJNT4C
  -m comment --comment "masquerade traffic for ns5/svc5:p80 external destinations" -j KUBE-MARK-MASQ
  -j KUBE-SVC-NUKIZ6OKUXPJNT4C
nat KUBE-EXT-X27LE4BHSL4DOUIK
  -m comment --comment "masquerade traffic for ns3/svc3:p80 external destinations" -j KUBE-MARK-MASQ
  -j KUBE-SVC-X27LE4BHSL4DOUIK
nat KUBE-FW-NUKIZ6OKUXPJNT4C
  -m comment --comment "ns5/svc5:p80 loadbalancer IP" -s 203.0.113.0/25 -j KUBE-EXT-NUKIZ6OKUXPJNT4C
  -m comment --comment "other traffic to ns5/svc5:p80 will be dropped by KUBE-PROXY-FIREWALL"

nat KUBE-SEP-C6EBXVWJJZMIWKLZ
  -m comment --comment ns4/svc4:p80 -s 10.180.0.5 -j KUBE-MARK-MASQ
  -m comment --comment ns4/svc4:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.5:80
nat KUBE-SEP-I77PXRDZVX7PMWMN
  -m comment --comment ns5/svc5:p80 -s 10.180.0.3 -j KUBE-MARK-MASQ
  -m comment --comment ns5/svc5:p80 -m recent --name KUBE-SEP-I77PXRDZVX7PMWMN --set -m tcp -p tcp
    -j DNAT --to-destination 10.180.0.3:80
nat KUBE-SEP-OYPFS5VJICHGATKP
  -m comment --comment ns3/svc3:p80 -s 10.180.0.3 -j KUBE-MARK-MASQ
  -m comment --comment ns3/svc3:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.3:80
nat KUBE-SEP-RS4RBKLTHTF2IUXJ
  -m comment --comment ns2/svc2:p80 -s 10.180.0.2 -j KUBE-MARK-MASQ
  -m comment --comment ns2/svc2:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.2:80
nat KUBE-SEP-SXIVWICOYRO3J4NJ
  -m comment --comment ns1/svc1:p80 -s 10.180.0.1 -j KUBE-MARK-MASQ
  -m comment --comment ns1/svc1:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.1:80
nat KUBE-SEP-UKSFD7AGPMPPLUHC
  -m comment --comment ns4/svc4:p80 -s 10.180.0.4 -j KUBE-MARK-MASQ
  -m comment --comment ns4/svc4:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.4:80

nat KUBE-SVC-4SW47YFZTEDKD3PK
  -m comment --comment "ns4/svc4:p80 cluster IP" -m tcp -p tcp -d 172.30.0.44 --dport 80 ! -s 10.0.0.0/8
    -j KUBE-MARK-MASQ
  -m comment --comment "ns4/svc4:p80 -> 10.180.0.4:80" -m statistic --mode random --probability 0.5000000000
    -j KUBE-SEP-UKSFD7AGPMPPLUHC
  -m comment --comment "ns4/svc4:p80 -> 10.180.0.5:80" -j KUBE-SEP-C6EBXVWJJZMIWKLZ
nat KUBE-SVC-GNZBNJ2PO5MGZ6GT
  -m comment --comment "ns2/svc2:p80 cluster IP" -m tcp -p tcp -d 172.30.0.42 --dport 80 ! -s 10.0.0.0/8
    -j KUBE-MARK-MASQ
  -m comment --comment "ns2/svc2:p80 -> 10.180.0.2:80" -j KUBE-SEP-RS4RBKLTHTF2IUXJ
nat KUBE-SVC-NUKIZ6OKUXPJNT4C
  -m comment --comment "ns5/svc5:p80 cluster IP" -m tcp -p tcp -d 172.30.0.45 --dport 80 ! -s 10.0.0.0/8
    -j KUBE-MARK-MASQ
  -m comment --comment "ns5/svc5:p80 -> 10.180.0.3:80" -m recent --name KUBE-SEP-I77PXRDZVX7PMWMN --rcheck
    --seconds 10800 --reap -j KUBE-SEP-I77PXRDZVX7PMWMN
  -m comment --comment "ns5/svc5:p80 -> 10.180.0.3:80" -j KUBE-SEP-I77PXRDZVX7PMWMN
nat KUBE-SVC-X27LE4BHSL4DOUIK
  -m comment --comment "ns3/svc3:p80 cluster IP" -m tcp -p tcp -d 172.30.0.43 --dport 80 ! -s 10.0.0.0/8
    -j KUBE-MARK-MASQ
  -m comment --comment "ns3/svc3:p80 -> 10.180.0.3:80" -j KUBE-SEP-OYPFS5VJICHGATKP
nat KUBE-SVC-XPGD46QRK7WJZT7O
  -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8
    -j KUBE-MARK-MASQ
  -m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -j KUBE-SEP-SXIVWICOYRO3J4NJ
"""

NO_COUNTERS: Final = re.compile(r".*nfacct.*")
"""Rules that only count; they are there where the kernel has the counter's object."""

PROBABILITIES: Final = {
    2: 0.5,
    10: 0.1,
    100: 0.01,
    1000: 0.001,
    10000: 0.0001,
    100000: 0.00001,
    100001: 0.0000099999,
}
"""Chances to choose the first of so many endpoints, in ten digits."""


def read(*texts: str) -> dict[str, tuple[str, ...]]:
    """The chains of all texts; rules of a chain named twice come together, and deeper lines go on a line."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in re.sub(r"\n {4,}", " ", "\n".join(texts)).splitlines():
        if line.startswith("  "):
            found[name] = (*found[name], line.strip())
        elif line:
            name = line
            found.setdefault(name, ())
    return found


def script(rules: Rules) -> str:
    """Input for iptables-restore that makes the chains."""
    lines: list[str] = []
    for table in sorted({name.split(" ")[0] for name in rules}):
        mine = {name.split(" ")[1]: found for name, found in rules.items() if name.startswith(f"{table} ")}
        lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in mine)]
        lines += [f"-A {chain} {rule}" for chain, found in mine.items() for rule in found]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


_MARKS: Final = {"--or-mark": "0x4000/0x4000", "--xor-mark": "0x4000/0x0"}
_IMPLIED: Final = {
    "tcp",
    "udp",
    "sctp",
    "comment",
    "recent",
    "statistic",
    "conntrack",
    "mark",
    "addrtype",
    "nfacct",
}


def meaning(rule: str) -> tuple[frozenset[tuple[str, ...]], tuple[str, ...]]:
    """What a rule matches and does, however it is written: the order of its matches, and what goes without saying,
    do not count.
    """
    words = shlex.split(rule)
    options: list[tuple[str, ...]] = []
    place = 0
    while place < len(words):
        negated = words[place] == "!"
        place += negated
        option = words[place]
        end = place + 1
        while end < len(words) and not words[end].startswith("-") and words[end] != "!":
            end += 1
        options.append(("!" * negated + option, *words[place + 1 : end]))
        place = end
    target = next((index for index, (name, *_) in enumerate(options) if name == "-j"), len(options))
    matches = {_plain(option) for option in options[:target]} - {("-m", module) for module in _IMPLIED}
    matches -= {("--rsource",), ("--mask", "255.255.255.255")}
    action = [word for option in options[target:] for word in option]
    return frozenset(matches), tuple(_spelled(action))


def _plain(option: tuple[str, ...]) -> tuple[str, ...]:
    name, *values = option
    if name.lstrip("!") in ("-s", "-d") and "/" not in values[0]:
        return name, f"{values[0]}/{128 if ':' in values[0] else 32}"
    if name == "--probability":
        return name, f"{float(values[0]):.9f}"
    return option


def _spelled(action: list[str]) -> list[str]:
    """The target with its options as iptables-save prints them."""
    match action:
        case ["-j", "REJECT"]:
            return [*action, "--reject-with", "icmp-port-unreachable"]
        case ["-j", "MARK", option, "0x4000"]:
            return ["-j", "MARK", "--set-xmark", _MARKS[option]]
        case _:
            return action
