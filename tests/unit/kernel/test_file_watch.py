"""A watched file tells of new content, however it was written, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from netkit.kernel.errors import KernelError
from netkit.kernel.file_watch import FileWatch


def write_in_place(path: Path) -> None:
    path.write_text("new")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("new")
    other.replace(path)


def remove_and_make(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_text("new")


async def told(watch: FileWatch) -> None:
    async with asyncio.timeout(5):
        await watch.changed()


@pytest.mark.parametrize("write", [write_in_place, replace, remove_and_make])
async def test_new_content_is_told_once(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with FileWatch(path) as watch:
        waiting = asyncio.create_task(told(watch))
        await asyncio.sleep(0)
        write(path)
        await waiting
        waiting = asyncio.create_task(watch.changed())
        (tmp_path / "neighbour").write_text("x")
        path.touch()
        path.write_text("new")
        path.unlink()
        path.write_text("new")
        done, _ = await asyncio.wait((waiting,), timeout=0.1)
        assert not done
        path.write_text("newer")
        async with asyncio.timeout(5):
            await waiting


async def test_a_mounted_configmap_switches_a_link(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "file").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    with FileWatch(tmp_path / "file") as watch:
        waiting = asyncio.create_task(told(watch))
        await asyncio.sleep(0)
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        await waiting


async def test_what_changed_before_the_watch_is_known_by_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("new")
    with FileWatch(path, b"old") as watch:
        await told(watch)


async def test_a_file_that_appears(tmp_path: Path) -> None:
    with FileWatch(tmp_path / "file") as watch:
        waiting = asyncio.create_task(told(watch))
        await asyncio.sleep(0)
        (tmp_path / "file").write_text("x")
        await waiting


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KernelError) as caught:
        FileWatch(tmp_path / "none" / "file")
    assert caught.value.is_not_found
