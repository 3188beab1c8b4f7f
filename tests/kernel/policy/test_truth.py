"""Truth tables of policies by real packets: everybody calls everybody, and each cell is what the API says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.kernel import requires_root
from support.policy_net import PolicyNet, policy_net
from support.policy_objects import NAMESPACES, policy

pytestmark = [pytest.mark.root, requires_root]
Obj = dict[str, Any]

_A, _B = {"matchLabels": {"pod": "a"}}, {"matchLabels": {"pod": "b"}}
_X, _NOT_Z = (
    {"matchLabels": {"ns": "x"}},
    {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["z"]}]},
)
_DB = {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}
_NO_DB = {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}
_IN = {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["a", "b"]}]}
BOTH = ["Ingress", "Egress"]
SPECS: list[Obj] = [
    {},
    {"policyTypes": ["Egress"]},
    {"policyTypes": BOTH},
    {"ingress": [{}]},
    {"egress": [{}]},
    {"podSelector": _A, "ingress": [{"from": [{"podSelector": _B}]}]},
    {"podSelector": _A, "ingress": [{"from": [{"namespaceSelector": _X}]}]},
    {"ingress": [{"from": [{"namespaceSelector": _NOT_Z, "podSelector": _DB}]}]},
    {"ingress": [{"from": [{"namespaceSelector": _X}, {"podSelector": _B}]}]},
    {"egress": [{"to": [{"namespaceSelector": {}, "podSelector": _IN}]}], "policyTypes": ["Egress"]},
    {"ingress": [{"from": [{"ipBlock": {"cidr": "10.244.1.0/28", "except": ["10.244.1.4/30"]}}]}]},
    {"egress": [{"to": [{"ipBlock": {"cidr": "10.244.1.0/29"}}, {"ipBlock": {"cidr": "fd00:244:1::/125"}}]}]},
    {"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]},
    {"ingress": [{"ports": [{"port": 80}]}]},
    {"ingress": [{"ports": [{"port": 80, "protocol": "UDP"}, {"port": 81, "protocol": "SCTP"}]}]},
    {"ingress": [{"ports": [{"protocol": "UDP"}]}]},
    {"ingress": [{"ports": [{"port": 79, "endPort": 80}, {"port": 81, "endPort": 90, "protocol": "SCTP"}]}]},
    {"ingress": [{"ports": [{"port": "web"}]}]},
    {"egress": [{"ports": [{"port": "web"}, {"port": "sig", "protocol": "SCTP"}]}], "policyTypes": BOTH},
    {"egress": [{"to": [{"podSelector": _NO_DB}], "ports": [{"port": "web"}, {"port": 80, "protocol": "UDP"}]}]},
    {"podSelector": _DB, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 82}]}, {}]},
]  # fmt: skip


def scenarios() -> list[list[Obj]]:
    """Each feature once in every namespace: three policies at a time, 63 in all."""
    count = len(SPECS)
    return [
        [
            policy(space, f"p{number}", **SPECS[(number + 7 * offset) % count])
            for offset, space in enumerate(NAMESPACES)
        ]
        for number in range(count)
    ]


async def everybody(net: PolicyNet) -> None:
    assert await net.check() == len(net.cells())


async def test_every_feature(tmp_path: Path) -> None:
    async with policy_net(tmp_path) as net:
        assert await net.sync() == 0
        await everybody(net)
        for found in scenarios():
            net.clear()
            net.put(*found)
            await net.sync()
            await net.check()
        # All of them at once.
        net.put(*(item for found in scenarios()[::5] for item in found))
        await net.sync()
        await net.check()
        net.clear()
        await net.sync()
        assert [table.read() for tables in net.tables.values() for table in tables] == [None] * 4
        await everybody(net)
