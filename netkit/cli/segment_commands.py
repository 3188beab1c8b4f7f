"""`netkit segment`: the cables between machines, cut and healed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption, need_root
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.segment_cuts import SegmentView

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The segment between the machines: cut it, heal it, see what is cut.",
)
_GROUP = "a machine, or several with commas between"


@app.command()
def show(profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Show every machine's cable, and who is kept from whom."""
    from netkit.cluster.segment_cuts import show

    need_root()
    _print(show(profile), output)


@app.command()
def cut(
    one: Annotated[
        str,
        typer.Argument(metavar="MACHINE", help=_GROUP, autocompletion=completion.segment_machines),
    ],
    other: Annotated[
        str,
        typer.Argument(
            metavar="[MACHINE]", help="The other side.", autocompletion=completion.segment_machines
        ),
    ] = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Pull a machine's cable, or cut the segment between two sides.

    netkit segment cut node3: nothing reaches node3 any more, and its link is down.
    netkit segment cut node1,node2 node3,node4: all links are up, but nothing passes between the two sides.
    """
    from netkit.cluster.segment_cuts import cut

    need_root()
    _print(cut(profile, one, other), output)


@app.command()
def heal(
    one: Annotated[
        str,
        typer.Argument(
            metavar="[MACHINE]",
            help=f"{_GROUP} [default: all that is cut]",
            autocompletion=completion.segment_machines,
        ),
    ] = "",
    other: Annotated[
        str,
        typer.Argument(
            metavar="[MACHINE]", help="The other side.", autocompletion=completion.segment_machines
        ),
    ] = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Undo what was cut: everything, all cuts of a machine, or what was cut between two sides."""
    from netkit.cluster.segment_cuts import heal

    need_root()
    _print(heal(profile, one, other), output)


def _print(view: SegmentView, output: Format) -> None:
    if output is Format.JSON:
        print_json(view)
        return
    ink = Ink(sys.stdout)
    state = ink.good("whole") if view.whole else ink.bad("cut")
    print(f"{', '.join(view.segments)}: {state}\n")
    rows = [
        (c.machine, c.segment, c.address, c.port, "up" if c.up else "down", c.why or "-") for c in view.cables
    ]
    print(table(["MACHINE", "SEGMENT", "ADDRESS", "PORT", "CABLE", "WHY"], rows))
    for one, other in view.apart:
        print(ink.bad(f"nothing passes between {one} and {other}"))
