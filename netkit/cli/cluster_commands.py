"""`netkit up`, `status`, `down`: one cluster from nothing to nothing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.output import Format, Ink, display_path, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.profile import ClusterFacts
    from netkit.cluster.status import ClusterStatus
    from netkit.cluster.up import Step


def cluster_names(incomplete: str) -> list[str]:
    """Tab completion of `-p`."""
    from netkit.cluster.profile import names

    return [name for name in names() if name.startswith(incomplete)]


def topology_names(incomplete: str) -> list[str]:
    """Tab completion of topologies."""
    from netkit.cluster.topology_file import ready_made

    return [name for name in ready_made() if name.startswith(incomplete)]


ProfileOption = Annotated[
    str,
    typer.Option("--profile", "-p", metavar="NAME", help="The cluster's name.", autocompletion=cluster_names),
]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="text or json.")]


def need_root() -> None:
    """Raises ClusterError for everybody but root."""
    from netkit.cluster.privilege import require_root

    require_root()


def register(app: typer.Typer) -> None:
    for command in (up, status, down):
        app.command()(command)


def up(
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="NAME", help="The cluster's name [default: lab].")
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", "-n", help="How many nodes [default: 3].")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="YAML file; see README for its fields."),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            "--topology",
            "-t",
            metavar="FILE",
            help="Segments, routers, nodes: a file, or a ready-made topology.",
            autocompletion=topology_names,
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write the context [default: $KUBECONFIG or ~/.kube/config]."
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the steps only, not what to try next.")
    ] = False,
    output: OutputOption = Format.TEXT,
) -> None:
    """Make a cluster: control plane, nodes, pod network and proxy, ready for kubectl."""
    from netkit.cluster.config import load

    settings = load(config, name=profile, nodes=nodes, topology=topology)
    need_root()
    from netkit.cluster.up import default_kubeconfig
    from netkit.cluster.up import up as bring_up

    result = bring_up(settings, kubeconfig or default_kubeconfig(), _Progress(output is Format.TEXT))
    if output is Format.JSON:
        print_json(result)
    elif not quiet:
        _print_what_to_try(result.cluster)


def _print_what_to_try(facts: ClusterFacts) -> None:
    ink = Ink(sys.stdout)
    suffix = "" if facts.name == "lab" else f" -p {facts.name}"
    print()
    print(f"Cluster {ink.bold(facts.name)} is ready: kubectl uses context netkit-{facts.name} now. Try:")
    for command, what in (
        ("kubectl get nodes -o wide", "the nodes"),
        ("kubectl create -f FILE", "your own manifests; kubectl apply works as well"),
        (f"netkit status{suffix}", "everything on one screen"),
        (f"netkit exec{suffix} client -- curl -s NODE:NODEPORT", "ask a NodePort from outside"),
        (f"netkit exec{suffix} node1 -- {_iptables_save()} -t nat", "the rules of kube-proxy on a node"),
        (f"netkit down{suffix}", "remove it all"),
    ):
        print(f"  {command:<56} {ink.dim(what)}")


def _iptables_save() -> str:
    """The program that shows the proxy's rules: the legacy variant is preferred where a machine has it."""
    return "iptables-legacy-save" if shutil.which("iptables-legacy-restore") else "iptables-save"


class _Progress:
    """Prints each finished step of `up` with the time it took."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._ink = Ink(sys.stdout)

    def __call__(self, step: Step) -> None:
        if self._on:
            print(f"{self._ink.good('ok')}  {step.text:<58} {step.seconds * 1000:6.0f} ms", flush=True)


def status(profile: ProfileOption = "lab", output: OutputOption = Format.TEXT) -> None:
    """Show a cluster on one screen: machines, processes, nodes, pods and Services."""
    from netkit.cluster.status import read_status

    value = read_status(profile)
    if output is Format.JSON:
        print_json(value)
    else:
        _print_status(value)
    if not value.healthy:
        raise typer.Exit(1)


def _print_status(value: ClusterStatus) -> None:
    ink = Ink(sys.stdout)
    state = ink.good("healthy") if value.healthy else ink.bad("not healthy")
    print(f"Cluster {ink.bold(value.name)}: {state}")
    print(
        f"API {value.server}   pods {value.pod_subnet}   Services {value.service_subnet}   segment {value.segment}\n"
    )
    print(
        table(
            ["MACHINE", "ROLE", "ADDRESS", "NAMESPACE"],
            [(m.name, m.role, m.address or "-", m.namespace) for m in value.machines],
        )
    )
    print()
    print(table(["PROCESS", "PID", "STATE"], [(p.label, p.pid, p.state) for p in value.processes]))
    if value.nodes:
        print()
        print(
            table(
                ["NODE", "READY", "PODS", "POD RANGE"],
                [(n.name, n.ready, n.pods, n.pod_cidr or "-") for n in value.nodes],
            )
        )
    if value.services:
        print()
        print(
            table(
                ["SERVICE", "TYPE", "CLUSTER-IP", "PORTS", "ENDPOINTS"],
                [(s.name, s.type, s.cluster_ip, s.ports, s.endpoints) for s in value.services],
            )
        )
    for problem in value.problems:
        print(ink.bad(f"problem: {problem}"))


def down(
    profile: ProfileOption = "lab",
    everything: Annotated[bool, typer.Option("--all", help="Remove every cluster of this machine.")] = False,
    output: OutputOption = Format.TEXT,
) -> None:
    """Remove a cluster and everything it made; also after a crash."""
    from netkit.cluster.down import down as take_down
    from netkit.cluster.profile import names

    need_root()
    results = [take_down(name) for name in (names() if everything else [profile])]
    if output is Format.JSON:
        print_json(results if everything else results[0])
        return
    for result in results:
        print(
            f"Cluster {result.name} is gone: {result.processes} processes, {result.namespaces} namespaces"
            f" removed in {result.seconds * 1000:.0f} ms; context netkit-{result.name} removed from"
            f" {display_path(Path(result.kubeconfig)) if result.kubeconfig else 'no kubeconfig'}."
        )
    if everything and not results:
        print("There is no cluster.")
