"""CRI log files, written and read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from netkit.node.log_reader import LogOptions, last_words, parse_line, read_log
from netkit.node.runtime.log_writer import LogWriter, timestamp


async def text(path: Path, **options: object) -> str:
    chunks = [chunk async for chunk in read_log(path, LogOptions(**options), lambda: False)]  # type: ignore[arg-type]
    return b"".join(chunks).decode()


def written(path: Path, *lines: str) -> Path:
    times = [f"2026-01-01T00:00:{index:02d}.000000000Z" for index in range(len(lines))]
    path.write_text("".join(f"{time} stdout F {line}\n" for time, line in zip(times, lines, strict=True)))
    return path


def test_timestamp() -> None:
    assert timestamp(1_767_225_600_000_000_007) == "2026-01-01T00:00:00.000000007Z"


async def test_writer_splits_lines_and_marks_parts(tmp_path: Path) -> None:
    path = tmp_path / "a" / "0.log"
    writer = LogWriter(str(path))
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"err\n")
    writer.write("stdout", b"o\n" + b"x" * 20_000 + b"\nrest")
    writer.close()
    lines = [line for raw in path.read_bytes().splitlines() if (line := parse_line(raw))]
    assert [(line.stream, line.partial, len(line.text)) for line in lines] == [
        ("stdout", False, 3), ("stderr", False, 3), ("stdout", False, 3), ("stdout", True, 16384),
        ("stdout", False, 20_000 - 16384), ("stdout", True, 4),
    ]  # fmt: skip
    assert await text(path) == "one\nerr\ntwo\n" + "x" * 20_000 + "\nrest"


async def test_rotation_keeps_one_old_file_and_readers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    writer = LogWriter(str(path), rotate_bytes=300)
    running = True
    got: list[bytes] = []
    arrived = [asyncio.Event() for _ in range(6)]

    async def follow() -> None:
        async for chunk in read_log(path, LogOptions(follow=True), lambda: running):
            got.append(chunk)
            for event in arrived[: b"".join(got).count(b"\n")]:
                event.set()

    reader = asyncio.create_task(follow())
    for number in range(6):
        writer.line("stdout", f"line {number} " + "." * 40)
        writer.flush()
        async with asyncio.timeout(5):
            await arrived[number].wait()
    running = False
    writer.close()
    await reader
    assert [line.split()[1] for line in b"".join(got).decode().splitlines()] == list("012345")
    assert (tmp_path / "0.log.1").exists()


async def test_tail_since_limit_and_timestamps(tmp_path: Path) -> None:
    path = written(tmp_path / "l", "a", "b", "c")
    assert await text(path) == "a\nb\nc\n"
    assert await text(path, tail_lines=2) == "b\nc\n"
    assert await text(path, tail_lines=0) == ""
    assert await text(path, tail_lines=9) == "a\nb\nc\n"
    assert await text(path, since="2026-01-01T00:00:01Z") == "b\nc\n"
    assert await text(path, since="2026-01-01T00:00:00.5Z") == "b\nc\n"
    assert await text(path, limit_bytes=3) == "a\nb"
    assert await text(path, timestamps=True, tail_lines=1) == "2026-01-01T00:00:02.000000000Z c\n"


async def test_tail_of_a_long_log(tmp_path: Path) -> None:
    path = written(tmp_path / "l", *["x" * 300] * 60)
    with path.open("a") as file:
        file.writelines(f"2026-01-01T00:01:00.000000000Z stdout F n{index}\n" for index in range(5000))
    assert await text(path, tail_lines=2) == "n4998\nn4999\n"
    assert len((await text(path, tail_lines=5050)).splitlines()) == 5050


async def test_missing_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await text(tmp_path / "none")


async def test_carriage_returns_belong_to_the_line(tmp_path: Path) -> None:
    assert await text(written(tmp_path / "0.log", "half\rwhole\r", "next")) == "half\rwhole\r\nnext\n"


def test_last_words_are_the_end_of_the_log(tmp_path: Path) -> None:
    path = written(tmp_path / "0.log", *(f"line {number}" for number in range(100)))
    assert last_words(path, lines=2) == "line 98\nline 99\n"
    assert last_words(path, limit=8) == "line 99\n"
    assert last_words(tmp_path / "none.log") == ""
