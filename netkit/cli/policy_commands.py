"""`netkit policy`: who reaches whom, by which NetworkPolicy, and what of it is in the nodes' kernels."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption, need_root
from netkit.cli.output import Format, Ink, print_differing, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.policy_inspection import Matrix
    from netkit.policy.verdict import Verdict

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="NetworkPolicy: who reaches whom, and why."
)

_PROTOCOLS = ("TCP", "UDP", "SCTP")


def _protocols(incomplete: str) -> list[str]:
    return [word for word in _PROTOCOLS if word.startswith(incomplete.upper())]


ProtocolOption = Annotated[
    str,
    typer.Option("--protocol", metavar="NAME", help="TCP, UDP or SCTP.", autocompletion=_protocols),
]


def _from(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of FROM."""
    from netkit.cluster.policy_inspection import names

    return _asked_of_api(lambda profile: names(profile, services=False), context, incomplete)


def _to(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of TO."""
    from netkit.cluster.policy_inspection import names

    return _asked_of_api(lambda profile: names(profile, services=True), context, incomplete)


def _namespaces(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of --namespace."""
    from netkit.cluster.policy_inspection import namespaces

    return _asked_of_api(namespaces, context, incomplete)


def _asked_of_api(ask: Callable[[str], list[str]], context: typer.Context, incomplete: str) -> list[str]:
    """What begins so; nothing when there is no cluster, or its API does not answer."""
    from controlplane.errors import StatusError
    from netkit.cluster.errors import ClusterError

    try:
        found = ask(context.params.get("profile") or "lab")
    except (ClusterError, StatusError):
        return []
    return [word for word in found if word.startswith(incomplete)]


NodeOption = Annotated[
    str, typer.Option(metavar="NODE", help="One node [default: all].", autocompletion=completion.nodes)
]


@app.command()
def explain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="A pod (ns/pod), node:NAME or an IP address.", autocompletion=_from
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TO[:PORT]", help="The same, or a Service (ns/service:port).", autocompletion=_to
        ),
    ],
    protocol: ProtocolOption = "TCP",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Say whether a connection is allowed: which policies select each end, and which rule allows it or why none does.

    Exits with 0 when it is allowed and with 1 when not.
    """
    need_root()
    from netkit.cluster.policy_inspection import explain as judge

    found = judge(profile, source, target, _known(protocol))
    if output is Format.JSON:
        print_json(found)
    else:
        for verdict in found:
            _print_verdict(verdict)
    if not all(verdict.allowed for verdict in found):
        raise typer.Exit(1)


@app.command()
def matrix(
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NS",
            help="Pods of one namespace [default: all].",
            autocompletion=_namespaces,
        ),
    ] = "",
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The port that is called.", min=1, max=65535)
    ] = None,
    protocol: ProtocolOption = "TCP",
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead of text.")
    ] = None,
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show who reaches whom. Without --port only rules without ports count as allowing."""
    need_root()
    from netkit.cluster.policy_inspection import matrix as judge

    found = judge(profile, namespace, _known(protocol), port)
    if page is not None:
        _write(page, _page(found))
        print(f"written to {page}")
    elif output is Format.JSON:
        print_json(found)
    else:
        _print_matrix(found)


@app.command()
def rules(node: NodeOption = "", profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Print the policies' rules that are in the nodes' kernels, with how often each one matched."""
    need_root()
    from netkit.cluster.policy_inspection import standing

    found = standing(profile, node)
    if output is Format.JSON:
        print_json(found)
        return
    ink = Ink(sys.stdout)
    if not found:
        print("no pod is isolated by a policy")
    for item in found:
        print(ink.bold(f"{item.node}, {item.family}"))
        for section in item.sections:
            print(f"  {section.name}{f' ({section.note})' if section.note else ''}")
            for entry in section.entries:
                print(f"    {entry}")


@app.command()
def diff(node: NodeOption = "", profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Compare what policies ask for with what is in the nodes' kernels.

    Exits with 0 when they are the same and with 1 when they differ.
    """
    need_root()
    from netkit.cluster.policy_inspection import compare

    found = compare(profile, node)
    if output is Format.JSON:
        print_json(found)
    elif not found:
        print(Ink(sys.stdout).good("same: the rules are what policies ask for"))
    else:
        ink = Ink(sys.stdout)
        for item in found:
            print(f"{item.node}, {item.family}:  - is missing from the kernel, + should not be there")
            for section in item.sections:
                print(f"  {section.section}")
                print_differing(section.missing, section.unwanted, ink)
    if found:
        raise typer.Exit(1)


def _known(protocol: str) -> str:
    from netkit.cluster.errors import ClusterError

    if protocol.upper() not in _PROTOCOLS:
        raise ClusterError(f"--protocol {protocol} is not known", f"write one of: {', '.join(_PROTOCOLS)}")
    return protocol.upper()


def _write(path: Path, content: str) -> None:
    from netkit.cluster.errors import ClusterError

    try:
        path.write_text(content)
    except OSError as error:
        raise ClusterError(f"{path} cannot be written: {error.strerror}") from error


def _print_verdict(verdict: Verdict) -> None:
    ink = Ink(sys.stdout)
    what = (
        f"{verdict.port}/{verdict.protocol}" if verdict.port is not None else f"any {verdict.protocol} port"
    )
    word = ink.good("allowed") if verdict.allowed else ink.bad("denied")
    print(f"{verdict.source} -> {verdict.destination} {what}: {word}")
    for half in verdict.halves:
        by = f"allowed by {half.by}" if half.by else "allowed" if half.allowed else "no rule allows it"
        paint = ink.good if half.allowed else ink.bad
        print(f"  {half.direction} of {half.pod}: {paint(by)}")
        if half.policies:
            print(f"    isolated by {', '.join(half.policies)}")
        for line in half.why:
            print(ink.dim(f"    {line}"))


def _print_matrix(found: Matrix) -> None:
    allowed = {(cell.source, cell.destination): cell.allowed for cell in found.cells}
    headers = ["FROM \\ TO", *(str(number) for number in range(1, len(found.ends) + 1))]
    rows = [
        [
            f"{number} {one}",
            *("=" if one == other else "+" if allowed[one, other] else "-" for other in found.ends),
        ]
        for number, one in enumerate(found.ends, 1)
    ]
    print(table(headers, rows))
    print(f"\n+ allowed, - denied; {_asked(found)}")


def _asked(found: Matrix) -> str:
    return f"port {found.port}/{found.protocol}" if found.port is not None else "rules without ports only"


def _page(found: Matrix) -> str:
    """A page that needs nothing else."""
    cells = {(cell.source, cell.destination): cell for cell in found.cells}
    head = "".join(f"<th><span>{html.escape(end)}</span></th>" for end in found.ends)
    lines = []
    for one in found.ends:
        line = [f"<th>{html.escape(one)}</th>"]
        for other in found.ends:
            cell = cells.get((one, other))
            kind = "self" if cell is None else "yes" if cell.allowed else "no"
            title = html.escape("; ".join(cell.by) or kind) if cell is not None else ""
            line.append(f'<td class="{kind}" title="{title}"></td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    style = (
        "body{font:14px sans-serif}th{text-align:left;font-weight:normal;padding:2px 8px}"
        "thead span{writing-mode:vertical-rl}td{width:20px;height:20px}"
        ".yes{background:#2a2}.no{background:#c33}.self{background:#ddd}"
    )
    title = f"Who reaches whom: {html.escape(_asked(found))}"
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{style}</style><h1>{title}</h1>'
        f"<table><thead><tr><th>from \\ to</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>\n"
    )
