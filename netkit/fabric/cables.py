"""The cables of a segment that stands: whether they are plugged in, and who may not reach whom over the switch.

Called by the keepers' side of `netkit.cluster`; `read` also by the commands that show it. A cable that is down looks on
both ends as one that was pulled. Two machines that are kept apart have their link, but the switch drops what goes from
one to the other (bridge family of nf_tables, table `netkit`).
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import count, permutations, takewhile
from typing import Final

from netkit.fabric.spec import FabricSpec, port_name
from netkit.kernel import rtnl, rtnl_read
from netkit.kernel.netns import Namespace
from netkit.kernel.nft.driver import NftTable
from netkit.kernel.nft.expressions import Cmp, Code, Expression, Meta, MetaKey, Op, Verdict, encode
from netkit.kernel.nft.objects import Chain, Hook, Rule, TableWriter
from netkit.kernel.nft.wire import NFPROTO_BRIDGE
from netkit.kernel.rtnl import Rtnl

TABLE: Final = "netkit"
_CHAIN: Final = Chain("apart", "machines that are kept apart", Hook("filter", "forward", -200))
_NAME_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Cables:
    """`down` are machines whose port is down, `apart` pairs of machines between whom the switch drops frames."""

    down: frozenset[str]
    apart: frozenset[tuple[str, str]]


def keep_apart(switch: Namespace, spec: FabricSpec, pairs: Iterable[tuple[str, str]]) -> None:
    """Have the switch drop what these pairs of machines send each other, and nothing else. Raises KernelError.

    What two machines send each other through a router is the router's; nothing is dropped there.
    """
    ways = [
        (sender, receiver, *ports)
        for pair in sorted(pairs)
        for sender, receiver in permutations(pair)
        for ports in _common(spec, sender, receiver)
    ]
    drops = [(_drop(out, to), f"{sender} {receiver}") for sender, receiver, out, to in ways]
    wanted = [Rule(encode(expressions), comment) for expressions, comment in drops]
    table = NftTable(switch, NFPROTO_BRIDGE, TABLE)
    contents = table.read()
    if (contents.rules.get(_CHAIN.name) if contents is not None else []) == wanted:
        return
    writer = TableWriter(NFPROTO_BRIDGE, TABLE)
    if not wanted:
        table.commit([writer.delete_table()])
        return
    messages = [writer.add_table(), writer.add_chain(_CHAIN), writer.flush_chain(_CHAIN.name)]
    table.commit(messages + [writer.add_rule(_CHAIN.name, *drop) for drop in drops])


def remove(switch: Namespace, machine: str) -> None:
    """Remove a machine's cables, both ends of them; fine when they are gone. Raises KernelError."""
    with Rtnl(switch) as links:
        for port in _ports(machine, rtnl_read.links(switch)):
            links.apply(rtnl.link_delete(port).allowing(errno.ENODEV))


def read(switch: Namespace, machines: Iterable[str]) -> Cables:
    """How the cables of these machines are now. Raises KernelError."""
    links = rtnl_read.links(switch)
    down = {name for name in machines if not all(links[port].up for port in _ports(name, links))}
    contents = NftTable(switch, NFPROTO_BRIDGE, TABLE).read()
    rules = contents.rules.get(_CHAIN.name, []) if contents is not None else []
    ways = {tuple(rule.comment.split(" ", 1)) for rule in rules}
    return Cables(frozenset(down), frozenset((one, other) for one, other in ways if one < other))


def _ports(machine: str, links: Container[str]) -> list[str]:
    """The ports of the machine that there are."""
    return list(takewhile(links.__contains__, (port_name(machine, number) for number in count())))


def _common(spec: FabricSpec, one: str, other: str) -> list[tuple[str, str]]:
    """Ports of the one and the other that are on the same segment."""
    machines = {machine.name: machine for machine in spec.machines}
    return [
        (port_name(one, number), port_name(other, another))
        for number, here in enumerate(machines[one].interfaces)
        for another, there in enumerate(machines[other].interfaces)
        if here.segment == there.segment
    ]


def _drop(sender: str, receiver: str) -> tuple[Expression, ...]:
    """Frames that come in by the one port and go out by the other."""
    return (
        Meta(MetaKey.IIFNAME),
        Cmp(Op.EQ, _name(sender)),
        Meta(MetaKey.OIFNAME),
        Cmp(Op.EQ, _name(receiver)),
        Verdict(Code.DROP),
    )


def _name(port: str) -> bytes:
    return port.encode().ljust(_NAME_BYTES, b"\0")
