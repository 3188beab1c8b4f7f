"""Who reaches whom, by brute force from the API's objects as they are written. Knows nothing of the product.

A question is asked of the whole list of objects each time. Ends are pods (as objects) or plain addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

Obj = Mapping[str, Any]


def connects(
    policies: Sequence[Obj],
    namespaces: Sequence[Obj],
    pods: Sequence[Obj],
    source: str,
    destination: str,
    protocol: str,
    port: int,
    ends: Sequence[str] = ("egress", "ingress"),
) -> bool:
    """Whether a new connection between two addresses is let through, as far as these ends decide."""
    if source == destination:
        return True
    sender, receiver = owner(pods, source), owner(pods, destination)
    labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in namespaces}
    for kind, selected, other, other_address in (
        ("egress", sender, receiver, destination),
        ("ingress", receiver, sender, source),
    ):
        if selected is None or kind not in ends:
            continue
        isolating = [p for p in policies if isolates(p, kind, selected)]
        if isolating and not any(
            permits(p, rule, kind, other, other_address, receiver, labels, protocol, port)
            for p in isolating
            for rule in p["spec"].get(kind) or []
        ):
            return False
    return True


def owner(pods: Sequence[Obj], address: str) -> Obj | None:
    """The running pod with that address on the pod network."""
    for pod in pods:
        status = pod.get("status") or {}
        if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        if address in [entry["ip"] for entry in status.get("podIPs") or []]:
            return pod
    return None


def isolates(policy: Obj, kind: str, pod: Obj) -> bool:
    spec = policy["spec"]
    if policy["metadata"]["namespace"] != pod["metadata"]["namespace"]:
        return False
    types = spec.get("policyTypes") or ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    return kind.capitalize() in types and fits(spec.get("podSelector"), pod["metadata"].get("labels") or {})


def permits(
    policy: Obj,
    rule: Obj,
    kind: str,
    other: Obj | None,
    other_address: str,
    receiver: Obj | None,
    labels: Mapping[str, Mapping[str, str]],
    protocol: str,
    port: int,
) -> bool:
    peers = rule.get("from" if kind == "ingress" else "to") or []
    home = policy["metadata"]["namespace"]
    if peers and not any(is_peer(peer, home, other, other_address, labels) for peer in peers):
        return False
    ports = rule.get("ports") or []
    return not ports or any(is_port(item, receiver, protocol, port) for item in ports)


def is_peer(
    peer: Obj, home: str, other: Obj | None, address: str, labels: Mapping[str, Mapping[str, str]]
) -> bool:
    if "ipBlock" in peer:
        ip = ipaddress.ip_address(address)
        inside = ip in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        holes = peer["ipBlock"].get("except") or []
        return inside and all(ip not in ipaddress.ip_network(hole) for hole in holes)
    if other is None:
        return False
    where = other["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        if where not in labels or not fits(peer["namespaceSelector"], labels[where]):
            return False
    elif where != home:
        return False
    return "podSelector" not in peer or fits(peer["podSelector"], other["metadata"].get("labels") or {})


def is_port(item: Obj, receiver: Obj | None, protocol: str, port: int) -> bool:
    if (item.get("protocol") or "TCP") != protocol:
        return False
    wanted = item.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return wanted <= port <= (item.get("endPort") or wanted)
    if receiver is None:
        return False
    return any(
        (entry.get("name"), entry.get("protocol") or "TCP", entry["containerPort"])
        == (wanted, protocol, port)
        for container in receiver["spec"]["containers"]
        for entry in container.get("ports") or []
    )


def fits(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for item in (selector or {}).get("matchExpressions") or []:
        has, value, values = item["key"] in labels, labels.get(item["key"]), item.get("values") or []
        good = {
            "In": has and value in values,
            "NotIn": not has or value not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }[item["operator"]]
        if not good:
            return False
    return True
