"""`netkit proxy-mode`: show and change the mode of kube-proxy in a running cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.proxy_mode import NodeMode
    from netkit.proxy.settings import NftablesLayout, ProxyMode

_MODES = ("iptables", "nftables", "ipvs", "userspace")
_LAYOUTS = ("kube-proxy", "compact")


def register(app: typer.Typer) -> None:
    app.command("proxy-mode")(proxy_mode)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def proxy_mode(
    mode: Annotated[
        str,
        typer.Argument(
            help="iptables, nftables, ipvs or userspace; none: show the modes.",
            show_default=False,
            autocompletion=_one_of(_MODES),
        ),
    ] = "",
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node", metavar="NODE", help="This node only; may be repeated.", autocompletion=completion.nodes
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="LAYOUT",
            help="With nftables: kube-proxy or compact.",
            autocompletion=_one_of(_LAYOUTS),
        ),
    ] = "kube-proxy",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show the mode of kube-proxy on each node, or change it while the cluster works.

    Services are served at every moment of a change, established connections go on, and nothing of the old mode is
    left. Exits with 1 when a node could not be changed; it keeps its old mode.
    """
    from netkit.cluster.privilege import require_root
    from netkit.cluster.proxy_mode import change_mode, read_modes

    require_root()
    text = output is Format.TEXT
    if not mode:
        found = read_modes(profile, node or [])
        if text:
            rows = [(each.node, each.mode or "-", each.layout or "-", each.state) for each in found]
            print(table(["NODE", "MODE", "LAYOUT", "STATE"], rows))
    else:
        wanted, drawn = _parse(mode, layout)
        found = change_mode(profile, wanted, drawn, node or [], _print_change if text else _say_nothing)
    if not text:
        print_json({"cluster": profile, "nodes": found})
    if any(each.error for each in found):
        raise typer.Exit(1)


def _parse(mode: str, layout: str) -> tuple[ProxyMode, NftablesLayout]:
    from netkit.cluster.errors import ClusterError
    from netkit.proxy.settings import NftablesLayout, ProxyMode

    if mode not in _MODES:
        raise ClusterError(f"there is no proxy mode {mode!r}", f"there are: {', '.join(_MODES)}")
    if layout not in _LAYOUTS:
        raise ClusterError(f"there is no layout {layout!r}", f"there are: {', '.join(_LAYOUTS)}")
    if layout != "kube-proxy" and mode != "nftables":
        raise ClusterError(f"--layout {layout} is for mode nftables only")
    return ProxyMode(mode), NftablesLayout(layout)


def _say_nothing(change: NodeMode) -> None:
    """Programs get everything at the end."""


def _print_change(change: NodeMode) -> None:
    ink = Ink(sys.stdout)
    mode = f"{change.mode} ({change.layout})" if change.layout == "compact" else change.mode
    if change.error:
        print(f"{ink.bad('!!')}  {change.node}   stays {mode or 'as it was'}: {change.error}", flush=True)
        if change.hint:
            print(f"      {change.hint}")
        return
    was = f"{change.was} -> " if change.was and change.was != change.mode else ""
    print(f"{ink.good('ok')}  {change.node}   {was}{mode:<40} {change.seconds * 1000:6.0f} ms", flush=True)
