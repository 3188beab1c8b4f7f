"""The iptables document that removes what one proxy mode wrote, and leaves what another one is at work with.

Some modes use chains of the same name, and jumps into them that differ in little more than a comment. Called by the
back ends that write iptables rules. Pure: reads iptables-save, writes restore input.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Place = tuple[str, str]
"""A table and a chain of it."""

_TARGET = re.compile(r"(?:^| )-j (KUBE-\S+)")


@dataclass(frozen=True, slots=True)
class Kept:
    """Chains that stay, and the rules in built-in chains that lead into them, each by place and in one spelling."""

    chains: frozenset[Place] = frozenset()
    jumps: frozenset[tuple[Place, str]] = frozenset()

    @classmethod
    def of(cls, chains: Iterable[Place], jumps: Iterable[tuple[Place, str]]) -> Kept:
        """Rules may be spelled as they like."""
        return cls(frozenset(chains), frozenset((place, spelled(rule)) for place, rule in jumps))


NOTHING = Kept()


def spelled(rule: str) -> str:
    """A rule in one spelling: iptables-save quotes words otherwise than rules are written."""
    return " ".join(f'"{word}"' if " " in word else word for word in shlex.split(rule))


def cleanup_document(saved: str, is_ours: Callable[[Place], bool], keep: Kept = NOTHING) -> str:
    """Restore input (for --noflush) that removes our chains and every rule that leads into one; may be empty.

    `saved` is the output of iptables-save for all tables.
    """
    sections: list[str] = []
    chains: list[str] = []
    jumps: list[str] = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table, chains, jumps = line[1:], [], []
        elif line.startswith(":"):
            place = (table, line[1:].split(" ", 1)[0])
            if is_ours(place) and place not in keep.chains:
                chains.append(place[1])
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            if _is_to_go((table, chain), rule, is_ours, keep):
                jumps.append(f"-D {chain} {rule}")
        elif line == "COMMIT" and (chains or jumps):
            declared = [f":{chain} - [0:0]" for chain in chains]
            gone = [f"-X {chain}" for chain in chains]
            sections.append("\n".join([f"*{table}", *declared, *jumps, *gone, "COMMIT", ""]))
    return "".join(sections)


def _is_to_go(place: Place, rule: str, is_ours: Callable[[Place], bool], keep: Kept) -> bool:
    """Whether the rule leads from somebody else's chain into one of ours, and nobody needs it.

    Chains of the other mode that lead into a chain which stays are its own business.
    """
    target = _TARGET.search(rule)
    if target is None or is_ours(place) or not is_ours((place[0], target[1])):
        return False
    if (place[0], target[1]) not in keep.chains:
        return True
    return not place[1].startswith("KUBE-") and (place, spelled(rule)) not in keep.jumps
