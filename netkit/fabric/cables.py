"""The cables of a segment that stands: whether they are plugged in, and who may not reach whom over the switch.

Called by the keepers' side of `netkit.cluster`; `read` also by the commands that show it. A cable that is down looks on
both ends as one that was pulled. Two machines that are kept apart have their link, but the switch drops what goes from
one to the other (bridge family of nf_tables, table `netkit`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from netkit.fabric.spec import port_name
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


def keep_apart(switch: Namespace, pairs: Iterable[tuple[str, str]]) -> None:
    """Have the switch drop what these pairs of machines send each other, and nothing else. Raises KernelError."""
    directed = [way for pair in sorted(pairs) for way in permutations(pair)]
    wanted = [Rule(encode(_drop(*way)), " ".join(way)) for way in directed]
    table = NftTable(switch, NFPROTO_BRIDGE, TABLE)
    contents = table.read()
    if (contents.rules.get(_CHAIN.name) if contents is not None else []) == wanted:
        return
    writer = TableWriter(NFPROTO_BRIDGE, TABLE)
    if not wanted:
        table.commit([writer.delete_table()])
        return
    messages = [writer.add_table(), writer.add_chain(_CHAIN), writer.flush_chain(_CHAIN.name)]
    messages += [writer.add_rule(_CHAIN.name, _drop(*way), " ".join(way)) for way in directed]
    table.commit(messages)


def remove(switch: Namespace, machine: str) -> None:
    """Remove a machine's cable, both ends of it; fine when it is gone. Raises KernelError."""
    with Rtnl(switch) as links:
        if links.link_index(port_name(machine)) is not None:
            links.apply(rtnl.link_delete(port_name(machine)).allowing(errno.ENODEV))


def read(switch: Namespace, machines: Iterable[str]) -> Cables:
    """How the cables of these machines are now. Raises KernelError."""
    names = {port_name(machine): machine for machine in machines}
    down = {names[name] for name, link in rtnl_read.links(switch).items() if name in names and not link.up}
    contents = NftTable(switch, NFPROTO_BRIDGE, TABLE).read()
    rules = contents.rules.get(_CHAIN.name, []) if contents is not None else []
    ways = {tuple(rule.comment.split(" ", 1)) for rule in rules}
    return Cables(frozenset(down), frozenset((one, other) for one, other in ways if one < other))


def _drop(sender: str, receiver: str) -> tuple[Expression, ...]:
    """Frames that come in by the one's port and go out by the other's."""
    return (
        Meta(MetaKey.IIFNAME),
        Cmp(Op.EQ, _name(sender)),
        Meta(MetaKey.OIFNAME),
        Cmp(Op.EQ, _name(receiver)),
        Verdict(Code.DROP),
    )


def _name(machine: str) -> bytes:
    return port_name(machine).encode().ljust(_NAME_BYTES, b"\0")
