"""What a list of writes does to a store, decided without touching it. Pure; both stores call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.store.protocol import Change, Put, Record, RevisionMismatch, Write


def plan(writes: Sequence[Write], lookup: Callable[[str], Record | None], revision: int) -> list[Change]:
    """The changes `writes` make, each with the next revision after `revision`, all or none.

    `lookup` gives a key's newest state before the first write. Raises RevisionMismatch.
    """
    changes: list[Change] = []
    touched: dict[str, Record | None] = {}
    for write in writes:
        key = write.key
        present = touched[key] if key in touched else lookup(key)
        current = present.mod_revision if present else 0
        if write.expect is not None and write.expect != current:
            raise RevisionMismatch(key, write.expect, current)
        record: Record | None = None
        if isinstance(write, Put):
            revision += 1
            record = Record(key, write.value, present.create_revision if present else revision, revision)
        elif present is None:
            continue
        else:
            revision += 1
        touched[key] = record
        changes.append(Change(revision, key, record, present))
    return changes
