"""From a container's image, command and args to what shall run. Pure.

Used by the pod workers. A command always wins: it runs on the machine's file system (or the image's root
directory) whatever the image is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netkit.node.images.catalogue import AGNHOST, EntryKind, ImageEntry
from netkit.node.runtime.spec import BuiltinConfig, ListenPort


class ImageUnknown(LookupError):
    """The catalogue has no such image; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Runnable:
    """Either `builtin` or `argv`, with the image's environment, directory and root."""

    builtin: BuiltinConfig | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    root: str = "/"
    image_id: str = "netkit://program"


def resolve(
    image: str,
    entry: ImageEntry | None,
    command: Sequence[str],
    args: Sequence[str],
    ports: Iterable[Mapping[str, Any]],
) -> Runnable:
    """What a container runs. `ports` are its containerPorts. Raises ImageUnknown."""
    if entry is None and not command:
        raise ImageUnknown(
            f'image "{image}" is not in the catalogue; add it with: netkit image add {image} --builtin echo '
            "(or --program, or --root DIR), or give the container a command"
        )
    if command:
        env, workdir, root = (entry.env, entry.workdir, entry.root or "/") if entry else ({}, "", "/")
        image_id = "netkit://program" if entry is None or entry.kind is EntryKind.BUILTIN else entry.image_id
        return Runnable(None, (*command, *args), env, workdir, root, image_id)
    assert entry is not None
    if entry.kind is EntryKind.BUILTIN:
        return Runnable(_builtin(entry, args, ports), env=entry.env, image_id=entry.image_id)
    argv = (*entry.entrypoint, *(args or entry.cmd))
    return Runnable(None, argv, entry.env, entry.workdir, entry.root or "/", entry.image_id)


def _builtin(
    entry: ImageEntry, args: Sequence[str], container_ports: Iterable[Mapping[str, Any]]
) -> BuiltinConfig:
    flags = _flags(args)
    behaviour, text, ports = entry.behaviour, entry.text, entry.ports
    if behaviour == AGNHOST:
        behaviour, ports = _agnhost(args, flags)
    elif behaviour == "http-echo":
        text = flags.get("text", text)
        ports = _port_flag(flags.get("listen", "").rpartition(":")[2], ports)
    elif behaviour == "whoami":
        ports = _port_flag(flags.get("port", ""), ports)
    declared = [
        ListenPort(int(port["containerPort"]), str(port.get("protocol") or "TCP")) for port in container_ports
    ]
    return BuiltinConfig(behaviour, tuple(dict.fromkeys((*ports, *declared))), text)


def _agnhost(args: Sequence[str], flags: Mapping[str, str]) -> tuple[str, tuple[ListenPort, ...]]:
    match args[0] if args else "pause":
        case "netexec":
            tcp = _port_flag(flags.get("http-port", ""), (ListenPort(8080),))
            udp = int(flags.get("udp-port", "8081")) if flags.get("udp-port", "8081").isdigit() else 0
            return "netexec", (*tcp, *((ListenPort(udp, "UDP"),) if udp else ()))
        case "serve-hostname":
            return "hostname", _port_flag(flags.get("port", ""), (ListenPort(9376),))
        case "pause":
            return "pause", ()
    return "echo", ()


def _flags(args: Sequence[str]) -> dict[str, str]:
    """`--name=value`, `-name value` and `-name` as a mapping."""
    found: dict[str, str] = {}
    words = list(args)
    for index, word in enumerate(words):
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and index + 1 < len(words) and not words[index + 1].startswith("-"):
            value = words[index + 1]
        found[name] = value
    return found


def _port_flag(text: str, default: tuple[ListenPort, ...]) -> tuple[ListenPort, ...]:
    return (ListenPort(int(text)),) if text.isdigit() and 0 < int(text) < 65536 else default
