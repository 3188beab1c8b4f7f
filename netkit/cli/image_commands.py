"""`netkit image`: what runs when a manifest names an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, print_json, table

if TYPE_CHECKING:
    from netkit.node.images.catalogue import ImageEntry
    from netkit.node.images.store import ImageStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The image catalogue: what runs when a manifest names an image.",
)


def _store(profile: str) -> ImageStore:
    from netkit.cluster.profile import Profile
    from netkit.node.images.store import ImageStore

    Profile(profile).facts()
    return ImageStore(Profile(profile).images)


def _patterns(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of `image rm`."""
    from netkit.cluster.errors import ClusterError

    try:
        entries = _store(context.params.get("profile") or "lab").entries()
    except ClusterError:
        return []
    return [entry.match for entry in entries if entry.user and entry.match.startswith(incomplete)]


@app.command("list")
def list_images(profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """List the catalogue, the cluster's own entries first: the first match counts."""
    from netkit.node.images.catalogue import entry_to_json

    entries = _store(profile).entries()
    if output is Format.JSON:
        print_json([{**entry_to_json(entry), "own": entry.user} for entry in entries])
        return
    rows = [(entry.match, _runs(entry), "yes" if entry.user else "") for entry in entries]
    print(table(["IMAGE", "RUNS", "OWN"], rows))


def _runs(entry: ImageEntry) -> str:
    from netkit.node.images.catalogue import EntryKind

    words = " ".join((*entry.entrypoint, *entry.cmd))
    match entry.kind:
        case EntryKind.BUILTIN:
            ports = ",".join(f"{port.number}/{port.protocol}" for port in entry.ports)
            return f"builtin {entry.behaviour}" + (f" on {ports}" if ports else "")
        case EntryKind.ROOT:
            return f"root {entry.root}" + (f": {words}" if words else "")
        case EntryKind.PROGRAM:
            return f"program of this machine: {words}" if words else "a program of this machine"


@app.command()
def add(
    image: Annotated[
        str, typer.Argument(help="Name or pattern, with or without a tag: registry.local/web, shop/*:1.*")
    ],
    builtin: Annotated[
        str,
        typer.Option("--builtin", "-b", help="A server of the node's runtime: nginx, echo, hostname, ..."),
    ] = "",
    program: Annotated[
        bool,
        typer.Option(
            "--program", help="A program of this machine: the manifest's command, or --entrypoint/--cmd."
        ),
    ] = False,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="A directory that holds a root file system.")
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", help="Port a builtin serves in any case: 80 or 53/UDP. May be repeated."),
    ] = None,
    text: Annotated[str, typer.Option("--text", help="Text of a builtin that shows one.")] = "",
    entrypoint: Annotated[
        list[str] | None, typer.Option("--entrypoint", help="One word of the entrypoint. May be repeated.")
    ] = None,
    cmd: Annotated[
        list[str] | None, typer.Option("--cmd", help="One word of the command. May be repeated.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE. May be repeated.")] = None,
    workdir: Annotated[str, typer.Option("--workdir", help="Working directory inside.")] = "",
    profile: ProfileOption = "lab",
) -> None:
    """Say what an image runs: netkit image add shop/web --builtin nginx --port 8080."""
    from netkit.cluster.errors import ClusterError
    from netkit.node.images.catalogue import entry_from_json

    variables = dict(pair.partition("=")[::2] for pair in env or ())
    if any("=" not in pair for pair in env or ()):
        raise ClusterError("--env: expected NAME=VALUE")
    if root is not None and not root.is_dir():
        raise ClusterError(f"--root: {root} is not a directory")
    entry = entry_from_json(
        {
            "match": image,
            "builtin": builtin,
            "program": program,
            "root": str(root.resolve()) if root else "",
            "ports": port or [],
            "text": text,
            "entrypoint": entrypoint,
            "cmd": cmd,
            "env": variables,
            "workdir": workdir,
        }
    )
    _store(profile).add(entry)
    print(f"{image} added: {_runs(entry)}. Pods that wait for it start at their next try.")


@app.command("rm")
def remove(
    image: Annotated[str, typer.Argument(help="The pattern as it was added.", autocompletion=_patterns)],
    profile: ProfileOption = "lab",
) -> None:
    """Take an entry of this cluster's own out of the catalogue again."""
    from netkit.cluster.errors import ClusterError

    if not _store(profile).remove(image):
        raise ClusterError(
            f"cluster {profile} has no entry of its own for {image}", "entries that came with netkit stay"
        )
    print(f"{image} removed.")
