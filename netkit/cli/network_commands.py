"""`netkit network`: the pod network of a cluster - its mode, what it holds, and whether it is what it should be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.network_mode import NodeNetworkMode
    from netkit.podnet.modes import NetworkMode

_MODES = ("vxlan", "native")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The pod network: its mode, what each node's kernel holds of it, and whether that is right.",
)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


@app.command()
def mode(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="[MODE]",
            help="vxlan or native; none: show the mode.",
            show_default=False,
            autocompletion=_one_of(_MODES),
        ),
    ] = "",
    direct_routing: Annotated[
        bool,
        typer.Option("--direct-routing", help="With vxlan: no tunnel between nodes on the same segment."),
    ] = False,
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show how pods' packets travel between nodes, or change it while they do.

    vxlan wraps them into packets of the nodes; native routes them as they are. Pods go on, connections between pods
    survive, and the MTU of pods follows. Exits with 1 when a node could not be changed; then all keep the old mode.
    """
    from netkit.cluster.network_mode import change_mode, read_mode
    from netkit.cluster.privilege import require_root

    require_root()
    text = output is Format.TEXT
    if not wanted:
        found = read_mode(profile)
        if text:
            rows = [(each.node, _shown(each), each.mtu or "-", each.state) for each in found]
            print(table(["NODE", "MODE", "POD MTU", "STATE"], rows))
    else:
        chosen = _parse(wanted, direct_routing)
        found = change_mode(profile, chosen, direct_routing, _print_change if text else _say_nothing)
    if not text:
        print_json({"cluster": profile, "nodes": found})
    if any(each.error for each in found):
        raise typer.Exit(1)


def _parse(wanted: str, direct_routing: bool) -> NetworkMode:
    from netkit.cluster.errors import ClusterError
    from netkit.podnet.modes import NetworkMode

    if wanted not in _MODES:
        raise ClusterError(f"there is no network mode {wanted!r}", f"there are: {', '.join(_MODES)}")
    if direct_routing and wanted != NetworkMode.VXLAN:
        raise ClusterError("--direct-routing is for mode vxlan only", "native does without a tunnel anyway")
    return NetworkMode(wanted)


def _shown(each: NodeNetworkMode) -> str:
    return f"{each.mode} (direct routing)" if each.direct_routing else each.mode or "-"


def _say_nothing(change: NodeNetworkMode) -> None:
    """Programs get everything at the end."""


def _print_change(change: NodeNetworkMode) -> None:
    ink = Ink(sys.stdout)
    if change.error:
        print(f"{ink.bad('!!')}  {change.node}   stays {_shown(change)}: {change.error}", flush=True)
        return
    was = f"{change.was} -> " if change.was and change.was != _shown(change) else ""
    what = f"{was}{_shown(change)}, pods' MTU {change.mtu}"
    print(f"{ink.good('ok')}  {change.node}   {what:<48} {change.seconds * 1000:6.0f} ms", flush=True)
