"""Image names, patterns and what they run. Pure.

Used by the pod workers (through `resolve`) and by `netkit image`. An entry says one of three things: a
behaviour of the runtime's builtin servers, a program of the machine, or a root directory with the image's
own defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from netkit.node.runtime.behaviours import BEHAVIOURS
from netkit.node.runtime.spec import ListenPort

AGNHOST = "agnhost"
"""Behaviour chosen by the container's first argument, as that image does it."""


class CatalogueError(ValueError):
    """An entry that cannot be: the text names the field."""


class EntryKind(StrEnum):
    """What runs when no command is given."""

    BUILTIN = "builtin"
    PROGRAM = "program"
    ROOT = "root"


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """`match` is an image name or glob, with or without a tag; `ports` are what a builtin serves in any case."""

    match: str
    kind: EntryKind
    behaviour: str = ""
    ports: tuple[ListenPort, ...] = ()
    text: str = ""
    root: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: bool = False

    def matches(self, image: str) -> bool:
        """Whether the entry is for `image` (any spelling: registry docker.io, library/, tag or digest left
        out).
        """
        name, tag = split_image(image)
        wanted = _short(self.match)
        return fnmatchcase(f"{name}:{tag}", wanted if _has_tag(wanted) else f"{wanted}:*")

    @property
    def image_id(self) -> str:
        """What stands in a container's status as imageID."""
        if self.kind is EntryKind.BUILTIN:
            return f"netkit://builtin/{self.behaviour}"
        return f"netkit://root{self.root}" if self.kind is EntryKind.ROOT else "netkit://program"


def split_image(image: str) -> tuple[str, str]:
    """(short name, tag): `docker.io/library/nginx@sha256:..` is (`nginx`, `latest`)."""
    name = _short(image.partition("@")[0])
    if not _has_tag(name):
        return name, "latest"
    name, _, tag = name.rpartition(":")
    return name, tag


def _short(name: str) -> str:
    for prefix in ("docker.io/", "index.docker.io/"):
        name = name.removeprefix(prefix)
    return name.removeprefix("library/")


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]


def find(entries: Iterable[ImageEntry], image: str) -> ImageEntry | None:
    """The first entry for `image`, or None."""
    return next((entry for entry in entries if entry.matches(image)), None)


def entry_from_json(data: Mapping[str, Any], *, user: bool = False) -> ImageEntry:
    """An entry from its YAML form. Raises CatalogueError."""
    match = data.get("match")
    if not isinstance(match, str) or not match:
        raise CatalogueError("match: an image name or pattern is required")
    known = {"match", "builtin", "program", "root", "ports", "text", "entrypoint", "cmd", "env", "workdir"}
    if unknown := sorted(set(data) - known):
        raise CatalogueError(f"{match}: unknown field {unknown[0]}")
    kinds = [kind for kind in EntryKind if data.get(kind)]
    if len(kinds) != 1:
        raise CatalogueError(f"{match}: exactly one of builtin, program and root is required")
    behaviour = str(data.get("builtin") or "")
    if behaviour and behaviour not in BEHAVIOURS | {AGNHOST}:
        names = ", ".join(sorted(BEHAVIOURS | {AGNHOST}))
        raise CatalogueError(f'{match}: unknown builtin "{behaviour}"; there are: {names}')
    root = str(data.get("root") or "")
    if root and not root.startswith("/"):
        raise CatalogueError(f"{match}: root must be an absolute path")
    return ImageEntry(
        match=match,
        kind=kinds[0],
        behaviour=behaviour,
        ports=tuple(_port(match, port) for port in data.get("ports") or ()),
        text=str(data.get("text") or ""),
        root=root,
        entrypoint=_words(match, "entrypoint", data.get("entrypoint")),
        cmd=_words(match, "cmd", data.get("cmd")),
        env={str(key): str(value) for key, value in (data.get("env") or {}).items()},
        workdir=str(data.get("workdir") or ""),
        user=user,
    )


def entry_to_json(entry: ImageEntry) -> dict[str, Any]:
    """The YAML form, defaults left out."""
    data: dict[str, Any] = {"match": entry.match}
    match entry.kind:
        case EntryKind.BUILTIN:
            data["builtin"] = entry.behaviour
        case EntryKind.PROGRAM:
            data["program"] = True
        case EntryKind.ROOT:
            data["root"] = entry.root
    if entry.ports:
        data["ports"] = [
            port.number if port.protocol == "TCP" else f"{port.number}/{port.protocol}"
            for port in entry.ports
        ]
    for name in ("text", "workdir"):
        if getattr(entry, name):
            data[name] = getattr(entry, name)
    for name in ("entrypoint", "cmd"):
        if getattr(entry, name):
            data[name] = list(getattr(entry, name))
    if entry.env:
        data["env"] = dict(entry.env)
    return data


def _port(match: str, value: object) -> ListenPort:
    number, _, protocol = str(value).partition("/")
    protocol = protocol.upper() or "TCP"
    if not number.isdigit() or not 0 < int(number) < 65536 or protocol not in ("TCP", "UDP"):
        raise CatalogueError(f"{match}: ports: {value} is not a port such as 80 or 53/UDP")
    return ListenPort(int(number), protocol)


def _words(match: str, name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise CatalogueError(f"{match}: {name} must be a list of words")
    return tuple(str(word) for word in value)
