"""`netkit network`: the pod network of a cluster - its mode, what it holds, and whether it is what it should be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption, need_root
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.network_inspection import Comparison, NodeView
    from netkit.cluster.network_mode import NodeNetworkMode
    from netkit.cluster.router_inspection import RouterView
    from netkit.podnet.modes import NetworkMode

_MODES = ("vxlan", "native", "wireguard", "external")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The pod network: its mode, what each node's kernel holds of it, and whether that is right.",
)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _routers(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of --router."""
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.profile import Profile

    try:
        facts = Profile(context.params.get("profile") or "lab").facts()
    except ClusterError:
        return []
    return [m.name for m in facts.machines if m.role == "router" and m.name.startswith(incomplete)]


NodeOption = Annotated[
    str,
    typer.Option("--node", metavar="NODE", help="One node [default: all].", autocompletion=completion.nodes),
]


@app.command()
def mode(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="[MODE]",
            help="vxlan, native or wireguard; none: show the mode.",
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

    vxlan wraps them into packets of the nodes; wireguard also encrypts them, by the kernel where it can, else by the
    program wireguard-go; native routes them as they are; with external it is the affair of CNI plug-ins of others, and
    that is chosen at up alone. Pods go on, connections between pods
    survive, and the MTU of pods follows. Exits with 1 when a node could not be changed; then all keep the old mode.
    """
    need_root()
    from netkit.cluster.network_mode import change_mode, read_mode

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


@app.command()
def show(
    node: NodeOption = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also firewall rules and kernel settings.")
    ] = False,
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Print what each node's kernel holds of the pod network: devices, addresses, routes, neighbours, forwarding
    entries, pods, MTUs - and what each entry is for; and the routes of routers.
    """
    need_root()
    from netkit.cluster.network_inspection import show
    from netkit.cluster.router_inspection import routes

    found = show(profile, node)
    routers = [] if node else routes(profile, none_is_fine=True)
    if output is Format.JSON:
        print_json([*found, *routers])
        return
    for index, view in enumerate(found):
        if index:
            print()
        _print_view(view, everything)
    for router in routers:
        print()
        _print_router(router)


@app.command()
def check(node: NodeOption = "", profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Compare the pod network in the nodes' kernels with what it should be, entry by entry.

    Exits with 0 when it is as it should be and with 1 when not. What is just being written is waited for.
    """
    need_root()
    from netkit.cluster.network_inspection import check

    found = check(profile, node)
    if output is Format.JSON:
        print_json(found)
    else:
        _print_comparison(found)
    if not found.same:
        raise typer.Exit(1)


@app.command()
def routes(
    router: Annotated[
        str,
        typer.Option(
            "--router", metavar="ROUTER", help="One router [default: all].", autocompletion=_routers
        ),
    ] = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Print each router's routes - what each is for, where it came from - and its BGP sessions."""
    need_root()
    from netkit.cluster.router_inspection import routes

    found = routes(profile, router)
    if output is Format.JSON:
        print_json(found)
        return
    for index, view in enumerate(found):
        if index:
            print()
        _print_router(view)


def _print_router(view: RouterView) -> None:
    ink = Ink(sys.stdout)
    print(ink.bold(f"{view.router}, routes {view.routes_by}{f', AS {view.asn}' if view.asn else ''}"))
    rows = [
        (
            route.target,
            hop if not number else f"  or {hop}",
            route.source,
            route.purpose or ink.bad("not ours"),
        )
        for route in view.routes
        for number, hop in enumerate(route.hops)
    ]
    print(table(["  TO", "WAY", "FROM", "FOR"], [(f"  {row[0]}", *row[1:]) for row in rows]))
    if view.problem:
        print(ink.bad(f"  the BGP daemon does not answer: {view.problem}"))
    if view.sessions:
        lines = [
            (
                f"  {s.neighbour or 'stranger'}",
                s.address,
                s.asn or "-",
                s.state,
                s.since or "-",
                s.imported,
                s.exported,
            )
            for s in view.sessions
        ]
        print(table(["  NEIGHBOUR", "ADDRESS", "AS", "STATE", "SINCE", "IN", "OUT"], lines))


def _print_view(view: NodeView, everything: bool) -> None:
    ink = Ink(sys.stdout)
    print(
        ink.bold(
            f"{view.node}, {view.mode}, {view.attach}: {view.pods} pods in {view.pod_range}, MTU {view.pod_mtu}"
        )
    )
    print(f"  underlay {view.underlay} {view.address}, MTU {view.underlay_mtu}")
    if view.policies.policies:
        counted = view.policies
        print(
            f"  {counted.policies} NetworkPolicies isolate {counted.pods} of its pods by {counted.rules} rules"
        )
    for kind in dict.fromkeys(entry.kind for entry in view.entries):
        if kind in ("rule", "setting") and not everything:
            continue
        print(f"  {kind}")
        entries = [entry for entry in view.entries if entry.kind == kind]
        texts = [f"{entry.key}  {entry.value}".rstrip() for entry in entries]
        width = min(max(map(len, texts)), 96)
        for entry, text in zip(entries, texts, strict=True):
            purpose = ink.dim(entry.purpose) if entry.purpose else ink.bad("not ours")
            print(f"    {text:<{width}}   {purpose}")


def _print_comparison(found: Comparison) -> None:
    ink = Ink(sys.stdout)
    if found.same:
        count = sum(node.checked for node in found.nodes)
        names = ", ".join(node.node for node in found.nodes)
        print(ink.good(f"as it should be: {count} entries on {names}"))
        return
    for node in found.nodes:
        for item in node.entries:
            values = {"missing": item.wanted, "not ours": item.found}.get(
                item.problem, f"{item.found}, should be {item.wanted}"
            )
            text = f"{item.kind} {item.key}  {values}".rstrip()
            print(f"{ink.bad('!!')}  {node.node}  {item.problem}: {text}")
            print(f"      {item.purpose}")


def _parse(wanted: str, direct_routing: bool) -> NetworkMode:
    from netkit.cluster.errors import ClusterError
    from netkit.podnet.modes import NetworkMode

    if wanted not in _MODES:
        raise ClusterError(f"there is no network mode {wanted!r}", f"there are: {', '.join(_MODES)}")
    if direct_routing and wanted != NetworkMode.VXLAN:
        hint = "native does without a tunnel anyway, and wireguard never sends in the clear"
        raise ClusterError("--direct-routing is for mode vxlan only", hint)
    return NetworkMode(wanted)


def _shown(each: NodeNetworkMode) -> str:
    options = [text for text in ("direct routing" if each.direct_routing else "", each.encryption) if text]
    return f"{each.mode} ({', '.join(options)})" if options else each.mode or "-"


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
