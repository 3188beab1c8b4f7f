"""What each rule of the iptables mode is for, in plain words, the Kubernetes object first. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from netkit.proxy.explain.iptables_rule import Rule
from netkit.proxy.explain.steps import Subject

_SERVICE_CHAIN = re.compile(r"KUBE-(SVC|SVL|EXT|FW|SEP)-")


def meaning(section: str, rule: Rule, subject: Subject, endpoint: str = "") -> str:
    """Why the rule is there. `section` is `TABLE CHAIN`, `endpoint` what the rule leads to, if to one."""
    table, _, chain = section.partition(" ")
    if match := _SERVICE_CHAIN.match(chain):
        return _OWN[match[1]](rule, subject, endpoint)
    words = _SHARED.get((table, chain))
    return words(rule, subject) if words is not None else (rule.comment or "a rule of the proxy")


def _captured(rule: Rule, subject: Subject) -> str:
    """nat KUBE-SERVICES."""
    if rule.target == "KUBE-NODEPORTS":
        return "whatever else is for an address of this node may be for a NodePort; asked last"
    kind = next(
        (kind for kind in ("cluster IP", "external IP", "loadbalancer IP") if kind in rule.comment), ""
    )
    kind = kind.replace("loadbalancer", "load balancer") or "address"
    return f"{subject.service}: its {kind} leads to {_list_text(rule.target)}"


def _list_text(chain: str) -> str:
    match = _SERVICE_CHAIN.match(chain)
    texts = {
        "SVC": "the endpoints of all nodes",
        "SVL": "the endpoints of this node",
        "EXT": "the rules for external addresses",
        "FW": "its source ranges",
    }
    return texts.get(match[1], chain) if match else chain


def _node_port(rule: Rule, subject: Subject) -> str:
    """nat KUBE-NODEPORTS."""
    return f"{subject.service}: NodePort {subject.port.node_port} leads to the rules for external addresses"


def _external(rule: Rule, subject: Subject, endpoint: str) -> str:
    """KUBE-EXT."""
    local = rule.has("--src-type")
    if rule.target == "KUBE-MARK-MASQ":
        if local:
            return (
                "the node itself calls: its source will be rewritten to an address that endpoints can answer"
            )
        return f"externalTrafficPolicy Cluster: source to be rewritten, for answers to come back through {subject.node}"
    if local:
        return "short circuit: the node itself reaches the endpoints of all nodes"
    if rule.has("-s") or rule.has("-i"):
        return "short circuit: pods reach the endpoints of all nodes, with their own address"
    if rule.target.startswith("KUBE-SVL-"):
        return (
            f"externalTrafficPolicy Local: only endpoints on {subject.node}, which see the client's address"
        )
    return f"externalTrafficPolicy Cluster: {_list_text(rule.target)}"


def _source_range(rule: Rule, subject: Subject, endpoint: str) -> str:
    """KUBE-FW."""
    if not rule.target:
        return "loadBalancerSourceRanges: nobody else goes on; what stays untranslated is dropped later"
    return f"loadBalancerSourceRanges: {rule.value('-s')} may call the load balancer address"


def _choice(rule: Rule, subject: Subject, endpoint: str) -> str:
    """KUBE-SVC and KUBE-SVL."""
    if rule.target == "KUBE-MARK-MASQ":
        if rule.has("-s") or rule.has("-i"):
            return f"no pod calls: source to be rewritten, for answers to come back through {subject.node}"
        return "masqueradeAll: the source of every call of the cluster IP will be rewritten"
    named = subject.endpoint(endpoint)
    if rule.has("--rcheck"):
        return (
            f"sessionAffinity ClientIP: a client of the last {rule.value('--seconds')} s stays with {named}"
        )
    if rule.has("--probability"):
        remaining = round(1 / float(rule.value("--probability")))
        return f"endpoint {named}: takes 1 of {remaining} that come to this rule"
    return f"endpoint {named}: takes all that come to this rule"


def _endpoint(rule: Rule, subject: Subject, endpoint: str) -> str:
    """KUBE-SEP."""
    if rule.target == "KUBE-MARK-MASQ":
        return "hairpin: the endpoint calls itself; with its own source it would answer itself"
    remembered = ", and the client is remembered" if rule.has("--set") else ""
    return f"the destination becomes {subject.endpoint(endpoint)}{remembered}"


def _without_endpoints(rule: Rule, subject: Subject) -> str:
    """filter KUBE-SERVICES and KUBE-EXTERNAL-SERVICES."""
    if rule.target == "REJECT":
        return f"{subject.service} has no usable endpoint anywhere: refused by an ICMP error"
    return f"{subject.service} has no endpoint on {subject.node} and policy Local asks for one: silence"


def _firewall(rule: Rule, subject: Subject) -> str:
    """filter KUBE-PROXY-FIREWALL."""
    return f"{subject.service}: no source range let the caller in, so the packet is still for the balancer"


def _forward(rule: Rule, subject: Subject) -> str:
    """filter KUBE-FORWARD."""
    if rule.target == "DROP":
        return "packets that connection tracking cannot place would end the connection; they are dropped"
    if rule.has("--mark"):
        return "connections whose source will be rewritten may be forwarded, whatever others forbid"
    return "packets of connections that are under way may be forwarded"


def _postrouting(rule: Rule, subject: Subject) -> str:
    """nat KUBE-POSTROUTING."""
    match rule.target:
        case "RETURN":
            return "not marked: the source stays as it is"
        case "MARK":
            return "the mark is taken off, so that a tunnel's packet is not rewritten again"
        case _:
            return f"the source becomes {subject.node}'s address on the way out"


def _localnet(rule: Rule, subject: Subject) -> str:
    """filter KUBE-FIREWALL."""
    return "nobody from elsewhere may call loopback addresses (CVE-2020-8558)"


def _health(rule: Rule, subject: Subject) -> str:
    """filter KUBE-NODEPORTS."""
    return f"{subject.service}: its health check NodePort is open"


_OWN: Mapping[str, Callable[[Rule, Subject, str], str]] = {
    "EXT": _external,
    "FW": _source_range,
    "SVC": _choice,
    "SVL": _choice,
    "SEP": _endpoint,
}

_SHARED: Mapping[tuple[str, str], Callable[[Rule, Subject], str]] = {
    ("nat", "KUBE-SERVICES"): _captured,
    ("nat", "KUBE-NODEPORTS"): _node_port,
    ("nat", "KUBE-POSTROUTING"): _postrouting,
    ("nat", "KUBE-MARK-MASQ"): lambda rule, subject: "the mark that asks for a new source on the way out",
    ("filter", "KUBE-SERVICES"): _without_endpoints,
    ("filter", "KUBE-EXTERNAL-SERVICES"): _without_endpoints,
    ("filter", "KUBE-PROXY-FIREWALL"): _firewall,
    ("filter", "KUBE-FORWARD"): _forward,
    ("filter", "KUBE-NODEPORTS"): _health,
    ("filter", "KUBE-FIREWALL"): _localnet,
}
