"""The catalogue on disk: the shipped entries and the user's own file, which comes first.

Used by the agent (read) and `netkit image list|add|rm`. The agent notices a changed file by its time.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import yaml

from netkit.node.images.catalogue import CatalogueError, ImageEntry, entry_from_json, entry_to_json, find

_SHIPPED = Path(__file__).with_name("default.yaml")


class ImageStore:
    """Entries in order of precedence: the user's, then the shipped ones."""

    def __init__(self, user_file: Path) -> None:
        self._user_file = user_file
        self._shipped = _shipped()
        self._user: tuple[ImageEntry, ...] = ()
        self._stamp: tuple[int, int] | None = None

    def entries(self) -> tuple[ImageEntry, ...]:
        """All entries. Raises CatalogueError when the user's file is wrong."""
        stamp = self._current_stamp()
        if stamp != self._stamp:
            self._user = _load(self._user_file, user=True) if stamp is not None else ()
            self._stamp = stamp
        return self._user + self._shipped

    def find(self, image: str) -> ImageEntry | None:
        """What `image` means, or None. Raises CatalogueError."""
        return find(self.entries(), image)

    def add(self, entry: ImageEntry) -> None:
        """Put a user's entry first, replacing one of the same pattern. Raises CatalogueError, OSError."""
        self.entries()
        rest = [other for other in self._user if other.match != entry.match]
        self._write([entry, *rest])

    def remove(self, match: str) -> bool:
        """Remove the user's entry of that pattern; False when there is none. Shipped entries stay."""
        self.entries()
        rest = [entry for entry in self._user if entry.match != match]
        if len(rest) == len(self._user):
            return False
        self._write(rest)
        return True

    def _write(self, entries: list[ImageEntry]) -> None:
        self._user_file.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({"images": [entry_to_json(entry) for entry in entries]}, sort_keys=False)
        temporary = self._user_file.with_name(f".{self._user_file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._user_file)

    def _current_stamp(self) -> tuple[int, int] | None:
        try:
            status = self._user_file.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino


@functools.cache
def _shipped() -> tuple[ImageEntry, ...]:
    return _load(_SHIPPED, user=False)


def _load(path: Path, *, user: bool) -> tuple[ImageEntry, ...]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise CatalogueError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict) or not isinstance(data.get("images", []), list):
        raise CatalogueError(f"{path}: must hold a list `images`")
    entries = []
    for item in data.get("images", []):
        if not isinstance(item, dict):
            raise CatalogueError(f"{path}: images: {item} is not an entry")
        try:
            entries.append(entry_from_json(item, user=user))
        except CatalogueError as error:
            raise CatalogueError(f"{path}: {error}") from error
    return tuple(entries)
