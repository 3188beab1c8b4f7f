"""Pods, namespaces and policies for tests, as objects and as strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMESPACES = ("x", "y", "z")
NODE, OTHER = "node1", "node2"
PROTOCOLS = ("TCP", "UDP", "SCTP")
OUTSIDE = ("203.0.113.9", "fd00:203::9")
Obj = dict[str, Any]


def pod(
    namespace: str,
    name: str,
    number: int,
    node: str = NODE,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Obj:
    """A running pod with addresses 10.244.1.`number` and fd00:244:1::`number`."""
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}-{name}-{number}",
            "labels": labels or {"pod": name},
        },
        "spec": {
            "nodeName": node,
            "containers": [
                {
                    "name": "c",
                    "ports": [
                        {"name": "web", "containerPort": 80 if number % 2 else 81},
                        {"name": "dns", "containerPort": 80, "protocol": "UDP"},
                        {"name": "sig", "containerPort": 81, "protocol": "SCTP"},
                    ],
                }
            ],
            **spec,
        },
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": f"10.244.1.{number}"}, {"ip": f"fd00:244:1::{number:x}"}],
        },
    }  # fmt: skip


def namespace(name: str, **labels: str) -> Obj:
    return {"metadata": {"name": name, "labels": {"ns": name, **labels}}}


def policy(namespace: str, name: str, **spec: Any) -> Obj:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": {}, **spec}}


def _labels(key: str, values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.just({}),
        st.sampled_from(values).map(lambda value: {"matchLabels": {key: value}}),
        st.tuples(
            st.sampled_from(("In", "NotIn")),
            st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True),
        ).map(
            lambda found: {"matchExpressions": [{"key": key, "operator": found[0], "values": found[1]}]}
        ),
        st.sampled_from(("Exists", "DoesNotExist")).map(
            lambda word: {"matchExpressions": [{"key": "tier", "operator": word}]}
        ),
    )  # fmt: skip


_pods = _labels("pod", ("a", "b", "c"))
_spaces = _labels("ns", NAMESPACES)
_blocks = st.sampled_from(
    [
        {"cidr": "10.244.1.0/24"},
        {"cidr": "10.244.1.0/29", "except": ["10.244.1.2/31", "10.244.1.5/32"]},
        {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]},
        {"cidr": "::/0"},
        {"cidr": "fd00:244:1::/64", "except": ["fd00:244:1::4/126"]},
        {"cidr": "203.0.113.9/32"},
    ]
)
_peers = st.one_of(
    _pods.map(lambda found: {"podSelector": found}),
    _spaces.map(lambda found: {"namespaceSelector": found}),
    st.tuples(_spaces, _pods).map(lambda found: {"namespaceSelector": found[0], "podSelector": found[1]}),
    _blocks.map(lambda found: {"ipBlock": found}),
)
_port = st.one_of(
    st.just({}),
    st.sampled_from(PROTOCOLS).map(lambda word: {"protocol": word}),
    st.tuples(st.sampled_from(PROTOCOLS), st.sampled_from((80, 81, "web", "dns", "sig"))).map(
        lambda found: {"protocol": found[0], "port": found[1]}
    ),
    st.tuples(st.sampled_from(PROTOCOLS), st.sampled_from((80, 81, 82, 4990))).map(
        lambda found: {"protocol": found[0], "port": found[1], "endPort": found[1] + 20}
    ),
)


def _rule(peers: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {}, optional={peers: st.lists(_peers, max_size=2), "ports": st.lists(_port, max_size=3)}
    )


specs = st.fixed_dictionaries(
    {"podSelector": _pods},
    optional={
        "ingress": st.lists(_rule("from"), max_size=2),
        "egress": st.lists(_rule("to"), max_size=2),
        "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    },
)
