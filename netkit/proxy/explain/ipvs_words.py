"""What the rules and virtual servers of the IPVS mode are for, in plain words, the Kubernetes object first. Pure."""

from __future__ import annotations

from netkit.proxy.explain.iptables_rule import Rule
from netkit.proxy.explain.iptables_words import meaning as iptables_meaning
from netkit.proxy.explain.steps import Subject

_ADDRESSES = {
    "CLUSTER-IP": "cluster IP",
    "EXTERNAL-IP": "external IP",
    "EXTERNAL-IP-LOCAL": "external IP",
    "LOAD-BALANCER": "load balancer IP",
    "LOAD-BALANCER-LOCAL": "load balancer IP",
    "LOAD-BALANCER-FW": "load balancer IP",
}


def meaning(section: str, rule: Rule, subject: Subject, endpoint: str = "") -> str:
    """Why a rule is there. `section` is `TABLE CHAIN`."""
    chain = section.partition(" ")[2]
    kind = _set_of(rule)
    match chain:
        case "KUBE-SERVICES":
            return _service(rule, kind, subject)
        case "KUBE-LOAD-BALANCER" | "KUBE-NODE-PORT":
            return _marked_or_not(rule, subject)
        case "KUBE-PROXY-FIREWALL":
            return f"{subject.service}: its load balancer address is guarded by source ranges"
        case "KUBE-SOURCE-RANGES-FIREWALL":
            if rule.target == "DROP":
                return "loadBalancerSourceRanges: who is in none of them is dropped"
            return "loadBalancerSourceRanges: the caller is in one of them"
        case "KUBE-IPVS-OUT-FILTER":
            return "loadBalancerSourceRanges: this node is in none of them, so its own calls are dropped"
        case "KUBE-IPVS-FILTER":
            if rule.target == "RETURN":
                return f"{subject.service}: address and port are served, so they are not refused"
            return "ports that no Service has on a service address are refused"
        case "KUBE-POSTROUTING" if kind == "LOOP-BACK":
            return "hairpin: the endpoint calls itself; with its own source it would answer itself"
    return iptables_meaning(section, rule, subject, endpoint)


def server_meaning(note: str, target: str, count: int, subject: Subject) -> str:
    """Why a real server is behind a virtual one. `note` is the virtual server's scheduler and options."""
    if count == 1:
        return f"{subject.service}: the only endpoint is {subject.endpoint(target)}"
    return f"{subject.service}: endpoint {subject.endpoint(target)}, one of {count} (scheduler {note})"


def _set_of(rule: Rule) -> str:
    """The kind of set a rule asks: `CLUSTER-IP` of KUBE-CLUSTER-IP or KUBE-6-CLUSTER-IP."""
    name = rule.value("--match-set").partition(" ")[0]
    return name.removeprefix("KUBE-").removeprefix("6-")


def _service(rule: Rule, kind: str, subject: Subject) -> str:
    address = _ADDRESSES.get(kind, "address")
    match rule.target:
        case "KUBE-LOAD-BALANCER":
            return f"{subject.service}: its load balancer address may need another source"
        case "KUBE-NODE-PORT":
            return "packets for an address of the node may be for a NodePort, and may need another source"
        case "KUBE-MARK-MASQ" if kind == "CLUSTER-IP":
            if rule.has("-s") or rule.has("-i"):
                return (
                    f"no pod calls: source to be rewritten, for answers to come back through {subject.node}"
                )
            if rule.value("--match-set").endswith("src,dst"):
                return "the node calls from a service address: its source will be rewritten"
            return "masqueradeAll: the source of every call of the cluster IP will be rewritten"
        case "KUBE-MARK-MASQ":
            return _marked_or_not(rule, subject)
        case "RETURN":
            return "packets from loopback addresses are left alone"
        case _:
            return f"{subject.service}: its {address} is IPVS' affair; other nat rules are not asked"


def _marked_or_not(rule: Rule, subject: Subject) -> str:
    if rule.target == "RETURN":
        return "externalTrafficPolicy Local: the source stays as it is"
    return (
        f"externalTrafficPolicy Cluster: new source needed, for answers to come back through {subject.node}"
    )
