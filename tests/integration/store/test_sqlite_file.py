"""The file behind the SQLite store: durable against SIGKILL, held by one process, refused when it is not ours."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from controlplane.store.protocol import Put, StoreError
from controlplane.store.sqlite import SQLiteStore

WRITER = """
import asyncio, os, sys
from controlplane.store.protocol import Delete, Put
from controlplane.store.sqlite import SQLiteStore

async def write(store, task):
    number = 0
    while True:
        number += 1
        key, value = f"/r/{task}", f"{sys.argv[2]}.{number}"
        if number % 7 == 0:
            (change,) = await store.commit([Delete(key)])
        else:
            (change,) = await store.commit([Put(key, value.encode())])
        os.write(1, f"{key} {change.revision}\\n".encode())

async def main():
    store = SQLiteStore(sys.argv[1])
    os.write(1, b"open\\n")
    await asyncio.gather(*(write(store, task) for task in range(8)), compact(store))

async def compact(store):
    while True:
        await asyncio.sleep(0.01)
        await store.compact(await store.revision())

asyncio.run(main())
"""


def state_after(round_: int, number: int) -> bytes | None:
    """What a key holds when its writer has done that many writes in that round."""
    return None if number % 7 == 0 else f"{round_}.{number}".encode()


def test_every_acknowledged_write_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "db"
    present: dict[str, bytes | None] = {f"/r/{task}": None for task in range(8)}
    rng = random.Random(7)
    acknowledged = 0
    for round_ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_)], stdout=subprocess.PIPE, cwd=Path.cwd()
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        time.sleep(rng.uniform(0.0, 0.15))
        writer.send_signal(signal.SIGKILL)
        done: Counter[str] = Counter(line.split()[0] for line in writer.stdout.read().decode().splitlines())
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        acknowledged += done.total()
        for key, found in asyncio.run(read(path)).items():
            number = done[key]
            # The write after the last acknowledged one may have reached the disk as well.
            last = state_after(round_, number) if number else present[key]
            assert found in (last, state_after(round_, number + 1)), (round_, key, number, found)
            present[key] = found
    assert acknowledged > 100


async def read(path: Path) -> dict[str, bytes | None]:
    store = SQLiteStore(path)
    records = {f"/r/{task}": await store.get(f"/r/{task}") for task in range(8)}
    await store.close()
    return {key: record.value if record else None for key, record in records.items()}


async def test_commits_that_wait_share_one_transaction(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.commit([Put("/r/first", b"")])
    groups: list[int] = []
    committed = store._committed
    store._committed = lambda group, outcomes: (groups.append(len(group)), committed(group, outcomes))[1]  # type: ignore[method-assign, func-returns-value]
    await asyncio.gather(*(store.commit([Put(f"/r/{number}", b"")]) for number in range(200)))
    assert sum(groups) == 200
    assert len(groups) < 50
    await store.close()


async def test_another_process_is_refused_while_the_store_is_open(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    with pytest.raises(StoreError, match=f"held by process {os.getpid()}"):
        SQLiteStore(tmp_path / "db")
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path / "db"), "0", stderr=subprocess.PIPE
    )
    _, complaint = await other.communicate()
    assert b"the store is in use already" in complaint
    await store.close()
    await SQLiteStore(tmp_path / "db").close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(StoreError, match="something else"):
        SQLiteStore(path)


def test_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(StoreError, match="not a readable store"):
        SQLiteStore(path)
    assert path.read_bytes().startswith(b"no database")


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    store = SQLiteStore(path)
    for number in range(300):
        await store.commit([Put(f"/r/{number}", b"x" * 500)])
    await store.close()
    content = bytearray(path.read_bytes())
    for offset in range(8192, len(content), 4096):
        content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"damaged|not a readable store"):
        SQLiteStore(path)


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    asyncio.run(SQLiteStore(path).close())
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="layout 99"):
        SQLiteStore(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing/db"):
        SQLiteStore(tmp_path / "missing" / "db")


async def test_the_file_is_private(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.commit([Put("/r/secret", b"")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) >= {"db", "db.lock", "db-wal"}
    assert set(modes.values()) == {0o600}
    await store.close()


async def test_keys_that_are_not_ascii_are_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    with pytest.raises(StoreError, match="ASCII"):
        await store.commit([Put("/r/\ud800", b"")])
    await store.commit([Put("/r/a", b"")])
    await store.close()


async def test_a_commit_is_flushed_before_it_is_acknowledged(tmp_path: Path) -> None:
    """SIGKILL cannot show this, only a loss of power could."""
    store = SQLiteStore(tmp_path / "db")
    assert store._writer_file._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._writer_file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()
