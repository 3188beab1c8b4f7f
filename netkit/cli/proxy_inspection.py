"""`netkit proxy explain`, `rules` and `diff`: look into the kube-proxies of a cluster, or into one that runs alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption, need_root
from netkit.cli.output import Format, Ink, print_differing, print_json

if TYPE_CHECKING:
    from netkit.cluster.proxy_access import Alone
    from netkit.cluster.proxy_inspection import Comparison, NodeDifferences, NodeRules
    from netkit.proxy.listing import Section

_MODES = ("iptables", "nftables", "ipvs", "userspace")
_ORIGINS = ("pod", "node", "outside")
_KINDS = ("cluster-ip", "node-port", "external-ip", "load-balancer")


def register(app: typer.Typer) -> None:
    """Put the commands on the group `netkit proxy`."""
    for command in (explain, rules, diff):
        app.command()(command)


def _starting_with(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", metavar="NS", help="Of the Service.")]
KubeconfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A proxy that runs alone: the cluster it works for."),
]
NetnsOption = Annotated[
    str, typer.Option(metavar="NAME", help="With --kubeconfig: its network namespace [default: this one].")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="With --kubeconfig: its KubeProxyConfiguration [default: asked of itself]."
    ),
]
ModeOption = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="With --kubeconfig: its mode [default: asked of itself].",
        autocompletion=lambda incomplete: _starting_with(_MODES, incomplete),
    ),
]


def explain(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE[:PORT]",
            help="web, default/web:http, web:80; or an address of one: 10.96.0.10:80.",
            show_default=False,
        ),
    ],
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHO",
            help="pod, pod/NAME, pod/NAMESPACE/NAME, node or outside.",
            autocompletion=lambda incomplete: _starting_with(_ORIGINS, incomplete),
        ),
    ] = "pod",
    to: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="cluster-ip, node-port, external-ip or load-balancer [default: cluster-ip; from outside, the first"
            " external address].",
            autocompletion=lambda incomplete: _starting_with(_KINDS, incomplete),
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE", help="Whose proxy handles it [default: the pod's node, else the first]."
        ),
    ] = "",
    source: Annotated[str, typer.Option(metavar="ADDRESS", help="The caller's address.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also rules for other packets, and long lists whole.")
    ] = False,
    namespace: NamespaceOption = "default",
    profile: ProfileOption = "lab",
    kubeconfig: KubeconfigOption = None,
    netns: NetnsOption = "",
    config: ConfigOption = None,
    mode: ModeOption = "",
    output: OutputOption = Format.TEXT,
) -> None:
    """Say what becomes of a connection to a Service, by which rules, to which endpoints, and why.

    Exits with 0 when it would be delivered and with 1 when not.
    """
    alone = _alone(kubeconfig, netns, config, mode)
    need_root()
    from netkit.cluster.proxy_inspection import Question, explain_connection
    from netkit.proxy.explain.target import To
    from netkit.proxy.explain.text import lines

    question = Question(
        service, namespace, origin, To(_one_of(to, _KINDS, "--to")) if to else None, node, source
    )
    answer = explain_connection(profile, alone, question)
    if output is Format.JSON:
        print_json(answer)
    else:
        ink = Ink(sys.stdout)
        paints = {"good": ink.good, "bad": ink.bad, "dim": ink.dim, "bold": ink.bold}
        for index, found in enumerate(answer.explanations):
            if index:
                print()
            for line in lines(found, lambda name, text: paints[name](text), everything=everything):
                print(line)
    if not answer.delivered:
        raise typer.Exit(1)


def rules(
    node: Annotated[str, typer.Option(metavar="NODE", help="One node [default: all].")] = "",
    service: Annotated[
        str, typer.Option(metavar="SERVICE[:PORT]", help="Only what serves it, in the order of its packets.")
    ] = "",
    namespace: NamespaceOption = "default",
    profile: ProfileOption = "lab",
    kubeconfig: KubeconfigOption = None,
    netns: NetnsOption = "",
    config: ConfigOption = None,
    mode: ModeOption = "",
    output: OutputOption = Format.TEXT,
) -> None:
    """Print the rules of kube-proxy that are in the nodes' kernels, whatever the mode."""
    alone = _alone(kubeconfig, netns, config, mode)
    need_root()
    from netkit.cluster.proxy_inspection import standing_rules

    found = standing_rules(profile, alone, node, service, namespace)
    if output is Format.JSON:
        print_json(found)
    else:
        _print_rules(found)


def diff(
    node: Annotated[str, typer.Option(metavar="NODE", help="One node [default: all].")] = "",
    profile: ProfileOption = "lab",
    kubeconfig: KubeconfigOption = None,
    netns: NetnsOption = "",
    config: ConfigOption = None,
    mode: ModeOption = "",
    output: OutputOption = Format.TEXT,
) -> None:
    """Compare what Services ask for with what is in the nodes' kernels.

    Exits with 0 when they are the same and with 1 when they differ. What is just being written is waited for.
    """
    alone = _alone(kubeconfig, netns, config, mode)
    need_root()
    from netkit.cluster.proxy_inspection import compare

    found = compare(profile, alone, node)
    if output is Format.JSON:
        print_json(found)
    else:
        _print_comparison(found)
    if not found.same:
        raise typer.Exit(1)


def _alone(kubeconfig: Path | None, netns: str, config: Path | None, mode: str) -> Alone | None:
    """The proxy that runs alone, if one is meant. Raises ClusterError for options that make no sense together."""
    from netkit.cluster.errors import ClusterError

    if kubeconfig is None:
        given = next(
            (name for name, value in (("netns", netns), ("config", config), ("mode", mode)) if value), ""
        )
        if given:
            raise ClusterError(
                f"--{given} needs --kubeconfig",
                "without it the proxies of the cluster -p names are looked into",
            )
        return None
    from netkit.cluster.proxy_access import Alone
    from netkit.proxy.settings import ProxyMode

    return Alone(kubeconfig, netns, config, ProxyMode(_one_of(mode, _MODES, "--mode")) if mode else None)


def _one_of(word: str, words: Iterable[str], option: str) -> str:
    from netkit.cluster.errors import ClusterError

    if word not in words:
        raise ClusterError(f"{option} {word} is not known", f"write one of: {', '.join(words)}")
    return word


def _print_rules(found: list[NodeRules]) -> None:
    ink = Ink(sys.stdout)
    for index, item in enumerate(found):
        if index:
            print()
        print(ink.bold(f"{item.node}, {item.mode}, {item.family}: {_rules_text(item.sections)}"))
        _print_sections(item.sections, "  ")
        if item.missing:
            print(ink.bad(f"  not in the kernel: {_rules_text(item.missing)}"))
            _print_sections(item.missing, "- ")


def _print_sections(sections: Iterable[Section], mark: str) -> None:
    for section in sections:
        print(f"  {section.name}{f' ({section.note})' if section.note else ''}")
        for entry in section.entries:
            print(f"    {mark}{entry}")


def _rules_text(sections: Iterable[Section]) -> str:
    count = sum(len(section.entries) for section in sections)
    return "1 entry" if count == 1 else f"{count} entries"


def _print_comparison(found: Comparison) -> None:
    ink = Ink(sys.stdout)
    differing = [item for item in found.nodes if item.sections]
    nodes = {item.node for item in found.nodes}
    if found.same:
        print(ink.good(f"same: the rules of {', '.join(sorted(nodes))} are what Services ask for"))
        return
    count = sum(len(item.sections) for item in differing)
    where = ", ".join(sorted({item.node for item in differing}))
    print(ink.bad(f"{count} section{'' if count == 1 else 's'} differ{'s' if count == 1 else ''} on {where}"))
    for item in differing:
        _print_differences(item, ink)


def _print_differences(item: NodeDifferences, ink: Ink) -> None:
    print(f"\n{item.node}, {item.mode}, {item.family}:  - is missing from the kernel, + should not be there")
    for section in item.sections:
        print(f"  {section.section}")
        print_differing(section.missing, section.unwanted, ink)
        if not section.missing and not section.unwanted:
            print("    the same entries, but in another order or under another heading")
