"""The SQLite file behind `sqlite.SQLiteStore`: opening, locking, layout and the statements. All calls block.

One table holds every state of every key until it is compacted, numbered by revision; a row without value is a
deletion. There is no second table of newest states: the index by key and revision finds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from controlplane.store.protocol import Change, Compacted, Page, Record, StoreError

FIRST_REVISION = 1
APPLICATION_ID = 0x6B6E6B74
LAYOUT = 1
HISTORY_ROWS = 1000

_LAYOUT_SQL = f"""
BEGIN IMMEDIATE;
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    create_revision INTEGER NOT NULL,
    value BLOB
);
CREATE INDEX revisions_by_key ON revisions (key, revision);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('compacted', 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
COMMIT;
"""
_NEWEST = """
SELECT value, create_revision, revision FROM revisions
WHERE key = ? AND revision < ? ORDER BY revision DESC LIMIT 1
"""
_RANGE = """
SELECT key, value, create_revision, revision FROM revisions AS r INDEXED BY revisions_by_key
WHERE key {lower} ? AND key < ? AND revision <= ? AND value IS NOT NULL
  AND revision = (SELECT max(n.revision) FROM revisions AS n WHERE n.key = r.key AND n.revision <= ?)
ORDER BY key LIMIT ?
"""
_AFTER = """
SELECT revision, key, create_revision, value FROM revisions
WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision LIMIT ?
"""
_INSERT = "INSERT INTO revisions (revision, key, create_revision, value) VALUES (?, ?, ?, ?)"
# Only keys written since the last compaction can have states to forget. The very newest row stays even if it
# is a deletion: the store's revision is read from it.
_COMPACT = """
DELETE FROM revisions
WHERE revision <= :to AND revision < (SELECT max(revision) FROM revisions)
  AND key IN (SELECT key FROM revisions WHERE revision BETWEEN :since AND :to)
  AND (value IS NULL OR EXISTS (
    SELECT 1 FROM revisions AS n
    WHERE n.key = revisions.key AND n.revision > revisions.revision AND n.revision <= :to))
"""
_LATEST = 2**62


class FileLock:
    """Keeps other processes out for as long as this process lives; the kernel frees it when we die.

    It is a file of its own: closing any descriptor of the database file would drop SQLite's own locks on it.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreError(f"{path} is held by process {holder}: the store is in use already") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class StoreFile:
    """One connection. The store has two: the writer's and the reader's, each used by one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def transaction(self, mode: str) -> Iterator[None]:
        """`DEFERRED` for one consistent read, `IMMEDIATE` to write; rolls back when the body raises."""
        self._db.execute(f"BEGIN {mode}")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def revision(self) -> int:
        newest = self._db.execute("SELECT max(revision) FROM revisions").fetchone()[0]
        return int(newest) if newest is not None else FIRST_REVISION

    def compacted(self) -> int:
        return int(self._db.execute("SELECT value FROM facts WHERE name = 'compacted'").fetchone()[0])

    def newest(self, key: str, before: int = _LATEST) -> Record | None:
        """The state of `key` before that revision; None when absent or deleted then."""
        row = self._db.execute(_NEWEST, (key, before)).fetchone()
        return None if row is None or row[0] is None else Record(key, row[0], row[1], row[2])

    def insert(self, changes: Sequence[Change]) -> None:
        self._db.executemany(
            _INSERT,
            [
                (change.revision, change.key, change.record.create_revision, change.record.value)
                if change.record
                else (change.revision, change.key, 0, None)
                for change in changes
            ],
        )

    def range(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        with self.transaction("DEFERRED"):
            at = revision or self.revision()
            self._check_readable(at)
            query = _RANGE.format(lower=">" if after >= prefix else ">=")
            bounds = (max(after, prefix), prefix + "\U0010ffff", at, at, limit + 1 if limit else -1)
            rows = self._db.execute(query, bounds).fetchall()
        more = bool(limit) and len(rows) > limit
        records = [Record(*row) for row in (rows[:limit] if more else rows)]
        return Page(records, at, more)

    def history(self, prefix: str, after: int, up_to: int) -> tuple[Sequence[Change], int]:
        """Changes in (after, up_to], at most HISTORY_ROWS, and the revision they are complete to."""
        with self.transaction("DEFERRED"):
            compacted = self.compacted()
            if after < compacted:
                raise Compacted(after, compacted)
            bounds = (after, up_to, prefix, prefix + "\U0010ffff", HISTORY_ROWS)
            changes: list[Change] = []
            states: dict[str, Record | None] = {}
            for revision, key, create_revision, value in self._db.execute(_AFTER, bounds).fetchall():
                previous = states[key] if key in states else self.newest(key, revision)
                record = None if value is None else Record(key, value, create_revision, revision)
                states[key] = record
                changes.append(Change(revision, key, record, previous))
        return changes, changes[-1].revision if len(changes) == HISTORY_ROWS else up_to

    def compact(self, revision: int) -> None:
        with self.transaction("IMMEDIATE"):
            self._check_readable(revision)
            self._db.execute(_COMPACT, {"since": self.compacted(), "to": revision})
            self._db.execute("UPDATE facts SET value = ? WHERE name = 'compacted'", (revision,))

    def _check_readable(self, revision: int) -> None:
        compacted, newest = self.compacted(), self.revision()
        if revision < compacted:
            raise Compacted(revision, compacted)
        if revision > newest:
            raise StoreError(f"revision {revision} lies in the future, newest is {newest}")


def open_file(path: Path, *, check: bool = True) -> StoreFile:
    """Open or create the store's file in WAL mode. Raises StoreError naming the file and the fault.

    `check` looks whether the file is ours and whole, and lays out an empty one: for the first connection.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    except (OSError, sqlite3.Error) as fault:
        raise StoreError(f"{path}: cannot be opened: {fault}") from fault
    try:
        if check:
            _check(connection, path)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"{path}: this file system does not allow SQLite's write-ahead log (mode {mode})"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
    except sqlite3.Error as fault:
        connection.close()
        raise StoreError(f"{path}: not a readable store: {fault}") from fault
    except StoreError:
        connection.close()
        raise
    return StoreFile(connection)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Make the layout in an empty file; refuse files that are not ours, newer than us, or damaged."""
    application, layout, tables = (
        connection.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if application == 0 and layout == 0 and tables == 0:
        connection.executescript(_LAYOUT_SQL)
        return
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: is a SQLite file of something else, not a store")
    if layout != LAYOUT:
        raise StoreError(f"{path}: has layout {layout}, this version reads layout {LAYOUT} only")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreError(f"{path}: is damaged: {verdict}")
