"""The answer to an apply that would change what others own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.errors import Cause, Conflict
from controlplane.meta.managed.entries import Owner
from controlplane.meta.managed.sets import FieldSet, paths, printed

REASON = "FieldManagerConflict"


@dataclass(frozen=True, slots=True)
class Clash:
    """An owner, and what of its fields would change."""

    owner: Owner
    fields: FieldSet


class Clashes(Exception):
    """An apply met fields of others."""

    def __init__(self, clashes: Sequence[Clash]) -> None:
        super().__init__("apply conflicts")
        self.clashes = sorted(clashes, key=lambda clash: clash.owner.identity)


def conflict_of(clashes: Sequence[Clash]) -> Conflict:
    """409 with one cause for each field of each owner."""
    found = [(clash.owner, printed(path)) for clash in clashes for path in paths(clash.fields)]
    causes = [Cause(REASON, f"conflict with {_named(owner)}", path) for owner, path in found]
    if len(found) == 1:
        owner, path = found[0]
        return Conflict(f"Apply failed with 1 conflict: conflict with {_named(owner)}: {path}", causes=causes)
    lines: list[str] = []
    for clash in clashes:
        lines.append(f"conflicts with {_named(clash.owner)}:")
        lines += [f"- {path}" for owner, path in found if owner is clash.owner]
    return Conflict(f"Apply failed with {len(found)} conflicts: " + "\n".join(lines), causes=causes)


def _named(owner: Owner) -> str:
    text = f'"{owner.manager}"'
    if owner.subresource:
        text += f' with subresource "{owner.subresource}"'
    return text if owner.applied else f"{text} using {owner.api_version}"
