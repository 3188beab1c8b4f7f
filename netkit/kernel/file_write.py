"""Replacing small files in one step, so that whoever reads one sees the old contents or the new ones whole."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str, *, durable: bool = False) -> None:
    """Give the file these contents. `durable`: they outlive a power failure once this returns. Raises OSError."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
