"""Truth tables of policies by real packets: everybody calls everybody, and each cell is what the API says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from support.kernel import requires_root
from support.policy_net import PolicyNet, policy_net
from support.policy_objects import NAMESPACES, NODE, policy

from netkit.kernel import netns, process
from netkit.kernel.iptables import IPTables
from netkit.kernel.nft.expressions import decode
from netkit.kernel.nft.objects import Contents
from netkit.policy.backend import PolicyBackend
from netkit.policy.render import TABLE

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


def _call(net: PolicyNet, source: str, destination: str, to: tuple[str, int] | None = None) -> socket.socket:
    """A TCP connection between two pods, from the first one's namespace. Raises TimeoutError for silence."""
    sock = netns.socket_in(net.world.machines[source.replace("/", "-")], socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(1.0)
    try:
        sock.connect(to or (net.address(destination), 80))
    except OSError:
        sock.close()
        raise
    return sock


async def _answered(net: PolicyNet, sock: socket.socket) -> bool:
    """Whether the server answers once more on an open connection."""
    sock.setblocking(False)
    sock.send(b"again")
    deadline = asyncio.get_running_loop().time() + 3
    heard = b""
    while asyncio.get_running_loop().time() < deadline:
        await net.traffic.serve(0.05)
        with contextlib.suppress(BlockingIOError):
            heard += sock.recv(4096)
        if heard:
            return True
    return False


async def test_established_connections_go_on_and_new_ones_do_not(tmp_path: Path) -> None:
    async with policy_net(tmp_path) as net:
        for node in net.tables:
            # A namespace tracks connections from its first rule that asks for them; on real nodes that is the proxy's.
            lock = tmp_path / f"{node}.lock"
            rule = "*nat\n-A POSTROUTING -s 192.0.2.1/32 -j MASQUERADE\nCOMMIT\n"
            await IPTables(net.world.machines[node], lock_file=lock).restore(rule)
        for source in ("x/b", "z/a"):
            with _call(net, source, "x/a") as sock:
                # The server tells who called as soon as it has accepted, and then for whatever is sent.
                assert await _answered(net, sock)
                net.put(policy("x", "deny", policyTypes=BOTH))
                await net.sync()
                assert await _answered(net, sock)
                with pytest.raises(TimeoutError):
                    _call(net, source, "x/a")
                net.clear()
                await net.sync()


async def test_policies_see_the_pods_behind_a_service(tmp_path: Path) -> None:
    """The bridge's pods are translated and stay on their bridge; rules see the pod's own port."""
    async with policy_net(tmp_path) as net:
        for node in net.tables:
            await IPTables(net.world.machines[node], lock_file=tmp_path / f"{node}.lock").restore(
                f"*nat\n-A PREROUTING -d 10.96.0.10/32 -p tcp --dport 8000 -j DNAT --to {net.address('x/a')}:80\n"
                f"-A POSTROUTING -s {net.address('x/a')}/32 -d {net.address('x/a')}/32 -j MASQUERADE\nCOMMIT\n"
            )
        service = ("10.96.0.10", 8000)
        net.put(
            policy(
                "x", "in", podSelector=_A, ingress=[{"from": [{"podSelector": _B}], "ports": [{"port": 80}]}]
            )
        )
        await net.sync()
        for source in ("x/b", "x/a"):
            _call(net, source, "", service).close()
        for source in ("x/c", "z/a", "z/b"):
            with pytest.raises(TimeoutError):
                _call(net, source, "", service)
        net.put(
            policy("x", "out", podSelector=_B, egress=[{"ports": [{"port": 8000}]}], policyTypes=["Egress"])
        )
        await net.sync()
        with pytest.raises(TimeoutError):
            _call(net, "x/b", "", service)


async def test_a_restart_adopts_and_what_others_do_is_mended(tmp_path: Path) -> None:
    async with policy_net(tmp_path) as net:
        for found in scenarios()[:12:3]:
            net.put(*found)
        await net.sync()
        before = [table.read() for table in net.tables[NODE]]
        again = PolicyBackend(net.tables[NODE])
        assert (await again.sync(net.selections[NODE], None)).messages == 0
        chain = next(name for name in before[0].chains if name.startswith("pod-ingress"))
        for command in (
            ["flush", "chain", "ip", TABLE, chain],
            ["add", "rule", "ip", TABLE, "ingress-forward", "accept"],
            ["flush", "map", "ip6", TABLE, "ingress-pods"],
            ["delete", "table", "ip", TABLE],
        ):
            process.run(["nft", *command], ns=net.world.machines[NODE], check=True)
            assert (await again.sync(net.selections[NODE], None)).messages > 0
            for table, wanted in zip(net.tables[NODE], before, strict=True):
                assert _meaning(table.read()) == _meaning(wanted)


async def test_random_changes_end_in_the_kernel_state_of_a_fresh_start(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with policy_net(tmp_path) as net:
        for step in range(40):
            space, name = chance.choice(NAMESPACES), chance.choice("pq")
            if chance.random() < 0.3:
                net.remove((space, name))
            else:
                net.put(policy(space, name, **chance.choice(SPECS)))
            if chance.random() < 0.3:
                net.relabel(chance.randrange(len(net.pods)), chance.choice("abc"))
            await net.sync()
            if step % 10 == 9:
                for node, tables in net.tables.items():
                    standing = [_meaning(table.read()) for table in tables]
                    await net.backends[node].cleanup()
                    await net.backends[node].sync(net.selections[node], None)
                    assert [_meaning(table.read()) for table in tables] == standing
        await net.check()


def _meaning(contents: Contents | None) -> object:
    """What a table does: everything but what was counted and the order in which things came."""
    if contents is None:
        return None
    rules = {
        name: [(decode(rule.expressions), rule.comment) for rule in rules]
        for name, rules in contents.rules.items()
    }
    elements = {name: sorted(found, key=repr) for name, found in contents.elements.items()}
    return contents.chains, rules, contents.sets, elements
