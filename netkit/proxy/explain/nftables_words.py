"""What each rule and element of the nftables mode is for, in plain words, the Kubernetes object first. Pure."""

from __future__ import annotations

import re

from netkit.proxy.explain.nftables_rule import Comparison, Rule, Statement
from netkit.proxy.explain.steps import Subject

_TREATED = re.compile(r"(internal|external)-(cluster|local)-(services|nodeports)$")
_COUNTED = re.compile(r"(cluster|local)-(\d+)-(services|nodeports)$")


def element_meaning(name: str, statement: Statement, subject: Subject) -> str:
    """Why a shared set or map has an element. `statement` is what the element, or the rule that found it, does."""
    service = subject.service
    if match := _TREATED.match(name):
        return f"{service}: {_treated(match[1], match[2], match[3], subject)}"
    if match := _COUNTED.match(name):
        where = "on all nodes" if match[1] == "cluster" else "on this node"
        return f"{service}: it has {match[2]} endpoint{'s or less' if match[2] != '1' else ''} {where}"
    match name:
        case "firewall-ips":
            return f"{service}: its load balancer address is guarded by source ranges"
        case "service-ips":
            return f"{service}: its address leads to {_chain_text(statement.argument)}"
        case "service-nodeports":
            return f"{service}: NodePort {subject.port.node_port} leads to {_chain_text(statement.argument)}"
        case "hairpin-connections":
            return "hairpin: the endpoint calls itself; with its own source it would answer itself"
        case _ if statement.verb == "drop":
            return f"{service} has no endpoint on {subject.node} and policy Local asks for one: silence"
        case _:
            return f"{service} has no usable endpoint anywhere: refused by an ICMP error"


def _treated(kind: str, which: str, keys: str, subject: Subject) -> str:
    """Why an address is in a set of the compact layout."""
    what = f"NodePort {subject.port.node_port}" if keys == "nodeports" else "address"
    policy = f"{kind}TrafficPolicy {which.capitalize()}"
    return f"its {what} is treated as {policy} wants it"


def rule_meaning(section: str, rule: Rule, statement: Statement, subject: Subject, endpoint: str = "") -> str:
    """Why a chain has a rule. `section` is `chain NAME`, `endpoint` what the rule leads to, if to one."""
    chain = section.removeprefix("chain ")
    kind = chain.partition("-")[0]
    if statement.verb == "choose":
        return _chosen(statement, subject, endpoint)
    match kind:
        case "service" | "local" | "internal":
            return _choice(rule, statement, subject, endpoint)
        case "external":
            return _external(rule, statement, subject)
        case "firewall":
            return "loadBalancerSourceRanges: who is in none of them is dropped"
        case "endpoint":
            return _endpoint(statement, subject, endpoint)
    return _fixed(chain, rule, statement, subject)


def _chain_text(chain: str) -> str:
    texts = {
        "service": "the endpoints of all nodes",
        "local": "the endpoints of this node",
        "external": "the rules for external addresses",
    }
    if chain.startswith("pick-"):
        return texts["local" if "-local-" in chain else "service"]
    return texts.get(chain.partition("-")[0], chain)


def _chosen(statement: Statement, subject: Subject, endpoint: str) -> str:
    """Where one of several endpoints is chosen."""
    if endpoint or statement.argument == "1":
        return f"the only endpoint{f': {subject.endpoint(endpoint)}' if endpoint else ''}"
    return f"one of {statement.argument} endpoints by chance"


def _choice(rule: Rule, statement: Statement, subject: Subject, endpoint: str) -> str:
    """service-X and local-X."""
    if statement.verb == "jump":
        fields = [part.fields[0] for part in rule.parts if isinstance(part, Comparison)]
        if any(field.endswith("saddr") or field == "iifname" for field in fields):
            return f"no pod calls: source to be rewritten, for answers to come back through {subject.node}"
        return "masqueradeAll: the source of every call of the cluster IP will be rewritten"
    if statement.argument.startswith("pick-"):
        policy = "Local" if "-local-" in statement.argument else "Cluster"
        return f"internalTrafficPolicy {policy}: {_chain_text(statement.argument)}"
    seconds = subject.port.affinity_seconds
    return (
        f"sessionAffinity ClientIP: a client of the last {seconds} s stays with {subject.endpoint(endpoint)}"
    )


def _external(rule: Rule, statement: Statement, subject: Subject) -> str:
    """external-X."""
    local = any(isinstance(part, Comparison) and part.fields[0] == "fib saddr type" for part in rule.parts)
    if statement.verb == "jump":
        if local:
            return (
                "the node itself calls: its source will be rewritten to an address that endpoints can answer"
            )
        return f"externalTrafficPolicy Cluster: source to be rewritten, for answers to come back through {subject.node}"
    if local:
        return "short circuit: the node itself reaches the endpoints of all nodes"
    if any(isinstance(part, Comparison) for part in rule.parts):
        return "short circuit: pods reach the endpoints of all nodes, with their own address"
    if statement.argument.startswith(("local-", "pick-local-")):
        return (
            f"externalTrafficPolicy Local: only endpoints on {subject.node}, which see the client's address"
        )
    return f"externalTrafficPolicy Cluster: {_chain_text(statement.argument)}"


def _endpoint(statement: Statement, subject: Subject, endpoint: str) -> str:
    """endpoint-X."""
    match statement.verb:
        case "jump":
            return "hairpin: the endpoint calls itself; with its own source it would answer itself"
        case "update" | "add":
            return "sessionAffinity ClientIP: the client is remembered"
        case _:
            return f"the destination becomes {subject.endpoint(endpoint)}"


def _fixed(chain: str, rule: Rule, statement: Statement, subject: Subject) -> str:
    """Chains that are the same for all ports."""
    match chain, statement.verb:
        case "masquerading", "return":
            return "not marked: the source stays as it is"
        case "masquerading", "mark":
            return "the mark is taken off, so that a tunnel's packet is not rewritten again"
        case "masquerading", _:
            return f"the source becomes {subject.node}'s address on the way out"
        case "reject-chain", _:
            return "an ICMP error says so to the caller (connection refused)"
    return rule.comment or "a rule of the proxy"
