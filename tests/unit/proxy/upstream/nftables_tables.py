"""What kube-proxy's nftables mode writes for given objects: facts of upstream's `TestOverallNFTablesRules`,
`TestBadIPs` and `TestSyncProxyRulesRepeated` (pkg/proxy/nftables/proxier_test.go).

Rules are as kube-proxy hands them to nft. A heading names a chain, set or map, its declaration behind a bar; what is
below belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from support.proxy import Object, endpoint, service, slice_of
from unit.proxy.upstream.world import NODE, balanced, tcp


@dataclass(frozen=True)
class Section:
    """A chain, set or map: how it is declared, and its rules or elements."""

    declared: str
    entries: tuple[str, ...]


Table = Mapping[str, Section]

_VERDICTS: Final = "type ipv4_addr . inet_proto . inet_service : verdict"
_PORT_VERDICTS: Final = "type inet_proto . inet_service : verdict"
_NO_NODE_PORT: Final = "vmap to drop or reject packets to service nodeports with no endpoints"

FRAME: Final = f"""
set cluster-ips | type ipv4_addr ; comment "Active ClusterIPs"
set nodeport-ips | type ipv4_addr ; comment "IPs that accept NodePort traffic"
  192.168.0.2
map firewall-ips | {_VERDICTS} ; comment "destinations that are subject to LoadBalancerSourceRanges"
map no-endpoint-nodeports | {_PORT_VERDICTS} ; comment "{_NO_NODE_PORT}"
map no-endpoint-services | {_VERDICTS} ; comment "vmap to drop or reject packets to services with no endpoints"
map service-ips | {_VERDICTS} ; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
map service-nodeports | {_PORT_VERDICTS} ; comment "NodePort traffic"

chain mark-for-masquerade
  mark set mark or 0x4000
chain masquerading
  mark and 0x4000 == 0 return
  mark set mark xor 0x4000
  masquerade fully-random
chain reject-chain | comment "helper for @no-endpoint-services / @no-endpoint-nodeports"
  reject
chain cluster-ips-check
  ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
  ip daddr {{ 172.30.0.0/16 }} drop comment "Drop traffic to unallocated ClusterIPs"
chain firewall-check
  ip daddr . meta l4proto . th dport vmap @firewall-ips
chain nodeport-endpoints-check
  ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
chain service-endpoints-check
  ip daddr . meta l4proto . th dport vmap @no-endpoint-services
chain services
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports

chain filter-prerouting-pre-dnat | type filter hook prerouting priority -110
  ct state new jump firewall-check
chain filter-output-pre-dnat | type filter hook output priority -110
  ct state new jump firewall-check
chain filter-input | type filter hook input priority 0
  ct state new jump nodeport-endpoints-check
  ct state new jump service-endpoints-check
chain filter-forward | type filter hook forward priority 0
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
chain filter-output | type filter hook output priority 0
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
chain nat-prerouting | type nat hook prerouting priority -100
  jump services
chain nat-output | type nat hook output priority -100
  jump services
chain nat-postrouting | type nat hook postrouting priority 100
  jump masquerading
"""

OVERALL_OBJECTS: Final[tuple[Object, ...]] = (
    service("ns1/svc1", "172.30.0.41", tcp()),
    slice_of("ns1/svc1", "10.180.0.1"),
    # Its endpoint has no node, so it is local nowhere.
    balanced(
        "ns2/svc2",
        "172.30.0.42",
        tcp(80, 3001),
        "1.2.3.4",
        externalTrafficPolicy="Local",
        externalIPs=["192.168.99.22"],
        healthCheckNodePort=30000,
    ),
    slice_of("ns2/svc2", "10.180.0.2"),
    service("ns3/svc3", "172.30.0.43", tcp(80, 3003), type="NodePort"),
    slice_of("ns3/svc3", "10.180.0.3"),
    service("ns4/svc4", "172.30.0.44", tcp(targetPort=80), type="NodePort", externalIPs=["192.168.99.33"]),
    slice_of("ns4/svc4", "10.180.0.4", endpoint("10.180.0.5", NODE)),
    balanced(
        "ns5/svc5",
        "172.30.0.45",
        tcp(80, 3002),
        "5.6.7.8",
        externalTrafficPolicy="Cluster",
        healthCheckNodePort=30000,
        # Objects of old API servers may hold such ranges.
        loadBalancerSourceRanges=[" 203.0.113.0/25"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}},
    ),
    slice_of("ns5/svc5", "10.180.0.3"),
    service("ns6/svc6", "172.30.0.46", tcp(targetPort=80)),
)

OVERALL: Final = """
set cluster-ips
  172.30.0.41
  172.30.0.42
  172.30.0.43
  172.30.0.44
  172.30.0.45
  172.30.0.46

chain service-ULMVA6XW-ns1/svc1/tcp/p80
  ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 }
chain endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80
  ip saddr 10.180.0.1 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.1:80

chain service-42NFTM6N-ns2/svc2/tcp/p80
  ip daddr 172.30.0.42 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  numgen random mod 1 vmap { 0 : goto endpoint-SGOXE6O3-ns2/svc2/tcp/p80__10.180.0.2/80 }
chain external-42NFTM6N-ns2/svc2/tcp/p80
  ip saddr 10.0.0.0/8 goto service-42NFTM6N-ns2/svc2/tcp/p80 comment "short-circuit pod traffic"
  fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"
  fib saddr type local goto service-42NFTM6N-ns2/svc2/tcp/p80 comment "short-circuit local traffic"
chain endpoint-SGOXE6O3-ns2/svc2/tcp/p80__10.180.0.2/80
  ip saddr 10.180.0.2 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.2:80

chain service-4AT6LBPK-ns3/svc3/tcp/p80
  ip daddr 172.30.0.43 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  numgen random mod 1 vmap { 0 : goto endpoint-UEIP74TE-ns3/svc3/tcp/p80__10.180.0.3/80 }
chain external-4AT6LBPK-ns3/svc3/tcp/p80
  jump mark-for-masquerade
  goto service-4AT6LBPK-ns3/svc3/tcp/p80
chain endpoint-UEIP74TE-ns3/svc3/tcp/p80__10.180.0.3/80
  ip saddr 10.180.0.3 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.3:80

chain service-LAUZTJTB-ns4/svc4/tcp/p80
  ip daddr 172.30.0.44 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  numgen random mod 2 vmap { 0 : goto endpoint-UNZV3OEC-ns4/svc4/tcp/p80__10.180.0.4/80 ,
    1 : goto endpoint-5RFCDDV7-ns4/svc4/tcp/p80__10.180.0.5/80 }
chain external-LAUZTJTB-ns4/svc4/tcp/p80
  jump mark-for-masquerade
  goto service-LAUZTJTB-ns4/svc4/tcp/p80
chain endpoint-5RFCDDV7-ns4/svc4/tcp/p80__10.180.0.5/80
  ip saddr 10.180.0.5 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.5:80
chain endpoint-UNZV3OEC-ns4/svc4/tcp/p80__10.180.0.4/80
  ip saddr 10.180.0.4 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.4:80

set affinity-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80 | type ipv4_addr ; flags dynamic,timeout ; timeout 10800s
chain service-HVFWP5L3-ns5/svc5/tcp/p80
  ip daddr 172.30.0.45 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  ip saddr @affinity-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80 goto endpoint-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80
  numgen random mod 1 vmap { 0 : goto endpoint-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80 }
chain external-HVFWP5L3-ns5/svc5/tcp/p80
  jump mark-for-masquerade
  goto service-HVFWP5L3-ns5/svc5/tcp/p80
chain endpoint-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80
  ip saddr 10.180.0.3 jump mark-for-masquerade
  update @affinity-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80 { ip saddr }
  meta l4proto tcp dnat to 10.180.0.3:80
chain firewall-HVFWP5L3-ns5/svc5/tcp/p80
  ip saddr != { 203.0.113.0/25 } drop

map service-ips
  172.30.0.41 . tcp . 80 : goto service-ULMVA6XW-ns1/svc1/tcp/p80
  172.30.0.42 . tcp . 80 : goto service-42NFTM6N-ns2/svc2/tcp/p80
  192.168.99.22 . tcp . 80 : goto external-42NFTM6N-ns2/svc2/tcp/p80
  1.2.3.4 . tcp . 80 : goto external-42NFTM6N-ns2/svc2/tcp/p80
  172.30.0.43 . tcp . 80 : goto service-4AT6LBPK-ns3/svc3/tcp/p80
  172.30.0.44 . tcp . 80 : goto service-LAUZTJTB-ns4/svc4/tcp/p80
  192.168.99.33 . tcp . 80 : goto external-LAUZTJTB-ns4/svc4/tcp/p80
  172.30.0.45 . tcp . 80 : goto service-HVFWP5L3-ns5/svc5/tcp/p80
  5.6.7.8 . tcp . 80 : goto external-HVFWP5L3-ns5/svc5/tcp/p80
map service-nodeports
  tcp . 3001 : goto external-42NFTM6N-ns2/svc2/tcp/p80
  tcp . 3003 : goto external-4AT6LBPK-ns3/svc3/tcp/p80
  tcp . 3002 : goto external-HVFWP5L3-ns5/svc5/tcp/p80
map firewall-ips
  5.6.7.8 . tcp . 80 : goto firewall-HVFWP5L3-ns5/svc5/tcp/p80
map no-endpoint-nodeports
  tcp . 3001 comment "ns2/svc2:p80" : drop
map no-endpoint-services
  1.2.3.4 . tcp . 80 comment "ns2/svc2:p80" : drop
  192.168.99.22 . tcp . 80 comment "ns2/svc2:p80" : drop
  172.30.0.46 . tcp . 80 comment "ns6/svc6:p80" : goto reject-chain
"""

BAD_ADDRESSES_OBJECTS: Final[tuple[Object, ...]] = (
    balanced(
        "ns1/svc1",
        "172.30.0.041",
        tcp(80, 3001),
        "1.2.3.004",
        externalIPs=["192.168.099.022"],
        loadBalancerSourceRanges=["203.0.113.000/025"],
    ),
    slice_of("ns1/svc1", "10.180.00.001"),
)

BAD_ADDRESSES: Final = """
set cluster-ips
  172.30.0.41
chain service-ULMVA6XW-ns1/svc1/tcp/p80
  ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
  numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 }
chain external-ULMVA6XW-ns1/svc1/tcp/p80
  jump mark-for-masquerade
  goto service-ULMVA6XW-ns1/svc1/tcp/p80
chain endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80
  ip saddr 10.180.0.1 jump mark-for-masquerade
  meta l4proto tcp dnat to 10.180.0.1:80
chain firewall-ULMVA6XW-ns1/svc1/tcp/p80
  ip saddr != { 203.0.113.0/25 } drop
map service-ips
  172.30.0.41 . tcp . 80 : goto service-ULMVA6XW-ns1/svc1/tcp/p80
  192.168.99.22 . tcp . 80 : goto external-ULMVA6XW-ns1/svc1/tcp/p80
  1.2.3.4 . tcp . 80 : goto external-ULMVA6XW-ns1/svc1/tcp/p80
map service-nodeports
  tcp . 3001 : goto external-ULMVA6XW-ns1/svc1/tcp/p80
map firewall-ips
  1.2.3.4 . tcp . 80 : goto firewall-ULMVA6XW-ns1/svc1/tcp/p80
"""

SVC1, SVC2 = "service-ULMVA6XW-ns1/svc1/tcp/p80", "service-MHHHYRWA-ns2/svc2/tcp/p8080"
SVC3, SVC4 = "service-4AT6LBPK-ns3/svc3/tcp/p80", "service-LAUZTJTB-ns4/svc4/tcp/p80"
EP1_1 = "endpoint-5TPGNJF2-ns1/svc1/tcp/p80__10.0.1.1/80"
EP1_2 = "endpoint-ZCZBVNAZ-ns1/svc1/tcp/p80__10.0.1.2/80"
EP2_1 = "endpoint-7RVP4LUQ-ns2/svc2/tcp/p8080__10.0.2.1/8080"
EP3_1 = "endpoint-2OCDJSZQ-ns3/svc3/tcp/p80__10.0.3.1/80"
EP3_2 = "endpoint-SWWHDC7X-ns3/svc3/tcp/p80__10.0.3.2/80"
EP3_3 = "endpoint-TQ2QKHCZ-ns3/svc3/tcp/p80__10.0.3.3/80"
EP4_1 = "endpoint-WAHRBT2B-ns4/svc4/tcp/p80__10.0.4.1/80"


def cluster_ip_chains(chain: str, cluster_ip: str, *endpoints: str) -> str:
    """The chains of a ClusterIP port whose only peculiarity is how many endpoints it has."""
    choices = " , ".join(f"{number} : goto {name}" for number, name in enumerate(endpoints))
    lines = [
        f"chain {chain}",
        f"  ip daddr {cluster_ip} ip saddr != 10.0.0.0/8 jump mark-for-masquerade",
        f"  numgen random mod {len(endpoints)} vmap {{ {choices} }}",
    ]
    for name in endpoints:
        address, port = name.rpartition("__")[2].split("/")
        lines += [
            f"chain {name}",
            f"  ip saddr {address} jump mark-for-masquerade",
            f"  meta l4proto tcp dnat to {address}:{port}",
        ]
    return "\n".join(lines) + "\n"


def cluster_ips(*addresses: str, refused: str = "", **leads: str) -> str:
    """The set of cluster IPs, and where their ports lead: the last number of the address and its chain.

    `refused` is an element of the map of Services without endpoints.
    """
    lines = ["set cluster-ips", *(f"  {address}" for address in addresses), "map service-ips"]
    for last, chain in leads.items():
        port = 8080 if chain.endswith("8080") else 80
        lines.append(f"  172.30.0.{last.removeprefix('to_')} . tcp . {port} : goto {chain}")
    if refused:
        lines += ["map no-endpoint-services", f"  {refused} : goto reject-chain"]
    return "\n".join(lines) + "\n"


def read(*texts: str) -> dict[str, Section]:
    """The sections of all texts; entries of a section named twice come together, and deeper lines go on a line."""
    found: dict[str, Section] = {}
    name = ""
    for line in re.sub(r"\n {4,}", " ", "\n".join(texts)).splitlines():
        if not line:
            continue
        if line.startswith("  "):
            known = found[name]
            found[name] = Section(known.declared, (*known.entries, line.strip()))
            continue
        name, _, declared = line.partition(" | ")
        known = found.get(name, Section("", ()))
        found[name] = Section(declared or known.declared, known.entries)
    return found


def script(table: Table) -> str:
    """Input for nft that makes the table."""
    lines = ['add table ip kube-proxy { comment "rules for kube-proxy" ; }']
    kinds = {name: name.split(" ") for name in table}
    for name, (kind, short) in kinds.items():
        body = table[name].declared
        lines.append(f"add {kind} ip kube-proxy {short}" + (f" {{ {body} ; }}" if body else ""))
    for name, (kind, short) in kinds.items():
        for entry in table[name].entries:
            if kind == "chain":
                lines.append(f"add rule ip kube-proxy {short} {entry}")
            else:
                lines.append(f"add element ip kube-proxy {short} {{ {entry} }}")
    return "\n".join(lines) + "\n"


_LISTED: Final = (
    (re.compile(r"^mark set mark or 0x4000$"), "meta mark set meta mark | 0x00004000"),
    (re.compile(r"^mark set mark xor 0x4000$"), "meta mark set meta mark ^ 0x00004000"),
    (re.compile(r"^mark and 0x4000 == 0 return$"), "meta mark & 0x00004000 == 0x00000000 return"),
    (re.compile(r"(daddr|saddr !=) \{ (\S+) \}"), r"\1 \2"),
    (re.compile(r" , "), ", "),
)


def listed(entry: str) -> str:
    """A rule as nft lists it, which is not quite how it takes it."""
    for pattern, words in _LISTED:
        entry = pattern.sub(words, entry)
    return entry
