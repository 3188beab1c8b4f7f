"""Small files of JSON by which commands and agents tell each other things.

A file is replaced in one step (`kernel.file_write`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from netkit.kernel import file_write


def read(path: Path) -> dict[str, Any] | None:
    """What the file holds, None when there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def write(path: Path, value: dict[str, Any], *, durable: bool = False) -> None:
    """Replace the file in one step. `durable`: it is on disk when this returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file_write.replace(path, json.dumps(value), durable=durable)
