"""`netkit node`: machines that come and go while the cluster works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption, need_root
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.node_changes import NodeChange

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Add, remove, stop, start and drain nodes while the cluster works.",
)
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", autocompletion=completion.nodes)]
NodesArgument = Annotated[list[str], typer.Argument(metavar="NODE...", autocompletion=completion.nodes)]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long pods have to leave.")
]


@app.command("list")
def list_all(profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """List the nodes: whether they run, are Ready and take pods, their addresses and ranges."""
    from netkit.cluster.node_listing import list_nodes

    found = list_nodes(profile)
    if output is Format.JSON:
        print_json(found)
        return
    print(
        table(
            ["NODE", "STATE", "READY", "SCHEDULABLE", "ADDRESS", "POD RANGE", "PODS", "CABLE"],
            [
                (n.node, n.state, n.ready, "yes" if n.schedulable else "no", n.address, n.pod_range or "-",
                 n.pods, "cut" if n.cut else "ok")
                for n in found
            ],
        )
    )  # fmt: skip


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="[default: node and the next number]")] = "",
    count: Annotated[int, typer.Option("--count", "-n", help="How many.")] = 1,
    segment: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where they are [default: where the first node is].",
            autocompletion=completion.segments,
        ),
    ] = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Add nodes to the running cluster; returns when they are Ready.

    When one does not come up, or on Ctrl-C, none of them is left.
    """
    from netkit.cluster.node_changes import add

    need_root()
    _print_result(add(profile, name, count, _Report(output), segment), output)


@app.command()
def remove(
    nodes: NodesArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Do not evict the pods first: they go with the node.")
    ] = False,
    timeout: TimeoutOption = 60.0,
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Evict a node's pods, then remove the node with all that it had: processes, namespaces, cable, state."""
    from netkit.cluster.node_changes import remove

    need_root()
    found = remove(
        profile, nodes, force=force, seconds=timeout, progress=_Evicted(output), report=_Report(output)
    )
    _print_result(found, output)


@app.command()
def stop(node: NodeArgument, profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Pull a node's plugs: its processes die at once and its cable goes dead.

    Nobody is told: the Node becomes NotReady when its silence is noticed (40 s, nodeMonitor.gracePeriod), and its pods
    are replaced when their tolerations have run out (300 s, nodeMonitor.evictionAfter).
    """
    from netkit.cluster.node_changes import stop

    need_root()
    change = stop(profile, node)
    _Report(output)(change)
    _print_result(change, output)


@app.command()
def start(node: NodeArgument, profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Start a stopped node again; returns when it is Ready."""
    from netkit.cluster.node_changes import start

    need_root()
    _print_result(start(profile, node, _Report(output)), output)


@app.command()
def readdress(
    node: NodeArgument,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A free address of the segment.")],
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Give a node another address while its pods go on; the others' routes follow."""
    from ipaddress import IPv4Address

    from netkit.cluster.errors import ClusterError
    from netkit.cluster.node_changes import readdress

    need_root()
    try:
        wanted = IPv4Address(address)
    except ValueError:
        raise ClusterError(f"{address!r} is not an IPv4 address") from None
    _print_result(readdress(profile, node, wanted, _Report(output)), output)


@app.command()
def cordon(nodes: NodesArgument, profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Keep new pods off a node; those on it go on."""
    _set_schedulable(nodes, profile, output, value=False)


@app.command()
def uncordon(
    nodes: NodesArgument, profile: ProfileOption = "lab", output: OutputOption = Format.TEXT
) -> None:
    """Let pods come to a node again."""
    _set_schedulable(nodes, profile, output, value=True)


@app.command()
def drain(
    node: NodeArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Evict pods without a controller too, which nobody makes anew.")
    ] = False,
    timeout: TimeoutOption = 60.0,
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Keep new pods off a node and evict those that are there, as disruption budgets allow; DaemonSets' pods stay."""
    from netkit.cluster.node_draining import drain

    need_root()
    found = drain(profile, node, force=force, seconds=timeout, report=_Evicted(output))
    if output is Format.JSON:
        print_json(found)
    else:
        print(f"{node} is drained: {len(found.evicted)} pods left it. New ones: netkit node uncordon {node}")


def _set_schedulable(nodes: list[str], profile: str, output: Format, *, value: bool) -> None:
    from netkit.cluster.node_draining import set_schedulable

    need_root()
    found = set_schedulable(profile, nodes, value)
    if output is Format.JSON:
        print_json(found)
        return
    for node in found:
        what = "uncordoned" if value else "cordoned"
        print(f"{node.node} {what if node.changed else f'was {what} already'}")


class _Report:
    """Prints what became of a node as soon as it is so; programs get everything at the end."""

    def __init__(self, output: Format) -> None:
        self._on = output is Format.TEXT

    def __call__(self, change: NodeChange) -> None:
        if self._on:
            ink = Ink(sys.stdout)
            what = f"{change.node} {change.what}, {change.address}"
            print(f"{ink.good('ok')}  {what:<58} {change.seconds * 1000:6.0f} ms", flush=True)


class _Evicted:
    """Prints the pods that leave a node, as they do."""

    def __init__(self, output: Format) -> None:
        self._on = output is Format.TEXT

    def __call__(self, pod: str) -> None:
        if self._on:
            print(f"    {Ink(sys.stdout).dim(f'evicted {pod}')}", flush=True)


def _print_result(found: NodeChange | list[NodeChange], output: Format) -> None:
    if output is Format.JSON:
        print_json(found)
