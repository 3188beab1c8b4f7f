"""How much of NetworkPolicy stands in a node's kernel. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from netkit.kernel.nft.objects import Contents
from netkit.policy.model import Direction
from netkit.policy.render import POD_PREFIX, POLICY_PREFIX


@dataclass(frozen=True, slots=True)
class Census:
    """Policies that select pods of the node, pods that some policy isolates, and rules of both families."""

    policies: int = 0
    pods: int = 0
    rules: int = 0


NO_POLICIES: Final = Census()


def census(tables: Iterable[Contents]) -> Census:
    """Count what the tables of all families hold; an object in both families, or both directions, counts once."""
    policies, pods, rules = set[str](), set[str](), 0
    for contents in tables:
        rules += sum(map(len, contents.rules.values()))
        for chain in contents.chains:
            for direction in Direction:
                for prefix, found in ((POLICY_PREFIX, policies), (POD_PREFIX, pods)):
                    start = f"{prefix}-{direction}-"
                    if chain.startswith(start):
                        found.add(chain.removeprefix(start))
    return Census(len(policies), len(pods), rules)
