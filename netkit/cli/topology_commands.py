"""`netkit topology`: what a cluster's network is made of - segments, routers, nodes - as a file and as a picture."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, topology_names
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.topology import Topology

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Topologies: segments, routers, zones and nodes, from files and ready-made.",
)


class Picture(StrEnum):
    """How a topology is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


TopologyArgument = Annotated[
    str,
    typer.Argument(
        metavar="TOPOLOGY",
        help="A file, a ready-made topology, or with -p nothing.",
        autocompletion=topology_names,
    ),
]
OfCluster = Annotated[
    str, typer.Option("--profile", "-p", metavar="NAME", help="The topology of a cluster that is up.")
]


@app.command("list")
def list_ready_made(output: OutputOption = Format.TEXT) -> None:
    """The ready-made topologies."""
    from netkit.cluster.topology import Role
    from netkit.cluster.topology_file import find, ready_made

    found = [(name, find(name)) for name in ready_made()]
    rows = [
        (
            name,
            len(t.segments),
            len(t.of(Role.ROUTER)),
            len(t.of(Role.NODE)),
            ", ".join(z.name for z in t.zones),
        )
        for name, t in found
    ]
    if output is Format.JSON:
        keys = ("name", "segments", "routers", "nodes")
        print_json([dict(zip(keys, row, strict=False)) for row in rows])
        return
    print(
        table(["NAME", "SEGMENTS", "ROUTERS", "NODES", "ZONES"], [(*row[:4], row[4] or "-") for row in rows])
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of a topology file."""
    from netkit.cluster.topology_file import schema

    print_json(schema())


@app.command()
def validate(topology: TopologyArgument, output: OutputOption = Format.TEXT) -> None:
    """Say whether a topology can be built, and name the path of everything that is wrong. Exits with 1 then."""
    from netkit.cluster.topology import Role
    from netkit.cluster.topology_fields import TopologyError
    from netkit.cluster.topology_file import find

    try:
        found = find(topology)
    except TopologyError as error:
        if output is Format.JSON:
            print_json({"valid": False, "faults": error.faults})
        else:
            for fault in error.faults:
                print(f"{Ink(sys.stdout).bad('!!')}  {fault}")
        raise typer.Exit(1) from None
    if output is Format.JSON:
        print_json({"valid": True, "faults": []})
        return
    counts = [(len(found.segments), "segment")]
    counts += [(len(found.of(role)), str(role)) for role in (Role.ROUTER, Role.NODE)]
    texts = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts]
    print(Ink(sys.stdout).good(f"valid: {', '.join(texts)}"))


@app.command()
def show(
    topology: TopologyArgument = "", profile: OfCluster = "", output: OutputOption = Format.TEXT
) -> None:
    """Print a topology with all its addresses; those that are left open as they would be in 172.18.0.0/16."""
    from netkit.cluster.topology_document import document
    from netkit.cluster.topology_draw import text

    found = _placed(topology, profile)
    if output is Format.JSON:
        print_json(document(found))
    else:
        print(text(found), end="")


@app.command()
def draw(
    topology: TopologyArgument = "",
    profile: OfCluster = "",
    output: Annotated[Picture, typer.Option("--output", "-o", help="text, mermaid or svg.")] = Picture.TEXT,
) -> None:
    """Draw a topology."""
    from netkit.cluster import topology_draw

    found = _placed(topology, profile)
    drawn = {
        Picture.TEXT: topology_draw.text,
        Picture.MERMAID: topology_draw.mermaid,
        Picture.SVG: topology_draw.svg,
    }
    print(drawn[output](found), end="")


def _placed(wanted: str, profile: str) -> Topology:
    from netkit.cluster import cluster_topology
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.profile import Profile
    from netkit.cluster.topology_file import find
    from netkit.cluster.topology_layout import NoRoom, place
    from netkit.fabric.segment import CANDIDATES

    if bool(wanted) is bool(profile):
        raise ClusterError("name a topology, or a cluster with -p", "ready-made ones: netkit topology list")
    if profile:
        return cluster_topology.read(Profile(profile))
    try:
        return place(find(wanted), CANDIDATES[0])
    except NoRoom as error:
        raise ClusterError(f"topology: {error}") from None
