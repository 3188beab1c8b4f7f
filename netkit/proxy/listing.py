"""Rules as people read them and as `netkit proxy rules`, `diff` and `explain` compare them: named sections of lines.

Every mode turns what it wants and what the kernel holds into the same form, so that both can be compared entry by
entry. Pure values; nothing here knows a mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A chain, a set, a map or a virtual server, and what is in it.

    `name` says where it stands in the mode's own words (`nat KUBE-SERVICES`, `map service-ips`,
    `10.96.0.1:80/TCP`), `note` what an entry cannot say (a hook, a scheduler, a type). The order of entries
    counts where packets meet them one after the other, i.e. if `ordered`.
    """

    name: str
    entries: tuple[str, ...]
    note: str = ""
    ordered: bool = True

    @property
    def comparable(self) -> tuple[str, tuple[str, ...]]:
        """Equal for two sections that do the same."""
        return self.note, self.entries if self.ordered else tuple(sorted(self.entries))


Listing = Mapping[str, Section]
"""All sections of one family by name, in the order in which they are best read."""


def listing(sections: Iterable[Section]) -> Listing:
    """The sections by name; of two of one name the last counts."""
    return {section.name: section for section in sections}


@dataclass(frozen=True, slots=True)
class Difference:
    """One section in which kernel and wish differ: entries that are missing from the kernel, and those too many.

    Both are empty when only the order or the note differs.
    """

    section: str
    missing: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


def differences(wanted: Listing, standing: Listing) -> tuple[Difference, ...]:
    """All sections that differ, those of `wanted` first; empty when the kernel is as it should be."""
    found: list[Difference] = []
    for name, section in wanted.items():
        other = standing.get(name)
        if other is None:
            found.append(Difference(name, section.entries or ("(the whole section)",)))
        elif other.comparable != section.comparable:
            found.append(
                Difference(name, _less(section.entries, other.entries), _less(other.entries, section.entries))
            )
    for name, section in standing.items():
        if name not in wanted:
            found.append(Difference(name, unwanted=section.entries or ("(the whole section)",)))
    return tuple(found)


def _less(entries: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """`entries` without `others`, each taken off as often as it is there."""
    left = Counter(others)
    kept = []
    for entry in entries:
        if left[entry]:
            left[entry] -= 1
        else:
            kept.append(entry)
    return tuple(kept)
